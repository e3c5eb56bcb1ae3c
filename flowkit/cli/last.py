"""`last` for the newest task, so that nobody has to copy an id."""

from __future__ import annotations

from flowkit.client import Client
from flowkit.coordinator.coordinator import Coordinator
from flowkit.errors import TaskNotFound

LAST = "last"


async def task_id_of(verbs: Client | Coordinator, given: str) -> str:
    """The id that TASK names. Raises `TaskNotFound` where there are no tasks."""
    if given != LAST:
        return given
    page = await verbs.list_tasks(limit=1)
    if not page.heads:
        raise TaskNotFound("there are no tasks yet")
    return page.heads[0].task_id
