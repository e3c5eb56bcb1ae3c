"""The one lifecycle: supervised loops over a public `step`, background tasks with an owner, a bounded stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from flowkit.telemetry import LoopFailed, Telemetry

T = TypeVar("T")

TURNS = 8
"""Of the loop: a message takes six to eight from its socket to whoever waits for it, and as many back."""
_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 5.0


async def give_way() -> None:
    """Between two pieces of long work: let everything be done that has come meanwhile, and leave. Whoever let the loop
    go round but once would put a piece between any two steps of a message's way."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def in_slices(work: Generator[None, None, T]) -> T:
    """Do it, and give way at every yield."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await give_way()


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
        task = asyncio.get_running_loop().create_task(work, name=f"{self.owner}/{name}")
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
