"""What a coordinator is told. A report is a claim; `decide` answers it with the facts to record, or none (stale)."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from flowkit.core.facts import ErrorInfo, Usage
from flowkit.core.immutable import immutable
from flowkit.core.payload import Payload


@immutable
class Accepted:
    """The task's head stands in the store: begin."""

    targets: tuple[str, ...] = ()


@immutable
class Placed:
    """The dispatcher found a worker for a ready node. `permits` are the limits whose permits are at hand."""

    node: str
    token: str
    worker: str
    incarnation: str
    accept_by: float
    permits: tuple[str, ...] = ()


@immutable
class Started:
    """The worker runs the attempt, and for longer than a moment."""

    node: str
    attempt: int
    token: str


@immutable
class Streams:
    """The attempt has to do with streams. `begun`: it has made its first batch; else it waits for others, and asks
    which of them have ended."""

    node: str
    attempt: int
    token: str
    begun: bool = True


@immutable
class Succeeded:
    node: str
    attempt: int
    token: str
    output: Payload
    next: tuple[str, ...] | None = None
    run_sec: float = 0.0
    usage: Usage | None = None


@immutable
class Failed:
    """`permanent` says that trying again is of no use; `retry_after` (seconds) overrides the policy's backoff;
    `policy` is the `retry_policy` that the handler came with, for a node that has none of its own. `final`: the handler
    itself said that it is permanent, so no rule of a policy says otherwise."""

    node: str
    attempt: int
    token: str
    error: ErrorInfo
    permanent: bool = False
    retry_after: float | None = None
    run_sec: float = 0.0
    policy: dict[str, Any] | None = None
    final: bool = False
    usage: Usage | None = None


@immutable
class Declined:
    """The worker did not begin: it is full, draining, too late, or does not serve the role."""

    node: str
    attempt: int
    token: str
    why: str = ""


@immutable
class Released:
    """The worker gave up an attempt that it had begun: it drains, or stopped it when it was told to."""

    node: str
    attempt: int
    token: str
    why: str = ""
    usage: Usage | None = None


@immutable
class Expired:
    """The lease was not renewed in time. `unaccepted`: its living worker never named it."""

    node: str
    attempt: int
    token: str
    unaccepted: bool = False


@immutable
class Requested:
    """An API call: `kind` is `cancel`, `pause`, `resume`, `restart` or `signal`; or `continue`, by which a parent asks
    its child."""

    n: int
    id: str
    kind: str
    args: dict[str, Any] = field(default_factory=dict)
    principal: str = ""


@immutable
class ChildEnded:
    """The task that is an attempt of a sub-graph node ended, as `status`, with this output or error. An end that it
    came to for an earlier attempt names that one, and is stale."""

    node: str
    attempt: int
    token: str
    status: str
    output: Payload
    error: ErrorInfo | None = None


@immutable
class ChildGone:
    """The task `token` of an earlier attempt, which was to go on as this one, cannot: `why`."""

    node: str
    attempt: int
    token: str
    why: str


@immutable
class Fetched:
    """What stands in the artifact store under `ref`; `error` says why nothing was found."""

    ref: str
    value: Any = None
    error: str = ""


@immutable
class Looked:
    """Whether an output is kept under a cache key of a node: `output` None says that none is."""

    node: str
    key: str
    output: Payload | None = None


@immutable
class TimeReached:
    """Nothing but time has passed: look at the timers."""


@immutable
class PermitsUnused:
    """The node has permits that nobody uses, or could be given one: others may have better use for them."""

    node: str
    claim: tuple[int, int, int]


AttemptReport = Started | Streams | Succeeded | Failed | Declined | Released | Expired
Report = (
    Accepted
    | Placed
    | AttemptReport
    | ChildEnded
    | ChildGone
    | Fetched
    | Looked
    | Requested
    | TimeReached
    | PermitsUnused
)

TAGS: dict[str, type[AttemptReport | ChildEnded]] = {
    "started": Started,
    "streams": Streams,
    "succeeded": Succeeded,
    "failed": Failed,
    "declined": Declined,
    "released": Released,
    "child_ended": ChildEnded,
}
"""The reports that travel, from workers and from the owners of child tasks, by wire tag."""
