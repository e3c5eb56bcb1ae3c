"""How tasks ended: waited for, and put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from flowkit.coordinator.artifacts import materialise, output_of_ended
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.explain import unserved
from flowkit.coordinator.glances import Glances
from flowkit.coordinator.hub import Listener
from flowkit.coordinator.states import States
from flowkit.coordinator.views import Reason, TaskResult, task_result
from flowkit.core.model import Task, TaskStatus
from flowkit.core.payload import holds_artifacts
from flowkit.errors import ExprError, InputError, WaitTimeout
from flowkit.ports import Clock, Store

REREAD_SEC = 15.0


class Results:
    """`explain` tells why the nodes of a task do not run. `engine` is None in a process that coordinates nothing."""

    def __init__(self, *, store: Store, clock: Clock, states: States, glances: Glances,
                 explain: Callable[[str], Awaitable[Sequence[Reason]]],
                 engine: Engine | None = None) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._states = states
        self._glances = glances
        self._explain = explain
        self._engine = engine

    async def wait(self, task_id: str, listener: Listener, timeout: float | None, on_wait: Any) -> TaskResult:
        """The result of a task once it has ended, which `listener` hears of. Raises `WaitTimeout`, `TaskNotFound`."""
        began = self._clock.mono()
        read_at, told = -REREAD_SEC, ""
        seen: int | None = None
        while True:
            now = self._clock.mono() - began
            if now - read_at >= REREAD_SEC:
                read_at = now
                if seen is not None and not self._states.is_here(task_id):
                    self._glances.ask(task_id, seen, listener)
                else:
                    result, seen = await self._result(task_id)
                    if result is not None:
                        return result
            left = REREAD_SEC if timeout is None else timeout - (self._clock.mono() - began)
            if left <= 0:
                raise WaitTimeout(await self._why_waiting(task_id, timeout))
            event = await listener.next(min(left, REREAD_SEC if on_wait is None else 2.0))
            if event is None and on_wait is not None:
                told = self._tell_stuck(task_id, on_wait, told)
            if listener.missed or event is not None:
                listener.missed = False
                read_at, seen = -REREAD_SEC, None

    def _tell_stuck(self, task_id: str, on_wait: Any, told: str) -> str:
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        if cell is None or cell.head is None or cell.task is None:
            return told
        assert self._engine is not None
        stuck = unserved(cell.head, cell.task, self._engine)
        if stuck is not None and stuck.message != told:
            on_wait(stuck.message)
            return stuck.message
        return told

    async def _why_waiting(self, task_id: str, timeout: float | None) -> str:
        reasons = await self._explain(task_id)
        why = "; ".join(reason.message for reason in reasons[:3]) or "nothing is known to hold it up"
        return f"task {task_id} did not end within {timeout:g} s: {why}"

    async def _result(self, task_id: str) -> tuple[TaskResult | None, int | None]:
        """The result if the task has ended, and the seq of the last commit that was seen. Where the task is decided in
        this process, an end will be heard of: a commit on its way needs no look into the store."""
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        if cell is not None and cell.live and cell.flight is not None and cell.head is not None:
            self._states.check_tenant(cell.head, task_id)
            return None, None
        head, task, seq = self._states.at_hand(task_id) or await self._states.state(task_id)
        if not task.ended:
            return None, seq
        generation = task.generation
        result = await task_result(head, task, await self.output(task))
        if task.generation != generation:
            return None, None  # restarted while it was read
        if not (holds_artifacts(result.output) or holds_artifacts(result.outputs)):
            return result, seq
        output = await materialise(self._store, result.output)
        return replace(result, output=output, outputs=await materialise(self._store, result.outputs)), seq

    async def output(self, task: Task) -> Any:
        if task.status is not TaskStatus.FINISHED:
            return None
        try:
            return await output_of_ended(self._store, task)
        except (InputError, ExprError):
            return None  # it could be built when the task ended, or the task would have failed
