"""What is asked about tasks: one by its commits, many by the index of ended attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

from flowkit.trace import analysis
from flowkit.trace.analysis import Bottleneck, CriticalPath, Row, Slow
from flowkit.trace.comparison import Comparison, compare
from flowkit.trace.task_trace import Recorded, TaskTrace, Values, read_trace, read_values

T = TypeVar("T")


class Traces:
    """`load` reads a task's whole history. Everything raises `TaskNotFound` for a task that is not there, `Corrupt`
    for one whose history cannot be read, and `StoreUnavailable`."""

    def __init__(self, load: Callable[[str], Awaitable[Recorded]]) -> None:
        self._load = load

    async def show(self, task_id: str) -> TaskTrace:
        """The task's path: its nodes in the order in which they began, and every attempt."""
        return await _in_slices(read_trace(await self._load(task_id)))

    async def values(self, task_id: str, node: str, attempt: int | None = None) -> dict[tuple[str, int], Values]:
        """What the attempts of a node were given and gave, by node and attempt number. Empty where it did not run."""
        return await _in_slices(read_values(await self._load(task_id), node, attempt))

    async def waterfall(self, task_id: str) -> list[Row]:
        """Who waited, was queued and ran, when."""
        return await asyncio.to_thread(analysis.waterfall, await self.show(task_id))

    async def critical_path(self, task_id: str) -> CriticalPath:
        """The chain of nodes that decided how long the task took."""
        return await asyncio.to_thread(analysis.critical_path, await self.show(task_id))

    async def slowest_of(self, task_id: str, limit: int = 10) -> list[Slow]:
        """The nodes of one task that ran longest."""
        return await asyncio.to_thread(analysis.slowest, await self.show(task_id), limit)

    async def bottlenecks(self, task_id: str, limit: int = 10) -> list[Bottleneck]:
        """Where the task's time went, and what would help."""
        return await asyncio.to_thread(analysis.bottlenecks, await self.show(task_id), limit)

    async def compare(self, first: str, second: str) -> Comparison:
        """How the second task differs from the first."""
        return await asyncio.to_thread(compare, await self.show(first), await self.show(second))


async def _in_slices(work: Generator[None, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)
