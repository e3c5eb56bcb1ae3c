"""A task as its submitter holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Unpack

from flowkit.coordinator.tasks import Tasks
from flowkit.coordinator.views import Reason, TaskResult, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.replan import RestartOptions, RestartPlan
from flowkit.errors import TaskFailed


class TaskHandle:
    """All that can be done with one task. Costs nothing, can be made anew from the id at any time."""

    def __init__(self, tasks: Tasks, task_id: str) -> None:
        self._tasks = tasks
        self.id = task_id

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"

    async def view(self) -> TaskView:
        """The task as its commits say. Raises `TaskNotFound`."""
        return await self._tasks.get(self.id)

    async def status(self) -> str:
        """`queued`, `running`, `paused`, `cancelling`, `finished`, `failed` or `cancelled`. Raises `TaskNotFound`."""
        return (await self._tasks.get(self.id)).status

    async def wait(self, timeout: float | None = None) -> TaskResult:
        """How the task ended, however it ended; `timeout` is seconds. Raises `TaskNotFound`, `WaitTimeout`."""
        return await self._tasks.wait(self.id, timeout)

    async def result(self, timeout: float | None = None, *, on_wait: Callable[[str], None] | None = None) -> TaskResult:
        """The result of a finished task; `timeout` is seconds. `on_wait` hears, in a sentence, what holds the task up
        that nobody serves. Raises `TaskFailed` if it failed or was cancelled, `TaskNotFound`, `WaitTimeout`."""
        return raise_if_failed(await self._tasks.wait(self.id, timeout, on_wait=on_wait))

    async def cancel(self, *, node_id: str | None = None, reason: str = "user_request",
                     grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel the task, or one node of it, whose attempts have `grace_sec` seconds to stop
        (`CoordinatorConfig.cancel_grace_sec` by default). Returns once that is written; False for an unknown task."""
        return await self._tasks.cancel(self.id, node_id=node_id, reason=reason, grace_sec=grace_sec)

    async def pause(self, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes, or do not start this one; what runs goes on. False where no coordinator has answered
        yet: the request is written. Raises `RequestRefused`, `TaskNotFound`."""
        return await self._tasks.pause(self.id, node_id=node_id, reason=reason)

    async def resume(self, *, node_id: str | None = None) -> bool:
        """Undo `pause`. Answers and raises as that does."""
        return await self._tasks.resume(self.id, node_id=node_id)

    async def signal(self, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Raises `RequestRefused`, `GraphError`."""
        return await self._tasks.signal(self.id, name, payload)

    async def restart(self, **options: Unpack[RestartOptions]) -> bool:
        """Run the task, which has ended, again: the whole, its failed part (`failed_only`), or a node and all after it
        (`from_node`). False where no coordinator has answered yet. Raises `RequestRefused`, `GraphError`,
        `TaskNotFound`."""
        return await self._tasks.restart(self.id, **options)

    async def plan_restart(self, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart` with the same options would do."""
        return await self._tasks.plan_restart(self.id, **options)

    async def delete(self) -> bool:
        """Delete the task, which must have ended, for good; False where it is no more."""
        return await self._tasks.delete(self.id)

    def watch(self, since: int = 0) -> AsyncIterator[TaskEvent]:
        """The task's transitions after commit `since`, then live, until its last."""
        return self._tasks.watch(self.id, since)

    async def explain(self) -> list[Reason]:
        """Why each node that does not run does not run."""
        return await self._tasks.explain(self.id)


def raise_if_failed(result: TaskResult, *, kept: bool = True) -> TaskResult:
    """The result itself, or `TaskFailed` with the node, the code, the message, the original traceback and what to
    do. `kept`: the task is still there, so that it can be restarted."""
    if result.ok:
        return result
    error = result.error or {}
    node = error.get("node_id")
    code, message = error.get("code", result.status), error.get("message", "")
    where = f" at node {node!r}" if node else ""
    text = f"task {result.task_id} {result.status}{where}: {code}: {message}".rstrip(": ")
    if error.get("traceback"):
        text += f"\n\n{error['traceback']}"
    if kept and result.status == "failed":
        text += (
            f"\nWhat ran is kept: restart_task({result.task_id!r}, failed_only=True) runs only the failed part again."
        )
    raise TaskFailed(text, task_id=result.task_id, status=result.status, node_id=node, error=error, result=result)
