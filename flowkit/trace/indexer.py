"""Counts the ended attempts of tasks that are over, and keeps records of them: behind their commits, from them.

Whoever coordinates a task hears that it is at rest, and indexes it, one with many attempts some at a time while it
runs; what nobody heard of, because somebody died or there was too much, is found among the heads of ended tasks. Every
step may be done again by anybody: a record has the same key and content each time, and what was counted is marked in
the same moment and not counted again. It takes a small share of the time, nobody waits for it, and under a load that
lasts it falls behind until there is less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from flowkit.core.model import ENDED_TASK
from flowkit.monitor_ports import AttemptRecord, Seen, TraceStore
from flowkit.ports import Clock, Head, HeadFilter, Outcome, Store
from flowkit.telemetry import Telemetry
from flowkit.trace.task_trace import Recorded, read_ended
from flowkit.trace.traces import in_slices

SHARE: Final = 0.1
"""The most of its time that a process spends on it, while there is little to do..."""
BUSY_SHARE: Final = 0.25
"""... while there is more than one batch..."""
MANY_SHARE: Final = 0.5
"""... and while there are many that were seen. Most of it is waiting for the store."""
BATCH: Final = 500
CROWD: Final = 5000
"""So many tasks that wait to be counted wait no longer: until then a burst of them is not held up by it."""
RECORDS: Final = 1000
TRIES: Final = 3
MOST_NOTED: Final = 100_000
"""Of more the heads tell."""
MANY_SEEN: Final = 10_000
"""So many attempts that were seen wait no longer, and are more than a little to do."""
MOST_SEEN: Final = 20_000
"""So many attempts are kept as their coordinator saw them; those of more tasks are read, once they have ended."""
FRESH_SEC: Final = 120.0
"""Of a task that was seen so long ago at most, nobody asks whether it is still there. It may have been deleted,
but what is left of it is removed only long after (`flowkit.coordinator.deletion`), with what was counted until then;
and what it has done since is counted from there on."""
MOST_COMMITS: Final = 1000
PAGE: Final = 200
FIRST_ROUND_SEC: Final = 5.0
ROUND_SEC: Final = 600.0
"""How often the heads of ended tasks are gone through: all of them at first, and whenever it is other partitions'..."""
LATE_SEC: Final = 3600.0
"""... else those that ended since the round before began, or so long before: a head may be late."""

LoadMany = Callable[[Sequence[str]], Awaitable[Mapping[str, Recorded]]]


class Indexer:
    """`load` reads the histories of tasks, those that can be read; `owned` are the partitions whose tasks are this
    process's. `records`: keep a record of each attempt, too. `linger_sec`: how long a task waits for others that are
    counted with it."""

    def __init__(self, *, load: LoadMany, store: Store, traces: TraceStore, clock: Clock, telemetry: Telemetry,
                 owned: Callable[[], Collection[int]], records: bool = True,
                 linger_sec: float = 0.0) -> None:  # fmt: skip
        self._load = load
        self._store = store
        self._traces = traces
        self._clock = clock
        self._telemetry = telemetry
        self._owned = owned
        self._records = records
        self._linger_sec = linger_sec
        self._waits_until = 0.0
        self._since: float | None = None
        self._seen: frozenset[int] = frozenset()
        self._began = 0.0
        self._noted: dict[str, _Noted] = {}
        self._attempts = 0
        self._spent = 0.0
        self._stepped = 0.0
        self._round_at = clock.mono() + FIRST_ROUND_SEC
        self._pages: dict[str, tuple[float, str] | None] = {}

    def note(self, task_id: str, seen: Seen | None = None) -> None:
        """The task has ended, and its head says so. `seen` are its last attempts, where they are at hand, and where
        all before them were `see`n."""
        if seen is None or not self.see(task_id, seen):
            self._put_down(task_id, _Noted(self._clock.mono()))

    def see(self, task_id: str, seen: Seen) -> bool:
        """Attempts of a task, which may go on. False: there are too many, these are not kept."""
        known = self._noted.get(task_id)
        follows = known is not None and known.seen and known.seen[-1].until == seen.since
        kept = self._attempts - (0 if known is None or follows else known.attempts)
        if kept + len(seen.records) > MOST_SEEN:
            return False
        if known is not None and follows:
            self._attempts += len(seen.records)
            known.seen.append(seen)
            return True
        return self._put_down(task_id, _Noted(self._clock.mono(), [seen]))

    def _put_down(self, task_id: str, one: _Noted) -> bool:
        """In the place of what was noted of the task before."""
        known = self._noted.get(task_id)
        if known is None and len(self._noted) >= MOST_NOTED:
            return False
        if not self._noted:
            self._waits_until = one.at + self._linger_sec
        self._attempts += one.attempts - (0 if known is None else known.attempts)
        self._noted[task_id] = one
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing that was noted is left to be done."""
        return not self._noted

    async def step(self) -> None:
        """Index some of what is noted, else go through some heads; if its share of the time is not spent."""
        began = self._clock.mono()
        due = bool(self._noted) and (began >= self._waits_until or len(self._noted) >= CROWD or self._many)
        if not (due or began >= self._round_at) or began < self._stepped + self._spent / self._share:
            return
        try:
            if due:
                await self._index_noted()
            else:
                await self._go_through_heads()
        finally:
            self._stepped = self._clock.mono()
            self._spent = self._stepped - began

    @property
    def _many(self) -> bool:
        return self._attempts >= MANY_SEEN

    @property
    def _share(self) -> float:
        return MANY_SHARE if self._many else BUSY_SHARE if len(self._noted) > BATCH else SHARE

    # ------------------------------------------------------------------------------------------ how

    async def _index_noted(self) -> None:
        noted = dict(islice(self._noted.items(), BATCH))
        fresh = self._clock.mono() - FRESH_SEC
        seen = {name: tuple(one.seen) for name, one in noted.items()}
        left = await self._index_seen({name: some for name, some in seen.items() if some and noted[name].at > fresh})
        await self.index([*left, *(name for name, one in noted.items() if not seen[name] or one.at <= fresh)])
        for task_id, one in noted.items():
            if self._noted.get(task_id) is one:  # else it has ended once more meanwhile
                self._forget(task_id, one, seen[task_id])

    def _forget(self, task_id: str, one: _Noted, done: Sequence[Seen]) -> None:
        self._attempts -= sum(len(some.records) for some in done)
        one.seen, one.at = one.seen[len(done) :], self._clock.mono()
        if not one.seen:
            del self._noted[task_id]

    async def index(self, task_ids: Sequence[str]) -> None:
        """Count what is missing of these tasks. Raises `StoreUnavailable`, having done some of it."""
        if task_ids:
            heads = await self._store.read_heads(task_ids)
            await self._index([head for head in heads if head.status in ENDED_TASK])

    async def _index_seen(self, seen: Mapping[str, Sequence[Seen]]) -> list[str]:
        """Count tasks from what their coordinator saw, as if nobody else had counted any of them. The answer are those
        among which somebody has: they are not counted. Nothing is counted with some of a long task: it has to be whole.
        """
        batch, left = _Batch(), list[str]()
        for task_id, some in seen.items():
            if len(some) > 1 or some[0].since:
                left += await self._put_long(task_id, some)
                continue
            (one,) = some
            if batch.records and len(batch.records) + len(one.records) > RECORDS:
                left += await self._put_seen(batch)
                batch = _Batch()
            batch.marks[task_id] = (0, one.until)
            batch.records += one.records
        return left + await self._put_seen(batch) if batch.marks else left

    async def _put_long(self, task_id: str, some: Sequence[Seen]) -> list[str]:
        """Count all of it at once; or, where records are kept, no more at once than of others."""
        batches = [[one] for one in some] if self._records else [some]
        for batch in batches:
            records = [record for one in batch for record in one.records]
            if await self._put_seen(_Batch({task_id: (batch[0].since, batch[-1].until)}, records)):
                return [task_id]
        return []

    async def _put_seen(self, batch: _Batch) -> list[str]:
        return list(batch.marks) if await self._put(batch) is Outcome.NO_MATCH else []

    async def _index(self, heads: Sequence[Head]) -> None:
        for _ in range(TRIES):
            known = await self._traces.indexed([head.task_id for head in heads])
            late = [head for head in heads if known.get(head.task_id, 0) < head.seq]
            outcome = Outcome.OK
            for portion in _portions(late):
                outcome = await self._index_some(portion, known)
                if outcome is not Outcome.OK:
                    break
            if outcome is not Outcome.NO_MATCH:  # else somebody has counted some of them: the others are left
                return

    async def _index_some(self, heads: Sequence[Head], known: Mapping[str, int]) -> Outcome:
        """What is not OK, the next round of heads finds missing."""
        histories = await self._load([head.task_id for head in heads])
        batch = _Batch()
        for head in heads:
            history, since = histories.get(head.task_id), known.get(head.task_id, 0)
            if history is None:  # quarantined or deleted: there is nothing to be read, this time or the next
                batch.marks[head.task_id] = (since, head.seq)
                continue
            ended = await in_slices(read_ended(history, after=since))
            for records, until in _pieces(ended, history.seq):
                if head.task_id in batch.marks or (batch.records and len(batch.records) + len(records) > RECORDS):
                    outcome, batch = await self._put(batch), _Batch()
                    if outcome is not Outcome.OK:
                        return outcome
                batch.marks[head.task_id] = (since, until)
                batch.records += records
                since = until
        return await self._put(batch)

    async def _put(self, batch: _Batch) -> Outcome:
        if self._records and Outcome.UNKNOWN in await self._traces.insert_attempts(batch.records):
            return Outcome.UNKNOWN
        outcome = await self._traces.count_attempts(batch.marks, batch.records)
        if outcome is Outcome.OK:
            self._telemetry.count("attempts_indexed", len(batch.records))
        return outcome

    async def _go_through_heads(self) -> None:
        """One page of the heads of ended tasks, with their children."""
        owned = frozenset(self._owned())
        if not self._pages:
            await self._begin_round(owned)
        status = next(iter(self._pages))
        heads = await self._store.ended_heads(
            owned, status, self._clock.wall(), limit=PAGE, after=self._pages[status]
        ) if owned else []  # fmt: skip
        if heads:
            await self._index(heads)
            async for children in self._children(heads):
                await self._index(children)
        if len(heads) == PAGE:
            self._pages[status] = (heads[-1].ended_at or 0.0, heads[-1].task_id)
            return
        del self._pages[status]
        if not self._pages:
            self._round_at = self._clock.mono() + ROUND_SEC
            self._since = self._began - LATE_SEC

    async def _begin_round(self, owned: frozenset[int]) -> None:
        await self._traces.count_attempts({}, [])  # what somebody began who died
        if not owned <= self._seen:
            self._since = None
        self._seen, self._began = owned, self._clock.wall()
        first = None if self._since is None else (self._since, "")
        self._pages = dict.fromkeys(sorted(map(str, ENDED_TASK)), first)

    async def _children(self, heads: Sequence[Head]) -> AsyncIterator[list[Head]]:
        parents = sorted(await self._store.parents_among([head.task_id for head in heads]))
        for parent in parents:
            after: tuple[float, str] | None = None
            while page := await self._store.list_heads(HeadFilter(parent=parent), limit=PAGE, after=after):
                yield [head for head in page if head.status in ENDED_TASK]
                async for below in self._children(page):
                    yield below
                after = (page[-1].created_at, page[-1].task_id)


@dataclass(slots=True)
class _Noted:
    """A task of which something is to be counted, since `at` (monotonic seconds): what was seen of it, each behind the
    one before, or nothing: then it has ended, and is read."""

    at: float
    seen: list[Seen] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """How many are kept."""
        return sum(len(some.records) for some in self.seen)


@dataclass(slots=True)
class _Batch:
    """What is counted at once: of each task from which commit up to which."""

    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    records: list[AttemptRecord] = field(default_factory=list)


def _pieces(records: list[AttemptRecord], until: int) -> Iterator[tuple[list[AttemptRecord], int]]:
    """A task's records in pieces, each with the commit that it goes up to: what one commit ended stays together."""
    records.sort(key=lambda record: record.seq)
    piece: list[AttemptRecord] = []
    for record in records:
        if len(piece) >= RECORDS and record.seq != piece[-1].seq:
            yield piece, piece[-1].seq
            piece = []
        piece.append(record)
    yield piece, until


def _portions(heads: Iterable[Head]) -> Iterator[list[Head]]:
    """Some at a time: few of those with long histories."""
    portion: list[Head] = []
    commits = 0
    for head in heads:
        if portion and (len(portion) >= BATCH or commits + head.seq > MOST_COMMITS):
            yield portion
            portion, commits = [], 0
        portion.append(head)
        commits += head.seq
    if portion:
        yield portion
