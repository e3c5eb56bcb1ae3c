"""What the Flow Trace Monitor asks of its stores, in its own verbs; adapters answer, as to `flowkit.ports`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from flowkit.core.facts import Usage
from flowkit.core.immutable import immutable
from flowkit.errors import did_you_mean
from flowkit.ports import Outcome

Place = tuple[int, str, int, int]
"""Where a block stands among those of its task: `place`, `node`, `attempt`, `first`."""


@immutable
class LogBlock:
    """Consecutive lines of one attempt, as its worker sent them: written once. `(task_id, node, attempt, first)` is
    unique, and blocks of an attempt do not overlap, so no line is there twice.

    `first` is the number of the first line, counted from 1, and `count` how many there are. `level` is the highest of
    them (as in `logging`), `until` the time of the last one (epoch seconds, the worker's clock), `base` the node of the
    graph that `node` is, or is derived from. `place` orders the blocks of a task as they came to whoever wrote them
    down (microseconds since the epoch, never the same twice of one writer). `body` is the JSON text of the lines.
    """

    task_id: str
    tenant: str
    node: str
    base: str
    attempt: int
    first: int
    count: int
    level: int
    until: float
    place: int
    body: str

    @property
    def where(self) -> Place:
        return (self.place, self.node, self.attempt, self.first)


@immutable
class LogQuery:
    """Which blocks of a task are wanted; None does not restrict. `node` is a node's id, or that of the node that items
    and repetitions are of; `level` is the least that a block's highest must be, `since` the earliest that its last line
    may be. `start`: that block and those behind it."""

    task_id: str
    node: str | None = None
    attempt: int | None = None
    level: int = 0
    since: float | None = None
    start: Place | None = None


class LogStore(Protocol):
    """Keeps what attempts say. A write is acknowledged when it survives a crash. Reads raise `StoreUnavailable` where
    there is no answer. `Store.delete_history` removes the blocks of its tasks too."""

    async def insert_logs(self, blocks: Sequence[LogBlock]) -> list[Outcome]:
        """Insert each unless `(task_id, node, attempt, first)` exists (DUPLICATE). One outcome per block, in order; one
        that is refused leaves the others alone."""

    async def read_logs(self, query: LogQuery, *, limit: int) -> list[LogBlock]:
        """At most `limit` blocks, ordered by (place, node, attempt, first)."""

    async def expire_logs(self, before: float, *, limit: int) -> int:
        """Remove at most `limit` blocks whose last line is of before `before` (epoch seconds). How many were removed.
        Raises `StoreUnavailable`."""


@immutable
class AttemptRecord:
    """What became of one attempt. `(task_id, node, attempt)` is unique. Times are epoch seconds by the coordinators'
    clocks, as they were committed; `run_sec` as the worker measured it.

    `flow` is the name of the flow, else of the graph; `base` the node of the graph that `node` is, or is derived from.
    `outcome` is `succeeded`, `failed`, `lost` or `cancelled`; `code` the error's, or why it was lost or cancelled.
    `ready_at` is since when it waited to begin, `leased_at` when a worker got it, `ended_at` when its end was committed
    as commit `seq`. `usage` is what its program used, as its supervisor measured it (`cpu_sec`, `peak_memory_bytes`,
    `read_bytes`, `written_bytes`, `received_bytes`, `sent_bytes`, with the `verdict` and the sandbox's `level`): None
    where no program ran, and without what could not be measured.
    """

    task_id: str
    tenant: str
    flow: str
    node: str
    base: str
    role: str
    attempt: int
    generation: int
    outcome: str
    code: str
    worker: str
    ready_at: float
    leased_at: float
    ended_at: float
    run_sec: float
    seq: int
    usage: Usage | None = None

    @property
    def waited_sec(self) -> float:
        """From when nothing was missing any more until a worker had it."""
        return max(0.0, self.leased_at - self.ready_at)

    @property
    def queued_sec(self) -> float:
        """What of its lease it did not run: on its way to the worker, in its queue, and back."""
        return max(0.0, self.ended_at - self.leased_at - self.run_sec)

    @property
    def cpu_sec(self) -> float | None:
        return None if self.usage is None else self.usage.get("cpu_sec")

    @property
    def memory_bytes(self) -> int | None:
        """The most memory that its program had at once."""
        return None if self.usage is None else self.usage.get("peak_memory_bytes")

    def measure(self, by: str) -> float | None:
        """How much of it: of `MEASURES`."""
        return self.run_sec if by == RUN else self.cpu_sec if by == CPU else self.memory_bytes

    @property
    def bad(self) -> bool:
        """Whether it counts as a failure: it failed, or was lost."""
        return self.outcome in BAD


@immutable
class Seen:
    """Attempts of a task as its coordinator saw them: all that ended in its commits behind `since`, up to `until`."""

    since: int
    until: int
    records: Sequence[AttemptRecord]


RUN: Final = "run"
CPU: Final = "cpu"
MEASURES: Final = (RUN, CPU, "memory")
"""By what attempts may be ordered: how long they ran, and the CPU time and the memory of their programs."""
OUTCOMES: Final = ("succeeded", "failed", "lost", "cancelled")
BAD: Final = ("failed", "lost")


def measure_of(by: str) -> str:
    """The same. Raises `ValueError` for what is not of `MEASURES`."""
    if by not in MEASURES:
        raise ValueError(f"by is one of {', '.join(map(repr, MEASURES))}, not {by!r}{did_you_mean(by, MEASURES)}")
    return by


BIN_FACTOR: Final = 1.05
SMALLEST_SEC: Final = 1e-4
HOUR_SEC: Final = 3600
DAY_SEC: Final = 86_400


def bin_of(seconds: float) -> int:
    """The bin of a histogram that so many seconds fall into: each is 5 % wider than the one before."""
    return 0 if seconds <= SMALLEST_SEC else 1 + int(math.log(seconds / SMALLEST_SEC) / math.log(BIN_FACTOR))


def seconds_of(bin_number: int) -> float:
    """The middle of a bin (seconds): less than 2.5 % from any that fell into it; 0 for the first one, which holds what
    ran for at most `SMALLEST_SEC`."""
    return 0.0 if bin_number <= 0 else SMALLEST_SEC * BIN_FACTOR ** (bin_number - 0.5)


@immutable
class AttemptQuery:
    """Attempts of a tenant that ended in `[since, until)` (epoch seconds); `flow` and `base` restrict to a flow and to
    a node of the graph, where they are not None."""

    tenant: str
    since: float
    until: float
    flow: str | None = None
    base: str | None = None


Bins = dict[int, int]


@immutable
class Histogram:
    """Attempts of a node of a flow that ended in the bucket of time that begins at `start` (epoch seconds): by outcome,
    how many ran for about `seconds_of(bin)`."""

    flow: str
    base: str
    start: float
    outcomes: dict[str, Bins]


@immutable
class Rollup:
    """What became of attempts of a flow that ended in the hour or day (`span` seconds) that begins at `start`. There
    may be several of one span, and a node may be in several: they add up. `body` is read by `wire.rollups`."""

    tenant: str
    flow: str
    span: int
    start: int
    part: int
    body: bytes


class TraceStore(Protocol):
    """An index of ended attempts for questions about many tasks; of one task the commits tell more. What it lacks can
    be made again from them. It is two things. Rollups count all attempts by flow, node, hour and day, and are few.
    Records are of single attempts, and are there only where they are inserted. Reads raise `StoreUnavailable`.
    `Store.delete_history` removes the records and marks of its tasks; what was counted stays counted."""

    async def insert_attempts(self, records: Sequence[AttemptRecord]) -> list[Outcome]:
        """Insert the record of each unless `(task_id, node, attempt)` exists (DUPLICATE). One outcome per record, in
        order."""

    async def indexed(self, task_ids: Sequence[str]) -> dict[str, int]:
        """Up to which commit the attempts of these tasks are counted; those of which nothing is known are left out."""

    async def count_attempts(self, marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        """Count these attempts, all of them and once, and mark each task: `(from, up to)` are commits, and the records
        are those of the attempts that ended in between. NO_MATCH, and nothing is changed, where something is marked
        otherwise than up to its `from`, 0 for no mark: somebody else counted it, or what was before was not counted.
        UNKNOWN: they may be counted, or still be; `indexed` tells. Raises `StoreUnavailable`, having done nothing."""

    async def rollups(self, query: AttemptQuery, *, span: int) -> list[Rollup]:
        """Those of the hours or days that `[since, until)` touches, whole; `base` does not restrict."""

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int, by: str = RUN) -> list[AttemptRecord]:
        """The records with most of a measure first; of the same the one with the smaller (task_id, node, attempt).
        Those without it are left out. Costs something for each day from `since` to `until`, empty ones included."""

    async def histograms(self, query: AttemptQuery, *, bucket_sec: float) -> list[Histogram]:
        """Of the records, ordered by (flow, base, start). Buckets are multiples of `bucket_sec` since the epoch."""

    async def expire_attempts(self, before: float, *, limit: int) -> int:
        """Remove at most `limit` records that ended before `before` (epoch seconds). How many were removed."""

    async def expire_rollups(self, before: float, *, limit: int) -> int:
        """Remove at most `limit` rollups whose span ended before `before` (epoch seconds). How many were removed."""
