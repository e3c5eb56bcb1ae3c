"""What must be done once a commit is acknowledged. Imperative, and never done before."""

from __future__ import annotations

from typing import Any

from flowkit.core.graph import Node
from flowkit.core.immutable import immutable


@immutable
class Dispatch:
    """Send one attempt to the worker that holds its lease. `inputs` may hold `Artifact`s."""

    node: Node
    attempt: int
    token: str
    worker: str
    incarnation: str
    accept_by: float
    inputs: Any


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


Effect = Dispatch | Revoke | Tell
