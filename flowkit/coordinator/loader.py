"""Loads tasks into their cells, many in one read."""

from __future__ import annotations

import asyncio

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.history import History

BATCH = 500


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
        pasts = await self._history.load(list(cells))
        for task_id, cell in cells.items():
            if self._engine.to_load.get(task_id) is cell:
                del self._engine.to_load[task_id]
                self._engine.loaded(cell, pasts.get(task_id))
        self._engine.pump_dirty()
