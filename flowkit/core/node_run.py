"""One node's part of a task's state."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flowkit.core.facts import ErrorInfo, Usage
from flowkit.core.payload import Payload


class NodeState(enum.StrEnum):
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


NOTHING: Final[Any] = MappingProxyType({})
"""Stands for what hardly any task has. To put something in: `task.held = task.held or {}` first. Of a thousand tasks a
second, each with twenty containers of its own, these cost as much as a decision does."""
NONE: Final[Any] = ()
"""The same for lists."""

ENDED_NODE = frozenset({NodeState.FINISHED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED})


class Lease:
    """A worker's right to one attempt. `started` once the worker said that it runs; `cancelling` once told to stop."""

    __slots__ = ("accept_by", "cancelling", "incarnation", "leased_at", "started", "token", "worker")

    def __init__(self, token: str, worker: str, incarnation: str, accept_by: float, leased_at: float) -> None:
        self.token = token
        self.worker = worker
        self.incarnation = incarnation
        self.accept_by = accept_by
        self.leased_at = leased_at
        self.started = False
        self.cancelling = False


class Group:
    """The items or repetitions of one node.

    There are `count` of them, of which those before `next` have begun to exist; `live` of these have not ended, and
    `idle` of those have not begun. `failed` counts those that failed or were cancelled, `first_failed` is the number of
    the first. `counted` are the numbers of those that finished, as long as the group needed more of them; where all are
    needed it only counts them. `again` are the numbers of those that a restart runs again and that may not begin yet,
    the next one last. `items` are what they are, where that cannot be told from the graph again. `last` is the output
    of the last repetition; `closed`: the items that do not exist yet never will.
    """

    __slots__ = (
        "again",
        "closed",
        "count",
        "counted",
        "done",
        "failed",
        "first_failed",
        "idle",
        "items",
        "last",
        "live",
        "next",
    )

    def __init__(self, count: int) -> None:
        self.count = count
        self.next = 0
        self.live = 0
        self.idle = 0
        self.done = 0
        self.failed = 0
        self.first_failed = -1
        self.counted: list[int] = []
        self.again: dict[int, None] = NOTHING
        self.items: list[Any] | None = None
        self.last: Payload | None = None
        self.closed = False


RARE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "born": 0,
        "budgets": None,
        "by_failure": False,
        "child": "",
        "child_of": 0,
        "declines": 0,
        "error": None,
        "failures": 0,
        "floor": 0,
        "loser": False,
        "losses": 0,
        "opened": False,
        "peak": 0,
        "reason": "",
        "routes": None,
        "signal": "",
        "stopping": False,
        "streaming": False,
        "turn": 0,
        "usage": None,
        "wake": None,
    }
)
"""What hardly any node has, and what it is for the others."""
KEPT: Final = ("born", "floor", "peak")
"""What a new generation leaves as it is."""


class _Rarely:
    """What is `RARE`, for those who check types; how it is kept, `_rarely` says."""

    if TYPE_CHECKING:
        born: int
        budgets: dict[str, int] | None
        by_failure: bool
        child: str
        child_of: int
        declines: int
        error: ErrorInfo | None
        failures: int
        floor: int
        loser: bool
        losses: int
        opened: bool
        peak: int
        reason: str
        routes: tuple[str, ...] | None
        signal: str
        stopping: bool
        streaming: bool
        turn: int
        usage: Usage | None
        wake: float | None
    else:
        __slots__ = ()


class NodeRun(_Rarely):
    """One node's part of the task's state.

    `undecided`, `taken`, `broken` count its incoming edges and `unread` the sources that it reads without an edge: they
    count down or up once per source's end, so readiness never looks at the graph again. `attempt` is the
    last one's number and never repeats, over generations too; the budgets (`failures`, `budgets`, `losses`,
    `declines`) begin anew with each generation. `born` is the generation in which it runs; `streaming`: the first of
    its batches is in the store. `ready_at` is since when the next attempt waits to begin; `loser`: a
    join went on without it; `turn` how often permits for its next attempts were given back. Times are epoch seconds.

    `due`: everything that it waited for is there, and what its start means is to be decided. `opened`: its `when`
    holds. `routes` are the targets of the conditional edges that were taken, None until that is decided. `child` is the
    task that a sub-graph's attempt is, and `child_of` the attempt with which its last task came to be, 0 for none in
    this generation: a node that has one before it begins goes on with that task. `signal` what it waits for;
    `stopping`: it was told to end, and holds no lease. `usage` is what the program of its last attempt used, where a
    program ran it. `peak` is the highest attempt among the nodes derived from this one, `floor` what it was when this
    generation began.

    What is `RARE` takes up room only where it is something else than usual: a task may have a hundred thousand nodes.
    """

    __slots__ = (
        "_rare",
        "attempt",
        "broken",
        "due",
        "ended_at",
        "group",
        "lease",
        "next",
        "output",
        "ready_at",
        "run_sec",
        "started_at",
        "state",
        "taken",
        "undecided",
        "unread",
    )

    def __init__(self, undecided: int, unread: int, attempt: int = 0) -> None:
        self.attempt = attempt
        self._rare: dict[str, Any] = NOTHING
        self.reset(undecided, unread)

    def reset(self, undecided: int, unread: int) -> None:
        """Begin a generation."""
        self.state = NodeState.PENDING
        self.undecided = undecided
        self.unread = unread
        self.taken = 0
        self.broken = 0
        self.lease: Lease | None = None
        self.output: Payload | None = None
        self.ready_at: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.run_sec = 0.0
        self.due = False
        self.next: tuple[str, ...] | None = None
        self.group: Group | None = None
        if self._rare:
            self._rare = {name: self._rare[name] for name in KEPT if name in self._rare} or NOTHING


def _rarely(name: str, usual: Any) -> property:
    def get(run: NodeRun) -> Any:
        return run._rare.get(name, usual)

    def put(run: NodeRun, value: Any) -> None:
        if value != usual:
            run._rare = run._rare or {}
            run._rare[name] = value
        elif name in run._rare:
            del run._rare[name]
            run._rare = run._rare or NOTHING

    return property(get, put)


for _name, _usual in RARE.items():
    setattr(NodeRun, _name, _rarely(_name, _usual))

FIELDS: Final = (*(name for name in NodeRun.__slots__ if name != "_rare"), *RARE)
"""All that a node's state is."""
