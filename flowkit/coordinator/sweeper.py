"""Finds work that no message announced: due timers, requests not applied, events not published (rule 12)."""

from __future__ import annotations

import math

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.requests import RequestReader
from flowkit.ports import Clock, Head, Store

PAGE = 5000
AHEAD_SEC = 10.0
"""Sleepers are fetched so long before they are due, or half as long: of thousands that wake at once, none has to wait
for the store."""
PATIENCE_SEC = 3.0
SHARE = 0.02
"""The most of its time that a process spends on finding what it has in memory anyway..."""
LONGEST_REST_SEC = 5.0
"""... but what only a sweep can find waits no longer than this."""


class Sweeper:
    """Looks only at the partitions owned here. What is due, or soon will be, and not in memory is loaded; what is in
    memory looks after itself, unless the store knows more of it: then an owner of yesterday has been at work, and it is
    loaded again."""

    def __init__(self, store: Store, clock: Clock, engine: Engine, requests: RequestReader, *,
                 evict_after_sec: float) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._engine = engine
        self._requests = requests
        self._rests_until = 0.0
        self._swept_at = clock.mono()
        self._looks_ahead_at = 0.0
        self._seen_of = frozenset[int]()
        self._seen_until = 0.0
        # Less than what would be evicted again at once.
        self._ahead_sec = min(AHEAD_SEC, evict_after_sec / 2)

    async def step(self) -> int:
        """One sweep; how many tasks it woke."""
        owned = frozenset(self._engine.owned)
        if not owned:
            self._swept_at = self._clock.mono()
            return 0
        # Requests first: what is to be cancelled must not be started by the very sweep that finds both.
        await self._requests.hand_over(await self._store.open_requests(owned, limit=PAGE))
        self._engine.eviction.make_room()
        woken = await self._sweep_heads(owned)
        self._engine.pump_dirty()
        self._swept_at = self._clock.mono()
        return woken

    @property
    def lag_sec(self) -> float:
        """How long ago the last sweep was done that got to its end."""
        return self._clock.mono() - self._swept_at

    async def _sweep_heads(self, owned: frozenset[int]) -> int:
        began, now = self._clock.mono(), self._clock.wall()
        if began < self._rests_until:
            return 0
        heads = await self._store.due_heads(owned, now, limit=self._limit)
        woken = sum(self._wake(head, began) for head in heads if head.partition in self._engine.owned)
        if woken * 10 < len(heads):
            took = self._clock.mono() - began
            self._rests_until = began + min(LONGEST_REST_SEC, took / SHARE)
        if self._engine.memory.full:
            self._seen_until = 0.0  # who is fetched too early leaves at once
        elif began >= self._looks_ahead_at:
            woken += await self._look_ahead(owned, began, now)
        return woken

    async def _look_ahead(self, owned: frozenset[int], began: float, now: float) -> int:
        """Fetch those that will be due soon, but for those that a look before has found already."""
        limit, until = self._limit, now + self._ahead_sec
        known = owned <= self._seen_of and now < self._seen_until < until
        heads = await self._store.due_heads(owned, until, limit=limit, after=self._seen_until if known else now)
        self._seen_of, self._seen_until, self._looks_ahead_at = owned, until, began + self._ahead_sec / 2
        if len(heads) == limit and (last := heads[-1].next_wake) is not None:
            # There are more, perhaps of the very same moment: the next sweep goes on.
            self._seen_until, self._looks_ahead_at = math.nextafter(last, 0.0), began
        return sum(self._wake(head, began) for head in heads if head.partition in self._engine.owned)

    @property
    def _limit(self) -> int:
        return PAGE + len(self._engine.cells)

    def _wake(self, head: Head, asked_at: float) -> bool:
        cell = self._engine.cells.get(head.task_id)
        if cell is None:
            self._engine.get(head.task_id, head.partition, (head, asked_at))
            return True
        if cell.live and cell.flight is None and head.seq > cell.acked:
            self._engine.reload(cell, "behind", 0.0)
            return True
        waited = self._clock.wall() - head.created_at > PATIENCE_SEC
        if waited and cell.patient and cell.task is not None and not cell.task.created:
            # A task that waits in memory for its first room is recorded as begun all the same: its head shall say so.
            cell.patient = False
            self._engine.touch(cell)
        return False
