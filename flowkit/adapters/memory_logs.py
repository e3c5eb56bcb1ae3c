"""Keeps what attempts say in this process's memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flowkit.adapters.limits import storable
from flowkit.monitor_ports import LogBlock, LogQuery
from flowkit.ports import Outcome

Blocks = dict[str, dict[tuple[str, int, int], LogBlock]]
"""By task, and by node, attempt and first line."""


class MemoryLogs:
    """A `LogStore` over what a `MemoryData` holds."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def insert_logs(self, blocks: Sequence[LogBlock]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._insert(block) for block in blocks]

    async def read_logs(self, query: LogQuery, *, limit: int) -> list[LogBlock]:
        await asyncio.sleep(0)
        found = [block for block in self._blocks.get(query.task_id, {}).values() if _matches(block, query)]
        return sorted(found, key=lambda block: block.where)[:limit]

    async def expire_logs(self, before: float, *, limit: int) -> int:
        await asyncio.sleep(0)
        old = [
            (task_id, key) for task_id, blocks in self._blocks.items() for key, b in blocks.items() if b.until < before
        ][:limit]
        for task_id, key in old:
            del self._blocks[task_id][key]
            if not self._blocks[task_id]:
                del self._blocks[task_id]
        return len(old)

    def _insert(self, block: LogBlock) -> Outcome:
        if not storable(block):
            return Outcome.UNKNOWN
        of_task, key = self._blocks.setdefault(block.task_id, {}), (block.node, block.attempt, block.first)
        if key in of_task:
            return Outcome.DUPLICATE
        of_task[key] = block
        return Outcome.OK


def _matches(block: LogBlock, query: LogQuery) -> bool:
    return (
        (query.node is None or query.node in (block.node, block.base))
        and (query.attempt is None or block.attempt == query.attempt)
        and block.level >= query.level
        and (query.since is None or block.until >= query.since)
        and (query.start is None or block.where >= query.start)
    )
