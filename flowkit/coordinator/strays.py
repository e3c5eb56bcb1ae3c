"""What comes for tasks that are not there, not there any more, or another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.coordinator.cell import Cell, settle
from flowkit.coordinator.ids import was_long_ago
from flowkit.core.reports import Requested

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine

MOST_MISSES = 4


class Strays:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def missing(self, cell: Cell) -> None:
        """The store knows no such task: it is asked again a few times, for a head may be on its way."""
        cell.misses += 1
        if cell.misses < MOST_MISSES:
            self._engine.carrier.later(0.3, lambda: self._engine.load_again(cell))
            return
        settle(self._engine.gate.gone(cell))
        self._engine.on_stray(cell.task_id)
        if was_long_ago(cell.task_id, self._engine.clock.wall()):
            self.late(cell)
            return
        for item in cell.queue:
            if not isinstance(item.report, Requested):  # those stand in the store, and are removed there
                self._engine.carrier.refuse(cell, item, "no such task")
        self._engine.forget(cell)

    def late(self, cell: Cell) -> None:
        """What comes for a task that was deleted is counted and dropped (rule 16)."""
        self._engine.telemetry.count("reports_of_deleted_tasks", len(cell.queue))
        if any(isinstance(item.report, Requested) for item in cell.queue):
            self._engine.on_stray(cell.task_id)
        self._engine.forget(cell)

    def not_ours(self, cell: Cell, partition: int) -> None:
        """A message that went astray asked for another owner's task, who alone may decide about it; or the partition
        has just left, and the next owner reads again what is not settled here."""
        if cell.partition != partition:
            for item in cell.queue:
                self._engine.carrier.refuse(cell, item, f"its task belongs to partition {partition}")
            settle(cell.queue)
        self._engine.drop(cell)

    def head_missing(self, task_id: str) -> None:
        """The head of a task that is here is not in the store."""
        cell = self._engine.cells.get(task_id)
        if cell is not None and not cell.loading:
            self._engine.reload(cell, "missing", 0.0)
