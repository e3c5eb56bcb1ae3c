"""Keeps the index of ended attempts in this process's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowkit.adapters.limits import storable
from flowkit.monitor_ports import RUN, AttemptQuery, AttemptRecord, Bins, Histogram, Rollup, bin_of
from flowkit.ports import Outcome
from flowkit.wire.rollups import OPEN_BYTES, Group, added, groups_of, pieces


@dataclass(slots=True)
class TraceData:
    """By task, and by node and attempt; up to which commit tasks are counted; and what was counted, in parts."""

    attempts: dict[str, dict[tuple[str, int], AttemptRecord]] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    rollups: dict[Group, list[bytes]] = field(default_factory=dict)

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

    async def count_attempts(self, marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        await asyncio.sleep(0)
        if any(self._data.seqs.get(task_id, 0) != since for task_id, (since, _) in marks.items()):
            return Outcome.NO_MATCH
        for group, cells in groups_of(one for one in records if storable(one)).items():
            parts = self._data.rollups.setdefault(group, [])
            for piece in pieces(cells):
                if parts and len(parts[-1]) < OPEN_BYTES:
                    parts[-1] = added(parts[-1], piece)
                else:
                    parts.append(piece)
        self._data.seqs.update({task_id: seq for task_id, (_, seq) in marks.items()})
        return Outcome.OK

    async def rollups(self, query: AttemptQuery, *, span: int) -> list[Rollup]:
        await asyncio.sleep(0)
        return [
            Rollup(*group, part, body)
            for group, parts in sorted(self._data.rollups.items())
            if group[0] == query.tenant
            and query.flow in (None, group[1])
            and group[2] == span
            and query.since - span < group[3] < query.until
            for part, body in enumerate(parts)
        ]

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int, by: str = RUN) -> list[AttemptRecord]:
        await asyncio.sleep(0)
        found = [(value, one) for one in self._of(query) if (value := one.measure(by)) is not None]
        found.sort(key=lambda pair: (-pair[0], pair[1].task_id, pair[1].node, pair[1].attempt))
        return [one for _, one in found[:limit]]

    async def histograms(self, query: AttemptQuery, *, bucket_sec: float) -> list[Histogram]:
        await asyncio.sleep(0)
        found: dict[tuple[str, str, float], dict[str, Bins]] = {}
        for one in self._of(query):
            outcomes = found.setdefault((one.flow, one.base, one.ended_at // bucket_sec * bucket_sec), {})
            bins, number = outcomes.setdefault(one.outcome, {}), bin_of(one.run_sec)
            bins[number] = bins.get(number, 0) + 1
        return [Histogram(*key, found[key]) for key in sorted(found)]

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

    async def expire_rollups(self, before: float, *, limit: int) -> int:
        await asyncio.sleep(0)
        old = [group for group in self._data.rollups if group[3] + group[2] < before][:limit]
        for group in old:
            del self._data.rollups[group]
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
