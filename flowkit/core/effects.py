"""What must be done once a commit is acknowledged. Imperative, and never done before."""

from __future__ import annotations

from typing import Any

from flowkit.core.graph import Node
from flowkit.core.immutable import immutable
from flowkit.core.payload import Payload


@immutable
class Dispatch:
    """Send one attempt of the node `name` to the worker that holds its lease. `inputs` may hold `Artifact`s, and
    `SecretHole`s where `code` says what program to run."""

    name: str
    node: Node
    attempt: int
    token: str
    worker: str
    incarnation: str
    accept_by: float
    inputs: Any
    code: dict[str, Any] | None = None


@immutable
class Revoke:
    """Tell a worker that a lease is over. `grace_sec` is how long the attempt may take to stop by itself."""

    node: str
    attempt: int
    token: str
    worker: str
    incarnation: str
    reason: str
    grace_sec: float


@immutable
class Tell:
    """Tell a running attempt that nodes whose batches it reads, or that read its own, have ended: `over`."""

    node: str
    attempt: int
    token: str
    worker: str
    incarnation: str
    over: tuple[str, ...]


@immutable
class Spawn:
    """Make sure that the task of a sub-graph's attempt exists. `inputs` are its params, and may hold `Artifact`s. At
    `deadline` (epoch seconds), if there is one, it must have ended."""

    name: str
    node: Node
    attempt: int
    child: str
    inputs: Any
    deadline: float | None = None


@immutable
class Continue:
    """Ask a child that has ended to go on where it failed, as this attempt of its parent's node. `inputs` are its new
    params, None for those that it has; may hold `Artifact`s. `deadline` (epoch seconds) is that of its node, if any.
    `unheard`: the child is known not to have heard of it yet."""

    name: str
    attempt: int
    child: str
    inputs: Any
    deadline: float | None = None
    unheard: bool = False


@immutable
class Steer:
    """Ask the child task of a node's attempt the same as was asked of its parent: `cancel`, `pause` or `resume`."""

    name: str
    attempt: int
    child: str
    kind: str
    reason: str
    grace_sec: float | None = None


@immutable
class Keep:
    """Keep an output under a cache key for so many seconds."""

    key: str
    output: Payload
    ttl_sec: float


@immutable
class Fetch:
    """A decision waits for the content of an artifact: read it, and report it as `Fetched`. Needs no commit."""

    ref: str
    kind: str


@immutable
class LookUp:
    """A decision waits for what is kept under a cache key: report it as `Looked`. Needs no commit."""

    node: str
    key: str


Effect = Dispatch | Revoke | Tell | Spawn | Continue | Steer | Keep
Question = Fetch | LookUp
