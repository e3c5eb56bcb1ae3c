"""Keeps the index of ended attempts in this process's memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowkit.adapters.limits import storable
from flowkit.monitor_ports import AttemptQuery, AttemptRecord, HistogramRow, bin_of
from flowkit.ports import Outcome


@dataclass(slots=True)
class TraceData:
    """By task, and by node and attempt; and up to which commit tasks are in it."""

    attempts: dict[str, dict[tuple[str, int], AttemptRecord]] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)

    def forget(self, task_id: str) -> None:
        self.attempts.pop(task_id, None)
        self.seqs.pop(task_id, None)


class MemoryTraces:
    """A `TraceStore` over `TraceData`. Questions look at everything: it is for tests and trials."""

    def __init__(self, data: TraceData) -> None:
        self._data = data

    async def insert_attempts(self, records: Sequence[AttemptRecord]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._insert(record) for record in records]

    async def indexed(self, task_ids: Sequence[str]) -> dict[str, int]:
        await asyncio.sleep(0)
        return {task_id: self._data.seqs[task_id] for task_id in task_ids if task_id in self._data.seqs}

    async def mark_indexed(self, seqs: Mapping[str, int]) -> Outcome:
        await asyncio.sleep(0)
        for task_id, seq in seqs.items():
            self._data.seqs[task_id] = max(seq, self._data.seqs.get(task_id, 0))
        return Outcome.OK

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int) -> list[AttemptRecord]:
        await asyncio.sleep(0)
        found = self._of(query)
        return sorted(found, key=lambda one: (-one.run_sec, one.task_id, one.node, one.attempt))[:limit]

    async def histogram(self, query: AttemptQuery, *, bucket_sec: float) -> list[HistogramRow]:
        await asyncio.sleep(0)
        counts = Counter(
            (one.flow, one.base, one.ended_at // bucket_sec * bucket_sec, bin_of(one.run_sec), one.bad)
            for one in self._of(query)
        )
        return [HistogramRow(*key, count) for key, count in sorted(counts.items())]

    async def expire_attempts(self, before: float, *, limit: int) -> int:
        await asyncio.sleep(0)
        old = [
            (task_id, key)
            for task_id, attempts in self._data.attempts.items()
            for key, one in attempts.items()
            if one.ended_at < before
        ][:limit]
        for task_id, key in old:
            del self._data.attempts[task_id][key]
        return len(old)

    def _insert(self, record: AttemptRecord) -> Outcome:
        if not storable(record):
            return Outcome.UNKNOWN
        of_task, key = self._data.attempts.setdefault(record.task_id, {}), (record.node, record.attempt)
        if key in of_task:
            return Outcome.DUPLICATE
        of_task[key] = record
        return Outcome.OK

    def _of(self, query: AttemptQuery) -> list[AttemptRecord]:
        return [
            one
            for attempts in self._data.attempts.values()
            for one in attempts.values()
            if one.tenant == query.tenant
            and query.since <= one.ended_at < query.until
            and query.flow in (None, one.flow)
            and query.base in (None, one.base)
        ]
