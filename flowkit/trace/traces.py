"""What is asked about tasks: one by its commits, many by the index of ended attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeVar

from flowkit.monitor_ports import AttemptQuery, AttemptRecord, TraceStore
from flowkit.ports import Clock
from flowkit.trace import analysis
from flowkit.trace.analysis import Bottleneck, CriticalPath, Row, Slow
from flowkit.trace.comparison import Comparison, compare
from flowkit.trace.history import Point, points_of
from flowkit.trace.task_trace import Recorded, TaskTrace, Values, read_trace, read_values

T = TypeVar("T")

DAY_SEC: Final = 86_400.0
USUAL_DAYS: Final = 7
MOST_DAYS: Final = 92
MOST_BUCKETS: Final = 2000
MOST_SLOWEST: Final = 1000


class Traces:
    """`load` reads a task's whole history. Everything raises `TaskNotFound` for a task that is not there, `Corrupt`
    for one whose history cannot be read, and `StoreUnavailable`."""

    def __init__(self, load: Callable[[str], Awaitable[Recorded]], index: TraceStore, clock: Clock, *,
                 tenant: str = "default") -> None:  # fmt: skip
        self._load = load
        self._index = index
        self._clock = clock
        self._tenant = tenant

    # ------------------------------------------------------------------------------------------ one task

    async def show(self, task_id: str) -> TaskTrace:
        """The task's path: its nodes in the order in which they began, and every attempt."""
        return await in_slices(read_trace(await self._load(task_id)))

    async def values(self, task_id: str, node: str, attempt: int | None = None) -> dict[tuple[str, int], Values]:
        """What the attempts of a node were given and gave, by node and attempt number. Empty where it did not run."""
        return await in_slices(read_values(await self._load(task_id), node, attempt))

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

    # ------------------------------------------------------------------------------------------ many tasks

    async def slowest(self, *, flow: str | None = None, node: str | None = None, since: float | None = None,
                      until: float | None = None, limit: int = 10) -> list[AttemptRecord]:  # fmt: skip
        """The attempts of ended tasks that ran longest, of this flow (or graph's name) and node of the graph. `since`
        and `until` (epoch seconds) are of their ends: by default the last seven days, at most 92. Raises
        `ValueError`."""
        if not 1 <= limit <= MOST_SLOWEST:
            raise ValueError(f"limit is a number from 1 to {MOST_SLOWEST}, not {limit}")
        return await self._index.slowest_attempts(self._query(flow, node, since, until), limit=limit)

    async def history(self, *, flow: str | None = None, node: str | None = None, since: float | None = None,
                      until: float | None = None, bucket_sec: float = 3600.0) -> list[Point]:  # fmt: skip
        """How many attempts of ended tasks there were, how many failed, and how long they ran, for each flow, node of
        the graph and bucket of time. Arguments as of `slowest`; at most 2,000 buckets. Raises `ValueError`."""
        query = self._query(flow, node, since, until)
        if bucket_sec < 1 or (query.until - query.since) / bucket_sec > MOST_BUCKETS:
            raise ValueError(
                f"bucket_sec is a second or more, and such that there are at most {MOST_BUCKETS} buckets, "
                f"not {bucket_sec:g}"
            )
        return points_of(await self._index.histogram(query, bucket_sec=bucket_sec))

    def _query(self, flow: str | None, node: str | None, since: float | None, until: float | None) -> AttemptQuery:
        until = self._clock.wall() + 1.0 if until is None else until
        since = until - USUAL_DAYS * DAY_SEC if since is None else since
        if not 0 <= until - since <= MOST_DAYS * DAY_SEC:
            raise ValueError(f"from since to until there are at most {MOST_DAYS} days, and not less than none")
        return AttemptQuery(self._tenant, since, until, flow, node)


async def in_slices(work: Generator[None, None, T]) -> T:
    """Do it, and let the loop in at every yield."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)
