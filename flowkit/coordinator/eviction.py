"""When a task leaves memory: once nothing is left to do, or because others need the room."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from flowkit.coordinator.cell import Cell

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine

MOST_LOOKS = 5000
SHORTEST_REST_SEC = 1.0


class Eviction:
    """`after_sec` is how long a task that only waits has to have to wait still."""

    def __init__(self, engine: Engine, after_sec: float) -> None:
        self._engine = engine
        self._evict_after_sec = after_sec

    def maybe(self, cell: Cell) -> None:
        """A task with nothing to do leaves memory, once its head says all there is to say."""
        task = cell.task
        if not cell.live or task is None or cell.queue or cell.flight or cell.head_due or cell.published < cell.acked:
            return
        if not task.ended:
            wake = task.next_wake()
            if task.leased or ((task.ready or task.gated) and not task.paused) or (task.due and task.placing):
                return
            rest = SHORTEST_REST_SEC if self._engine.memory.full else self._evict_after_sec
            if wake is not None and wake < self._engine.clock.wall() + rest:
                return
            # The next child ends soon, most likely: it must not have to wait until its parent is loaded again.
            if cell.unborn or (task.children and self._engine.clock.mono() - cell.stirred_at < rest):
                return
        on_rest = self._engine.on_rest
        if task.ended and on_rest is not None:
            on_rest(cell)
        self._engine.drop(cell)

    def make_room(self) -> None:
        """Where the tasks in memory weigh too much, let those go that only wait, those looked at longest ago first."""
        cells = self._engine.cells
        for task_id in list(islice(cells, MOST_LOOKS)):
            if not self._engine.memory.full:
                return
            cell = cells[task_id] = cells.pop(task_id)
            self.maybe(cell)
