"""Loads tasks into their cells, many in one read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.history import History, Past
from flowkit.ports import Head

BATCH = 500
FRESH_SEC = 2.0
"""A head that was read no longer ago is not read again. What became of its task since then, the commits tell, which are
read afterwards."""


class Loader:
    def __init__(self, history: History, engine: Engine) -> None:
        self._history = history
        self._engine = engine
        self._wake = asyncio.Event()
        engine.carrier.load_soon = self._wake.set

    async def step(self) -> None:
        """Wait for cells to load, load a batch, and let the engine decide about them. What fails stays to be loaded."""
        if not self._engine.to_load:
            self._wake.clear()
            await self._wake.wait()
        cells = dict(list(self._engine.to_load.items())[:BATCH])
        if not cells:
            return
        unknown = dict(cells)
        async for batch in self._history.batches(list(cells), known=self._seen(cells.values())):
            for past in batch:
                self._hand_over(unknown.pop(past.head.task_id), past)
            self._engine.pump_dirty()
        for cell in unknown.values():
            self._hand_over(cell, None)
        self._engine.pump_dirty()

    def _seen(self, cells: Iterable[Cell]) -> dict[str, Head]:
        since = self._engine.clock.mono() - FRESH_SEC
        return {cell.task_id: cell.sight[0] for cell in cells if cell.sight is not None and cell.sight[1] >= since}

    def _hand_over(self, cell: Cell, past: Past | None) -> None:
        if self._engine.to_load.get(cell.task_id) is cell:
            del self._engine.to_load[cell.task_id]
            self._engine.loaded(cell, past)
