"""What is asked for when a task is created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Creation:
    """One task to be created, of a graph or of a flow (`name`, `name@3` or `name@tag`). `idempotency_key`: the same key
    of one tenant gives the same task; with anything else changed it is refused, though a flow's tag may have moved.
    `timeout` is seconds; `deadline` the moment by which the task must have ended: a time with its zone, or epoch
    seconds. `targets` run, and what leads to them; the rest is skipped. `traceparent` (W3C Trace Context) is the span
    that the task is a child of; None: the caller's own, where it has one."""

    graph: Any = None
    params: Any = None
    idempotency_key: str | None = None
    priority: int = 0
    labels: Mapping[str, str] | None = None
    timeout: float | None = None
    targets: Sequence[str] = ()
    flow: str | None = None
    deadline: Any = None
    traceparent: str | None = None


def targets_of(said: Sequence[str]) -> Sequence[str]:
    """What a caller gave as targets, which is his and may change. A text stays one: admission says what to write."""
    return said if isinstance(said, str) else tuple(said)
