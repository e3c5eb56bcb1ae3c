"""How far every stream of a task is: what was made, what was read of it. Read from the store, in whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from flowkit.core.model import Task
from flowkit.ports import Block, Store, StreamId
from flowkit.wire.stream import Cursor, read_mark

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class StreamView:
    """One edge that batches flow along: how many `source` has made, and how many of them `reader` is done with."""

    source: str
    reader: str
    produced: int
    consumed: int

    @property
    def lag(self) -> int:
        return self.produced - self.consumed

    def __str__(self) -> str:
        behind = f", {self.lag} behind" if self.lag else ""
        return f"has read {self.consumed} of the {self.produced} batches that {self.source!r} has made{behind}"


async def stream_views(store: Store, task: Task) -> list[StreamView]:
    """One for each stream edge of a task. Raises `StoreUnavailable`."""
    edges = [(source, reader) for source, readers in task.graph.stream_readers.items() for reader in readers]
    last = await _last_blocks(store, task, dict.fromkeys(name for edge in edges for name in edge))
    found = []
    for source, reader in edges:
        made, read = last[source], last[reader]
        cursor = Cursor() if read is None else read_mark(read.body).cursors.get(source, Cursor())
        found.append(StreamView(source, reader, 0 if made is None else made.count, cursor.index))
    return found


async def _last_blocks(store: Store, task: Task, names: Iterable[str]) -> dict[str, Block | None]:
    room = asyncio.Semaphore(AT_ONCE)

    async def last(name: str) -> Block | None:
        async with room:
            return await store.last_block(StreamId(task.task_id, task.runs[name].born, name))

    wanted = list(names)
    return dict(zip(wanted, await asyncio.gather(*map(last, wanted)), strict=True))
