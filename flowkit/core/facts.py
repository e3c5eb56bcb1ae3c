"""Everything that can be recorded about a task. A fact is past tense, final, and all that `evolve` ever sees.

The wire tag of a fact is stable for ever; a new field goes to the end and has a default.
"""

from __future__ import annotations

from typing import Any

from flowkit.core.immutable import immutable
from flowkit.core.payload import Payload

ErrorInfo = dict[str, Any]
"""`code` and `message`, and where known `type`, `traceback`, `node_id`."""

Usage = dict[str, Any]
"""What a program has used, and its `verdict`: as far as that was measured `wall_sec`, `cpu_sec`, `peak_memory_bytes`,
`read_bytes`, `written_bytes`, `received_bytes`, `sent_bytes`; and the `level` at which it ran."""


@immutable
class TaskCreated:
    """A coordinator took the accepted task up. `not_needed` are the nodes that no target needs."""

    not_needed: tuple[str, ...] = ()


@immutable
class AttemptLeased:
    """A worker got the right to one attempt. `accept_by` is in the worker's own monotonic clock (seconds). `permits`
    are the limits whose permits it has."""

    node: str
    attempt: int
    token: str
    worker: str
    incarnation: str
    accept_by: float
    permits: tuple[str, ...] = ()


@immutable
class AttemptStarted:
    node: str
    attempt: int
    token: str


@immutable
class AttemptSucceeded:
    """`next` are the successors that the handler chose, None for all; `run_sec` as the worker measured it."""

    node: str
    attempt: int
    token: str
    output: Payload
    next: tuple[str, ...] | None = None
    run_sec: float = 0.0
    usage: Usage | None = None


@immutable
class AttemptFailed:
    """`retry_at` (epoch seconds) is when it is tried again; None makes the node `failed`. `budget` names the retry
    rule's code that this failure was counted for, or is empty for the policy's own."""

    node: str
    attempt: int
    token: str
    error: ErrorInfo
    retry_at: float | None
    budget: str = ""
    run_sec: float = 0.0
    usage: Usage | None = None


@immutable
class LeaseLost:
    """An attempt ended without a result, through no fault of its node. `why`: `expired`, `unaccepted`, `declined`,
    `released`; `child_gone` where its task is no more, or was to go on from an earlier attempt and cannot. `retry_at`
    None makes the node `failed` with `error`; `costs` says that the loss budget paid."""

    node: str
    attempt: int
    token: str
    why: str
    retry_at: float | None
    costs: bool
    error: ErrorInfo | None = None
    usage: Usage | None = None


@immutable
class RetryDue:
    """The wait of a node is over; it is ready again."""

    node: str


@immutable
class NodeFailed:
    """The node failed without a result of its attempt: inputs that cannot be built, a timeout in the queue or in
    all."""

    node: str
    error: ErrorInfo


@immutable
class NodeSkipped:
    """`reason`: `upstream_failed`, `not_taken`, `no_output`, `quorum`, `not_needed`; `cause` the node behind it."""

    node: str
    reason: str
    by_failure: bool
    cause: str = ""


@immutable
class NodeCancelling:
    """A running attempt was told to stop; at `until` (epoch seconds) nobody waits for it any more. `loser`: a join went
    on without it."""

    node: str
    reason: str
    until: float
    loser: bool = False


@immutable
class NodeCancelled:
    """`loser`: a join went on without it; nothing was wrong with it."""

    node: str
    reason: str
    loser: bool = False
    usage: Usage | None = None


@immutable
class Routed:
    """Which conditional edges of a node that ended are taken: those to these targets."""

    node: str
    taken: tuple[str, ...]


@immutable
class NodeOpened:
    """The node's own condition holds; it waits for a worker now."""

    node: str


@immutable
class NodeExpanded:
    """A node with `foreach` became so many items: these, where they were made of variables, which may change later."""

    node: str
    count: int
    items: list[Any] | None = None


@immutable
class NodeRepeated:
    """Repetition `n` of a node begins at `at` (epoch seconds)."""

    node: str
    n: int
    at: float


@immutable
class NodeGathered:
    """A group finished: its output are those of its items, or that of its last repetition."""

    node: str


@immutable
class NodeWaiting:
    """A node waits without a worker: until `until` (epoch seconds), or for the signal of this name."""

    node: str
    until: float | None = None
    signal: str = ""


@immutable
class NodeFinished:
    """A node finished that no worker ran: it slept, was given a signal, ended the task, or its output was kept from
    before (`cached`)."""

    node: str
    output: Payload
    cached: bool = False


@immutable
class SignalReceived:
    """A signal came: `node` took it and finished; empty: it is kept for a node that does not wait yet."""

    name: str
    output: Payload
    node: str = ""


@immutable
class ChildStarted:
    """An attempt of a sub-graph node is the task `child`."""

    node: str
    attempt: int
    child: str


@immutable
class ChildContinued:
    """An attempt of a sub-graph node is the task `child` of an earlier attempt, which goes on where it had ended."""

    node: str
    attempt: int
    child: str


@immutable
class FunctionApplied:
    """A coordinator function did `operations` to the task's variables, and finished its node."""

    node: str
    operations: list[Any]
    output: Payload


@immutable
class NodeHeld:
    """The node was paused: it does not start."""

    node: str
    reason: str = ""


@immutable
class NodeReleased:
    """The node was resumed."""

    node: str


@immutable
class UndoBegan:
    """Before the task ends as `outcome`, what its nodes did is undone: by these, the first of them last."""

    nodes: tuple[str, ...]
    outcome: str
    error: ErrorInfo | None = None


@immutable
class RequestApplied:
    """Request number `n` was answered; `why` explains a refusal (`accepted` false)."""

    n: int
    id: str
    kind: str
    accepted: bool
    why: str = ""
    principal: str = ""


@immutable
class TaskPaused:
    reason: str = ""


@immutable
class TaskResumed:
    pass


@immutable
class TaskCancelling:
    """Everything open is cancelled: at once what does not run, at `until` what still does. The task will end as
    `outcome` (`cancelled`, `failed` for a timeout, fail-fast or a budget, or what the `end` node `by` says), with
    `error`."""

    reason: str
    outcome: str
    until: float
    error: ErrorInfo | None = None
    by: str = ""


@immutable
class TaskRestarted:
    """A new generation of an ended task. `nodes` are those that run again; None is all of them. `graph` is the
    reference of the edited graph, empty for the same as before; `params` are the new ones, None for the same. `within`
    are the nodes of the graph whose children, if they failed or were cancelled, go on where they had ended; for a group
    these are the children of its items among `nodes`. `for_attempt`: the restart is a part of that attempt of the
    parent's node; 0: of none. `deadline` (epoch seconds) is the task's new one, None for the same. `forget`: the
    variables begin anew, as nothing that may have set them is kept."""

    generation: int
    nodes: tuple[str, ...] | None = None
    graph: str = ""
    params: dict[str, Any] | None = None
    within: tuple[str, ...] = ()
    for_attempt: int = 0
    deadline: float | None = None
    forget: bool = False


@immutable
class ParentWaits:
    """The attempt `attempt` of the parent's node waits for the end of this task, be it that which stands. `again`: it
    is being cancelled, and once it has ended it begins again, with what this says; None: it does not."""

    attempt: int
    again: dict[str, Any] | None = None


@immutable
class DeadlineSet:
    """The node must have ended at `at` (epoch seconds); 0 where what it says is no moment."""

    node: str
    at: float


@immutable
class TaskEnded:
    """`status` is `finished`, `failed` or `cancelled`: final for this generation."""

    status: str
    error: ErrorInfo | None = None


@immutable
class StreamBegun:
    """A node that is still running has made its first batch."""

    node: str


@immutable
class PermitsReturned:
    """Permits of a ready node that no worker came for will not be used: it asks for others, by another claim."""

    node: str


Fact = (
    TaskCreated
    | AttemptLeased
    | AttemptStarted
    | AttemptSucceeded
    | AttemptFailed
    | LeaseLost
    | RetryDue
    | NodeFailed
    | NodeSkipped
    | NodeCancelling
    | NodeCancelled
    | Routed
    | NodeOpened
    | NodeExpanded
    | NodeRepeated
    | NodeGathered
    | NodeWaiting
    | NodeFinished
    | SignalReceived
    | ChildStarted
    | FunctionApplied
    | NodeHeld
    | NodeReleased
    | UndoBegan
    | RequestApplied
    | TaskPaused
    | TaskResumed
    | TaskCancelling
    | TaskRestarted
    | TaskEnded
    | StreamBegun
    | PermitsReturned
    | ChildContinued
    | ParentWaits
    | DeadlineSet
)

TAGS: dict[str, type[Fact]] = {
    "created": TaskCreated,
    "leased": AttemptLeased,
    "started": AttemptStarted,
    "succeeded": AttemptSucceeded,
    "failed": AttemptFailed,
    "lost": LeaseLost,
    "retry_due": RetryDue,
    "node_failed": NodeFailed,
    "skipped": NodeSkipped,
    "node_cancelling": NodeCancelling,
    "node_cancelled": NodeCancelled,
    "routed": Routed,
    "opened": NodeOpened,
    "expanded": NodeExpanded,
    "repeated": NodeRepeated,
    "gathered": NodeGathered,
    "waiting": NodeWaiting,
    "node_finished": NodeFinished,
    "signal": SignalReceived,
    "child": ChildStarted,
    "function": FunctionApplied,
    "held": NodeHeld,
    "node_released": NodeReleased,
    "undo": UndoBegan,
    "request": RequestApplied,
    "paused": TaskPaused,
    "resumed": TaskResumed,
    "cancelling": TaskCancelling,
    "restarted": TaskRestarted,
    "ended": TaskEnded,
    "stream_begun": StreamBegun,
    "permits_returned": PermitsReturned,
    "child_continued": ChildContinued,
    "parent_waits": ParentWaits,
    "deadline_set": DeadlineSet,
}
