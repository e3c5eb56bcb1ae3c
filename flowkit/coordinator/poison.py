"""What happens where a decision raises, or a task cannot be read: it must not reach the others (rule 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.coordinator.cell import Cell, Item, settle
from flowkit.telemetry import Quarantined

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine


class Poison:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def provoked(self, cell: Cell, items: list[Item], error: Exception) -> None:
        """A decision raised: find the report that provokes it by deciding one at a time, and put it aside."""
        cell.queue.extendleft(reversed(items))
        if not items:
            self.quarantine(cell, f"{type(error).__name__}: {error}")
            return
        if len(items) == 1:
            poison = cell.queue.popleft()
            self._engine.carrier.refuse(cell, poison, f"{type(error).__name__}: {error}")
            settle([poison])
            self._engine.telemetry.emit(Quarantined(cell.task_id, f"a report was put aside: {error}"))
        cell.cautious = True
        self._engine.reload(cell, "poison", 0.0)

    def quarantine(self, cell: Cell, reason: str) -> None:
        """Decide about the task no more."""
        cell.quarantine = reason
        settle(cell.queue)
        cell.queue.clear()
        self._engine.telemetry.emit(Quarantined(cell.task_id, reason))
