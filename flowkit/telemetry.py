"""Typed happenings, and who listens. Logging, metrics and traces are subscribers; code never logs an event by
itself.

What is rare is told always (`emit`). What happens with every attempt is told to observers (`observe`): where there are
none, it is not even made.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flowkit.observations import Observation, Reading
    from flowkit.observing import Observing
    from flowkit.ports import Head
    from flowkit.wire.messages import Job

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


class Propagation(Protocol):
    """Which spans others are children of, as `traceparent` (W3C Trace Context)."""

    def of_work(self, head: Head, node: str, attempt: int, role: str) -> str:
        """The one that sends an attempt's work."""

    def of_child(self, head: Head, node: str, attempt: int) -> str:
        """The one of an attempt that is a task of its own."""

    def of_run(self, job: Job) -> str:
        """The one in which a worker runs an attempt."""


class Telemetry:
    """Where one process's happenings go: counted by type, logged, and handed to subscribers. One may be shared by all
    parts of a process. `observers` and `propagation` are there before the parts start that they are to hear of;
    `observing` is what the settings of the parts ask for."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.observers: tuple[Callable[[Observation], None], ...] = ()
        self.propagation: Propagation | None = None
        self.observing: Observing | None = None
        self._readers: list[Callable[[], Iterable[Reading]]] = []
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

    def observe(self, observer: Callable[[Observation], None]) -> Callable[[], None]:
        """Hear everything that happens with attempts, from the parts that start from now on; the answer ends that. An
        observer must not block or raise."""
        self.observers = (*self.observers, observer)

        def end() -> None:
            self.observers = tuple(one for one in self.observers if one is not observer)

        return end

    def told(self, observation: Observation) -> None:
        """Tell the observers. To be asked first: whether there are any. What one of them raises is logged, the first
        time, and counted: it must not reach what it observes."""
        for observer in self.observers:
            try:
                observer(observation)
            except Exception as error:  # whatever it is, the attempt has to go on
                self.failed_to_observe(error)

    def failed_to_observe(self, error: Exception) -> None:
        """Something that only observes has raised: what it observes is not to notice."""
        self.counts["observer_failures"] += 1
        if self.counts["observer_failures"] == 1:
            log.error("an observer raised; more of this is only counted", exc_info=error)

    def measure(self, reader: Callable[[], Iterable[Reading]]) -> Callable[[], None]:
        """Let it be asked how something stands, in the loop that it belongs to; the answer ends that."""
        self._readers.append(reader)

        def end() -> None:
            if reader in self._readers:
                self._readers.remove(reader)

        return end

    def readings(self) -> Iterable[Reading]:
        """How everything stands now that somebody measures."""
        for reader in self._readers:
            yield from reader()


def current_traceparent() -> str:
    """The OpenTelemetry span in which this is called, as a `traceparent`; empty without one, and where OpenTelemetry is
    not loaded: whoever is in a span of it has loaded it."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return ""
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def log_happening(happening: Happening) -> None:
    """The default subscriber: one line on the logger `flowkit`, silent unless the application configures logging."""
    level = _LEVELS.get(type(happening), logging.DEBUG)
    if log.isEnabledFor(level):
        error = happening.error if isinstance(happening, LoopFailed) else None
        log.log(level, "%s", happening, exc_info=error, extra={"happening": type(happening).__name__})
