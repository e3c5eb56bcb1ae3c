"""The state of a task, wherever it is: in this process, or in the store."""

from __future__ import annotations

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.lookups import Lookups
from flowkit.core.model import Task
from flowkit.errors import Corrupt, TaskNotFound
from flowkit.ports import Head


class States:
    """For one tenant. `engine` is None in a process that coordinates nothing."""

    def __init__(self, lookups: Lookups, tenant: str, engine: Engine | None = None) -> None:
        self._lookups = lookups
        self._tenant = tenant
        self._engine = engine

    def is_here(self, task_id: str) -> bool:
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        return cell is not None and cell.live

    def at_hand(self, task_id: str) -> tuple[Head, Task, int] | None:
        """The state of a task that is decided in this process and has no commit on its way."""
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        # A task that is out of work may have been deleted by another process.
        if cell is None or cell.flight is not None or not cell.live or cell.task is None or cell.at_rest:
            return None
        assert cell.head is not None
        self.check_tenant(cell.head, task_id)
        return cell.head, cell.task, cell.acked

    async def state(self, task_id: str) -> tuple[Head, Task, int]:
        if (found := self.at_hand(task_id)) is not None:
            return found
        past = await self._lookups.past(task_id)
        self.check_tenant(past.head if past is not None else None, task_id)
        assert past is not None
        if past.task is None:
            raise Corrupt(f"task {task_id} is quarantined: {past.error}")
        return past.head, past.task, past.seq

    def check_tenant(self, head: Head | None, task_id: str) -> None:
        if head is None or head.tenant != self._tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")
