"""Finds work that no message announced: due timers, requests not applied, events not published (rule 12)."""

from __future__ import annotations

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.requests import RequestReader
from flowkit.ports import Clock, Store

PAGE = 1000


class Sweeper:
    """Looks only at the partitions owned here. Loads what is due and not in memory; what is in memory looks after
    itself."""

    def __init__(self, store: Store, clock: Clock, engine: Engine, requests: RequestReader) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._requests = requests

    async def step(self) -> int:
        """One sweep; how many tasks it woke."""
        owned = frozenset(self._engine.owned)
        if not owned:
            return 0
        limit = PAGE + len(self._engine.cells)
        heads = await self._store.due_heads(owned, self._clock.wall(), limit=limit)
        for head in heads:
            self._hurry(head.task_id)
        asleep = [h for h in heads if h.task_id not in self._engine.cells and h.partition in self._engine.owned]
        for head in asleep[:PAGE]:
            self._engine.get(head.task_id, head.partition)
        self._requests.hand_over(await self._store.open_requests(owned, limit=PAGE))
        self._engine.pump_dirty()
        return len(asleep)

    def _hurry(self, task_id: str) -> None:
        """A task that waits in memory for its first room is recorded as begun all the same, so that its head says
        so."""
        cell = self._engine.cells.get(task_id)
        if cell is not None and cell.task is not None and not cell.task.created and cell.patient:
            cell.patient = False
            self._engine.touch(cell)
