"""The one lifecycle: supervised loops over a public `step`, background tasks with an owner, a bounded stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from flowkit.telemetry import LoopFailed, Telemetry

_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 5.0


class Supervisor:
    """Owns the background work of one part. What fails is reported and, if it is a loop, goes on."""

    def __init__(self, owner: str, telemetry: Telemetry) -> None:
        self.owner = owner
        self.telemetry = telemetry
        self._tasks: set[asyncio.Task[Any]] = set()

    def loop(self, name: str, step: Callable[[], Awaitable[None]], *, every: float = 0.0) -> asyncio.Task[None]:
        """Call `step` for ever, `every` seconds apart; a step that raises is reported and tried again after a pause."""
        return self.spawn(self._run_loop(name, step, every), name)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something once in the background; if it raises, that is reported."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a `finally` of what ended with the loop wants to begin something: nobody would run it
            work.close()
            raise
        task = loop.create_task(work, name=f"{self.owner}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self, timeout: float = 5.0) -> None:
        """Cancel everything owned and wait for it, `timeout` seconds at most. To be called from outside the owned
        tasks."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def _run_loop(self, name: str, step: Callable[[], Awaitable[None]], every: float) -> None:
        pause = _FIRST_PAUSE_SEC
        while True:
            try:
                await step()
                pause = _FIRST_PAUSE_SEC
            except Exception as error:  # the loop must outlive any fault of its step
                self.telemetry.emit(LoopFailed(self.owner, name, error, pause))
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_SEC, pause * 2)
            if every:
                await asyncio.sleep(every)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.telemetry.emit(LoopFailed(self.owner, task.get_name(), error, 0.0))
