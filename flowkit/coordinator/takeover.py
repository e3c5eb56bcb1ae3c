"""Takes partitions up and lets them go (rule 8)."""

from __future__ import annotations

import asyncio

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.requests import RequestReader
from flowkit.errors import StoreUnavailable
from flowkit.ports import Store
from flowkit.service import Supervisor

PAGE = 500
MOST_REQUESTS = 10_000
RETRY_SEC = 0.5


class Takeover:
    def __init__(self, store: Store, engine: Engine, requests: RequestReader, supervisor: Supervisor) -> None:
        self._store = store
        self._engine = engine
        self._requests = requests
        self._supervisor = supervisor

    def begin(self, partitions: frozenset[int]) -> None:
        """Own the partitions from now on, and load their active tasks in the background."""
        for cell in [cell for cell in self._engine.cells.values() if cell.partition in partitions]:
            self._engine.drop(cell)
        self._engine.owned |= partitions
        for partition in sorted(partitions):
            self._supervisor.spawn(self._load_active(partition), f"takeover-{partition}")

    async def end(self, partitions: frozenset[int], flush_sec: float) -> None:
        """Stop deciding, flush what is in flight and the heads behind it for a moment, and forget the tasks."""
        cells = [cell for cell in self._engine.cells.values() if cell.partition in partitions]
        for cell in cells:
            cell.closing = True
        try:
            async with asyncio.timeout(flush_sec):
                await self._flush(cells)
        except (TimeoutError, StoreUnavailable):
            pass  # the next owner finds in the commits what the heads do not say yet
        finally:
            self._engine.owned -= partitions
            for cell in [cell for cell in self._engine.cells.values() if cell.partition in partitions]:
                self._engine.drop(cell)

    async def _flush(self, cells: list[Cell]) -> None:
        while any(cell.flight is not None and not cell.dead for cell in cells):
            await asyncio.sleep(0.01)
        while any(cell.head_due and not cell.dead for cell in cells):
            await self._engine.heads.step()
            await asyncio.sleep(0.01)

    async def _load_active(self, partition: int) -> None:
        """Requests first: what was cancelled while nobody coordinated must not be started by the one that takes
        over."""
        after, asked = "", False
        while partition in self._engine.owned:
            try:
                if not asked:
                    await self._requests.hand_over(await self._store.open_requests({partition}, limit=MOST_REQUESTS))
                    asked = True
                asked_at = self._engine.clock.mono()
                heads = await self._store.active_heads(partition, limit=PAGE, after=after)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SEC)
                continue
            for head in heads:
                if partition in self._engine.owned:
                    self._engine.get(head.task_id, partition, (head, asked_at))
            if len(heads) < PAGE:
                return
            after = heads[-1].task_id
