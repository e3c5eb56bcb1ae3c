"""The durable timers of the tasks in memory, by wall clock."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from flowkit.coordinator.cell import Cell
from flowkit.ports import Clock

LONGEST_SLEEP_SEC = 30.0
MOST_STALE = 1000
"""So many entries that do not count are kept until they are due, or as many as there are others: each keeps its cell
in memory."""


class Timers:
    """Tells which cells have a timer due. A cell has one entry that counts, in `cell.wake_at`; older ones are
    skipped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Cell]] = []
        self._order = count()
        self._stale = 0
        self._earlier = asyncio.Event()

    def set(self, cell: Cell, at: float | None) -> None:
        if at == cell.wake_at:
            return
        before, cell.wake_at = cell.wake_at, at
        if before is not None:
            self._forget()
        if at is not None:
            heapq.heappush(self._heap, (at, next(self._order), cell))
            if self._heap[0][2] is cell:
                self._earlier.set()

    async def due(self) -> list[Cell]:
        """Wait for the next timer, and give every cell whose timer is due."""
        while True:
            self._skip_stale()
            wait = self._heap[0][0] - self._clock.wall() if self._heap else LONGEST_SLEEP_SEC
            if wait <= 0:
                return self._pop_due()
            self._earlier.clear()
            try:
                async with asyncio.timeout(min(wait, LONGEST_SLEEP_SEC)):
                    await self._earlier.wait()
            except TimeoutError:
                continue

    def _pop_due(self) -> list[Cell]:
        now = self._clock.wall()
        cells: list[Cell] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, cell = heapq.heappop(self._heap)
            if cell.wake_at == at and not cell.dead:
                cell.wake_at = None
                cells.append(cell)
        return cells

    def _skip_stale(self) -> None:
        while self._heap and not _counts(self._heap[0]):
            heapq.heappop(self._heap)

    def _forget(self) -> None:
        """An entry counts no more. Where they are the most, all of them go."""
        self._stale += 1
        if self._stale > max(MOST_STALE, len(self._heap) // 2):
            self._stale = 0
            self._heap = [entry for entry in self._heap if _counts(entry)]
            heapq.heapify(self._heap)


def _counts(entry: tuple[float, int, Cell]) -> bool:
    at, _, cell = entry
    return cell.wake_at == at and not cell.dead
