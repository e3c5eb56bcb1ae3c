"""What a coordinator keeps beside the states of its tasks, and has to agree with them: leases, how long nodes run,
which requests are answered, which ends a parent has yet to hear of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flowkit.coordinator.cell import Cell
from flowkit.core import facts as f
from flowkit.core.model import Task

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine


MOVES_LEASES = (f.AttemptLeased, f.AttemptSucceeded, f.AttemptFailed, f.LeaseLost, f.NodeFailed, f.NodeCancelled)


class Accounts:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def agree(self, cell: Cell, task: Task, recorded: Iterable[f.Fact]) -> None:
        """Make leases, learned run times and answered requests agree with the facts just acknowledged."""
        for fact in recorded:
            if isinstance(fact, MOVES_LEASES):  # nearly all
                if type(fact) is f.AttemptSucceeded:
                    self._engine.dispatcher.observe(task.node(fact.node).type, fact.run_sec)
                self._engine.leases.sync(cell, fact.node, task.runs[fact.node])
                continue
            match fact:
                case f.RequestApplied(n=n):
                    cell.to_mark.append(n)
                case f.TaskEnded() | f.ParentWaits() if task.ended and cell.head is not None and cell.head.parent:
                    cell.untold = cell.acked
                    self._engine.on_child_end(cell)
        if cell.watches:
            for node in [node for node in cell.watches if node not in task.leased]:
                self._engine.leases.sync(cell, node, task.runs[node])
