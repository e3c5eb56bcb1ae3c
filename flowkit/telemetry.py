"""Typed happenings, and who listens. Logging, metrics and traces are subscribers; code never logs an event by
itself."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

ASKS_FOR_LINES = frozenset({"FLOWKIT_LOG_STDOUT", "FLOWKIT_LOG_LEVEL"})

log = logging.getLogger("flowkit")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class LoopFailed:
    """A supervised loop's step raised; the loop goes on after `pause` seconds."""

    owner: str
    loop: str
    error: BaseException
    pause: float


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A message nobody could read or apply went to `dead.v1`."""

    topic: str
    reason: str
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A coordinator dropped its cached state of a task and loads it again. `why`: `lost_race`, `unknown_outcome`,
    `ahead`."""

    task_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A task cannot be read or decided by this coordinator; `reason` says why."""

    task_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """This coordinator's partitions changed."""

    coordinator: str
    gained: frozenset[int]
    lost: frozenset[int]


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """An attempt's worker was not heard of in time."""

    task_id: str
    node: str
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker came (`hello`), left (`goodbye`), drains (`draining`) or fell silent (`silent`)."""

    worker: str
    what: str


@dataclass(frozen=True, slots=True)
class LeaseTimesDiffer:
    """A worker's settings and those of this coordinator put leases in danger: `code`, and what to do."""

    worker: str
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class AttemptKilled:
    """A worker stopped an attempt itself: `why` is `no_renewal`, `revoked`, `timeout` or `drain`."""

    worker: str
    token: str
    why: str


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The state of a task after commit `seq` was written down, in `size` bytes."""

    task_id: str
    seq: int
    size: int


@dataclass(frozen=True, slots=True)
class SnapshotLoaded:
    """A task was loaded from its snapshot after commit `seq` and the commits since."""

    task_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class SnapshotUnusable:
    """A task's snapshot could not be used, so all its commits were folded; `why` says what was wrong with it."""

    task_id: str
    why: str


@dataclass(frozen=True, slots=True)
class LimitReloaded:
    """The record of a limit was read again: another owner has written it, or it is not known what was written."""

    limit_id: str
    why: str


@dataclass(frozen=True, slots=True)
class LimitUnreadable:
    """The record of a limit cannot be read, so none of its permits is given out."""

    limit_id: str
    why: str


@dataclass(frozen=True, slots=True)
class TasksDeleted:
    """So many tasks, children included, were deleted because their retention was over."""

    count: int


@dataclass(frozen=True, slots=True)
class TasksRemoved:
    """Of so many deleted tasks nothing is left in the store."""

    count: int


@dataclass(frozen=True, slots=True)
class MasterKeyMade:
    """The first secret of a file made the master key that it is under; without `path`, no secret can be opened."""

    path: str


Happening = (
    LoopFailed
    | DeadLettered
    | Reloaded
    | Quarantined
    | Rebalanced
    | LeaseExpired
    | WorkerSeen
    | LeaseTimesDiffer
    | AttemptKilled
    | SnapshotTaken
    | SnapshotLoaded
    | SnapshotUnusable
    | LimitReloaded
    | LimitUnreadable
    | TasksDeleted
    | TasksRemoved
    | MasterKeyMade
)

_LEVELS: dict[type, int] = {
    LoopFailed: logging.WARNING,
    DeadLettered: logging.WARNING,
    Quarantined: logging.ERROR,
    LeaseExpired: logging.WARNING,
    LeaseTimesDiffer: logging.WARNING,
    AttemptKilled: logging.WARNING,
    LimitUnreadable: logging.ERROR,
    MasterKeyMade: logging.WARNING,
}


class Telemetry:
    """Where one process's happenings go: counted by type, logged, and handed to subscribers."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._subscribers: list[Callable[[Happening], None]] = [log_happening]
        if not os.environ.keys().isdisjoint(ASKS_FOR_LINES):
            from flowkit.log_setup import configure_from_env

            configure_from_env(anew=False)

    def emit(self, happening: Happening) -> None:
        self.counts[type(happening).__name__] += 1
        for subscriber in self._subscribers:
            subscriber(happening)

    def count(self, name: str, by: int = 1) -> None:
        """Count what is too frequent to be a happening of its own."""
        self.counts[name] += by

    def subscribe(self, subscriber: Callable[[Happening], None]) -> Callable[[], None]:
        """Hear every happening from now on; the answer unsubscribes. A subscriber must not block or raise."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)


def log_happening(happening: Happening) -> None:
    """The default subscriber: one line on the logger `flowkit`, silent unless the application configures logging."""
    level = _LEVELS.get(type(happening), logging.DEBUG)
    if log.isEnabledFor(level):
        error = happening.error if isinstance(happening, LoopFailed) else None
        log.log(level, "%s", happening, exc_info=error, extra={"happening": type(happening).__name__})
