"""Which of the reports that wait at a cell one decision takes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.coordinator.authority import foreign
from flowkit.coordinator.cell import Cell, Item, settle
from flowkit.coordinator.weight import weight_of
from flowkit.core.model import Task
from flowkit.core.reports import Requested

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine


class Inbox:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, cell: Cell, task: Task, most: int) -> list[Item]:
        """The reports that are to be decided about now, of a weight of `most`; those that nobody may send are
        refused."""
        items: list[Item] = []
        tenant, weight = cell.head.tenant if cell.head is not None else "", 0
        while cell.queue and weight < most and not (cell.cautious and items):
            item = cell.queue.popleft()
            if cell.queue or weight:
                weight += weight_of(task.graph, item.report)
            if item.tenant and item.tenant != tenant:
                self._engine.carrier.refuse(cell, item, f"of tenant {item.tenant!r}, which does not own the task")
                settle([item])
            elif item.signer and (worker := foreign(task, item.report, item.signer)):
                self._engine.telemetry.count("foreign_reports")
                self._engine.carrier.refuse(cell, item, f"signed by the pool {item.signer!r}, and leased to {worker!r}")
                settle([item])
            else:
                if isinstance(item.report, Requested):
                    self._mark_again(cell, item.report)
                items.append(item)
        return items

    def _mark_again(self, cell: Cell, report: Requested) -> None:
        """A request that comes again although it was answered: its mark was lost."""
        if cell.task is not None and report.n <= cell.task.applied:
            if report.n not in cell.to_mark:
                cell.to_mark.append(report.n)
            self._engine.heads.touch(cell)
