"""Puts the ended attempts of tasks that are over into the index: behind their commits, from their commits.

Whoever coordinates a task hears that it is at rest, and indexes it; what nobody heard of, because somebody died or
there was too much, is found among the heads of ended tasks. Every step may be done again by anybody: a record has the
same key and content each time. It takes a small share of the time, nobody waits for it,
and under a load that lasts it falls behind until there is less.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from flowkit.core.model import ENDED_TASK
from flowkit.monitor_ports import AttemptRecord, TraceStore
from flowkit.ports import Clock, Head, HeadFilter, Outcome, Store
from flowkit.telemetry import Telemetry
from flowkit.trace.task_trace import Recorded, ended_attempts, read_trace
from flowkit.trace.traces import in_slices

SHARE: Final = 0.1
"""The most of its time that a process spends on it, while there is little to do..."""
BUSY_SHARE: Final = 0.25
"""... and while there is more than one batch."""
BATCH: Final = 500
RECORDS: Final = 1000
MOST_NOTED: Final = 100_000
"""Of more the heads tell."""
MOST_COMMITS: Final = 1000
PAGE: Final = 200
FIRST_ROUND_SEC: Final = 5.0
ROUND_SEC: Final = 600.0
"""How often all heads of ended tasks are gone through."""

LoadMany = Callable[[Sequence[str]], Awaitable[Mapping[str, Recorded]]]


class Indexer:
    """`load` reads the histories of tasks, those that can be read; `owned` are the partitions whose tasks are this
    process's."""

    def __init__(self, *, load: LoadMany, store: Store, traces: TraceStore, clock: Clock, telemetry: Telemetry,
                 owned: Callable[[], Collection[int]]) -> None:  # fmt: skip
        self._load = load
        self._store = store
        self._traces = traces
        self._clock = clock
        self._telemetry = telemetry
        self._owned = owned
        self._noted: dict[str, None] = {}
        self._rests_until = 0.0
        self._round_at = clock.mono() + FIRST_ROUND_SEC
        self._pages: dict[str, tuple[float, str] | None] = {}

    def note(self, task_id: str) -> None:
        """The task has ended, and its head says so."""
        if len(self._noted) < MOST_NOTED:
            self._noted[task_id] = None

    @property
    def idle(self) -> bool:
        """Whether nothing that was noted is left to be done."""
        return not self._noted

    async def step(self) -> None:
        """Index some of what is noted, else go through some heads; if its share of the time is not spent."""
        began = self._clock.mono()
        if began < self._rests_until or not (self._noted or began >= self._round_at):
            return
        try:
            if self._noted:
                await self._index_noted()
            else:
                await self._go_through_heads()
        finally:
            now = self._clock.mono()
            share = BUSY_SHARE if len(self._noted) > BATCH else SHARE
            self._rests_until = now + (now - began) / share

    # ------------------------------------------------------------------------------------------ how

    async def _index_noted(self) -> None:
        ids = [task_id for task_id, _ in zip(self._noted, range(BATCH), strict=False)]
        await self.index(ids)
        for task_id in ids:
            self._noted.pop(task_id, None)

    async def index(self, task_ids: Sequence[str]) -> None:
        """Put what is missing of these tasks into the index. Raises `StoreUnavailable`, having done some of it."""
        heads = {head.task_id: head for head in await self._store.read_heads(task_ids)}
        await self._index([head for head in heads.values() if head.status in ENDED_TASK])

    async def _index(self, heads: Sequence[Head]) -> None:
        known = await self._traces.indexed([head.task_id for head in heads])
        late = {head.task_id: head for head in heads if known.get(head.task_id, 0) < head.seq}
        if not late:
            return
        for portion in _portions(late.values()):
            if not await self._index_some(portion, known):
                return

    async def _index_some(self, heads: Sequence[Head], known: Mapping[str, int]) -> bool:
        histories = await self._load([head.task_id for head in heads])
        done: dict[str, int] = {}
        records: list[AttemptRecord] = []
        for head in heads:
            history = histories.get(head.task_id)
            if history is None:  # quarantined or deleted: there is nothing to be read, this time or the next
                done[head.task_id] = head.seq
                continue
            trace = await in_slices(read_trace(history))
            records += ended_attempts(trace, after=known.get(head.task_id, 0))
            done[head.task_id] = trace.seq
        for start in range(0, len(records), RECORDS):
            if not await self._insert(records[start : start + RECORDS]):
                return False
        return await self._traces.mark_indexed(done) is Outcome.OK

    async def _insert(self, records: Sequence[AttemptRecord]) -> bool:
        """Whether they are all there. What is not, the next round of heads finds missing."""
        outcomes = await self._traces.insert_attempts(records)
        self._telemetry.count("attempts_indexed", outcomes.count(Outcome.OK))
        return Outcome.UNKNOWN not in outcomes

    async def _go_through_heads(self) -> None:
        """One page of the heads of ended tasks, with their children."""
        owned = self._owned()
        if not self._pages:
            self._pages = dict.fromkeys(sorted(map(str, ENDED_TASK)))
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

    async def _children(self, heads: Sequence[Head]) -> AsyncIterator[list[Head]]:
        parents = sorted(await self._store.parents_among([head.task_id for head in heads]))
        for parent in parents:
            after: tuple[float, str] | None = None
            while page := await self._store.list_heads(HeadFilter(parent=parent), limit=PAGE, after=after):
                yield [head for head in page if head.status in ENDED_TASK]
                async for below in self._children(page):
                    yield below
                after = (page[-1].created_at, page[-1].task_id)


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
