"""What is asked about tasks: one by its commits, many by the index of ended attempts."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from flowkit.monitor_ports import (
    DAY_SEC,
    HOUR_SEC,
    RUN,
    AttemptQuery,
    AttemptRecord,
    Rollup,
    TraceStore,
    measure_of,
)  # fmt: skip
from flowkit.paging import checked_limit
from flowkit.ports import Clock
from flowkit.slices import in_slices as in_slices
from flowkit.trace import analysis
from flowkit.trace.analysis import Bottleneck, CriticalPath, Row, Slow
from flowkit.trace.comparison import Comparison, compare
from flowkit.trace.history import Point, histograms_of, points_of
from flowkit.trace.task_trace import Recorded, TaskTrace, Values, read_trace, read_values
from flowkit.wire.rollups import records_in

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

    async def slowest_of(self, task_id: str, limit: int = 10, *, by: str = RUN) -> list[Slow]:
        """The nodes of one task that ran longest; or, `by` being `cpu` or `memory`, those whose programs used most of
        it. Raises `ValueError`, too."""
        return await asyncio.to_thread(analysis.slowest, await self.show(task_id), limit, measure_of(by))

    async def bottlenecks(self, task_id: str, limit: int = 10) -> list[Bottleneck]:
        """Where the task's time went, and what would help."""
        return await asyncio.to_thread(analysis.bottlenecks, await self.show(task_id), limit)

    async def compare(self, first: str, second: str) -> Comparison:
        """How the second task differs from the first."""
        return await asyncio.to_thread(compare, await self.show(first), await self.show(second))

    # ------------------------------------------------------------------------------------------ many tasks

    async def slowest(self, *, flow: str | None = None, node: str | None = None, since: float | None = None,
                      until: float | None = None, limit: int = 10, by: str = RUN) -> list[AttemptRecord]:  # fmt: skip
        """The attempts of ended tasks that ran longest, of this flow (or graph's name) and node of the graph; or, `by`
        being `cpu` or `memory`, those whose programs used most of it. `since` and `until` (epoch seconds) are of their
        ends: by default the last seven days, at most 92.

        Where no records of single attempts are kept, the five that took most of each node and day are known, of each
        hour where two days or less are asked about. Raises `ValueError`."""
        checked_limit(limit, MOST_SLOWEST)
        query, measure_of_it = self._query(flow, node, since, until), measure_of(by)
        found = {_name(one): one for one in await self._index.slowest_attempts(query, limit=limit, by=by)}
        span = HOUR_SEC if query.until - query.since <= 2 * DAY_SEC else DAY_SEC
        rollups = await self._index.rollups(query, span=span)
        kept = await asyncio.to_thread(_kept, rollups, query, measure_of_it)
        found.update((_name(one), one) for one in kept)
        return heapq.nsmallest(limit, found.values(), key=lambda one: (-(one.measure(by) or 0), *_name(one)))

    async def history(self, *, flow: str | None = None, node: str | None = None, since: float | None = None,
                      until: float | None = None, bucket_sec: float = 3600.0) -> list[Point]:  # fmt: skip
        """How many attempts of ended tasks there were, how many failed, and how long they ran, for each flow, node of
        the graph and bucket of time. Arguments as of `slowest`; at most 2,000 buckets.

        Buckets of whole hours are read from what was counted by the hour and the day, and are whole themselves: the
        first and the last one reach as far as they do, beyond `since` and `until`. Others are counted from the records
        of single attempts. Raises `ValueError`, also where none are kept."""
        query = self._query(flow, node, since, until)
        if bucket_sec < 1 or (query.until - query.since) / bucket_sec > MOST_BUCKETS:
            raise ValueError(
                f"bucket_sec is a second or more, and such that there are at most {MOST_BUCKETS} buckets, "
                f"not {bucket_sec:g}"
            )
        span = DAY_SEC if bucket_sec % DAY_SEC == 0 else HOUR_SEC
        if bucket_sec % span == 0:
            since, until = query.since // bucket_sec * bucket_sec, -(-query.until // bucket_sec) * bucket_sec
            rollups = await self._index.rollups(replace(query, since=since, until=until), span=span)
            return await asyncio.to_thread(lambda: points_of(histograms_of(rollups, node, int(bucket_sec))))
        histograms = await self._index.histograms(query, bucket_sec=bucket_sec)
        if not histograms and await self._index.rollups(query, span=HOUR_SEC):
            raise ValueError(
                f"a bucket of {bucket_sec:g} s is no whole hour, and there are no records of single attempts "
                "(trace_index): say 3600 or a multiple"
            )
        return points_of(histograms)

    def _query(self, flow: str | None, node: str | None, since: float | None, until: float | None) -> AttemptQuery:
        until = self._clock.wall() + 1.0 if until is None else until
        since = until - USUAL_DAYS * DAY_SEC if since is None else since
        if not 0 <= until - since <= MOST_DAYS * DAY_SEC:
            raise ValueError(f"from since to until there are at most {MOST_DAYS} days, and not less than none")
        return AttemptQuery(self._tenant, since, until, flow, node)


def _name(one: AttemptRecord) -> tuple[str, str, int]:
    return one.task_id, one.node, one.attempt


def _kept(rollups: Sequence[Rollup], query: AttemptQuery, by: str) -> list[AttemptRecord]:
    """The records that rollups have kept, of those that are asked for."""
    found = [one for rollup in rollups for one in records_in(rollup, query.base, by)]
    return [one for one in found if query.since <= one.ended_at < query.until]
