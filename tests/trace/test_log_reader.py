"""Reading log lines back: pages, filters, and live."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.core.traceparent import trace_id_of
from flowkit.errors import TaskNotFound
from flowkit.monitor_ports import LogBlock
from flowkit.ports import DELETED, Head, HeadUpdate
from flowkit.trace.log_reader import LogReader
from flowkit.wire.logs import LogLine, encode_line
from tests.worker.stand import LoopClock, virtual

TASK = "01a1fd30-08d4-752d-a6e7-2d7679606763"


class Shelf:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.reader = LogReader(self.store, self.store.logs, LoopClock())
        self.place = 0

    async def begin(self, **fields: Any) -> None:
        await self.store.insert_heads([Head(TASK, 0, "g", **fields)])

    async def end(self, status: str = "finished") -> None:
        await self.store.update_heads([HeadUpdate(TASK, status, 1, 1, False, None, 1.0, ended_at=1.0)])

    async def say(self, node: str, first: int, *levels: int, attempt: int = 1, at: float | None = None) -> None:
        self.place += 1
        times = [float(first + n) if at is None else at for n in range(len(levels))]
        rows = [
            encode_line(time, level, f"{node} {first + n}", {})
            for n, (time, level) in enumerate(zip(times, levels, strict=True))
        ]
        body = (b"[" + b",".join(rows) + b"]").decode()
        base = node.partition("[")[0]
        block = LogBlock(
            TASK, "default", node, base, attempt, first, len(levels), max(levels), times[-1], self.place, body
        )
        await self.store.logs.insert_logs([block])

    async def all(self, **wanted: Any) -> list[str]:
        return [line.message async for line in self.reader.lines(TASK, **wanted)]


@virtual
async def test_lines_are_filtered_one_by_one_not_block_by_block() -> None:
    shelf = Shelf()
    await shelf.begin()
    await shelf.say("a", 1, 10, 40, 20)
    await shelf.say("a", 1, 30, attempt=2)
    await shelf.say("b[0]", 1, 20, 25)

    assert await shelf.all() == ["a 1", "a 2", "a 3", "a 1", "b[0] 1", "b[0] 2"]
    assert await shelf.all(level="warning") == ["a 2", "a 1"]
    assert await shelf.all(level="info", node="b") == ["b[0] 1", "b[0] 2"]
    assert await shelf.all(since=2.0) == ["a 2", "a 3", "b[0] 2"]
    assert await shelf.all(attempt=2) == ["a 1"]
    assert await shelf.all(limit=4) == ["a 1", "a 2", "a 3", "a 1"]


@virtual
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100, 299, 300, 301])
async def test_pages_put_together_are_the_whole(limit: int) -> None:
    shelf = Shelf()
    await shelf.begin()
    for number in range(100):
        await shelf.say(f"n{number % 3}", 3 * number + 1, 20, 20, 20)
    found: list[LogLine] = []
    cursor, pages = None, 0
    while True:
        page = await shelf.reader.page(TASK, limit=limit, cursor=cursor)
        assert len(page.lines) <= limit
        found += page.lines
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break

    assert [line.sequence for line in found] == list(range(1, 301))
    assert pages == -(-300 // limit)


@virtual
async def test_a_rare_line_far_behind_others_is_found() -> None:
    shelf = Shelf()
    await shelf.begin()
    for number in range(500):
        # The block may hold an error by its level, and hold none.
        await shelf.say("a", number + 1, 40 if number == 444 else 20)

    page = await shelf.reader.page(TASK, level="error", limit=1)
    assert ([line.sequence for line in page.lines], page.cursor) == ([445], None)


@virtual
async def test_following_gives_what_comes_until_the_task_has_ended_and_is_quiet() -> None:
    shelf = Shelf()
    await shelf.begin()
    await shelf.say("a", 1, 20)
    heard: list[tuple[float, str]] = []

    async def follow() -> None:
        async for line in shelf.reader.lines(TASK, follow=True):
            heard.append((asyncio.get_running_loop().time(), line.message))

    began = asyncio.get_running_loop().time()
    following = asyncio.create_task(follow())
    await asyncio.sleep(20)
    await shelf.say("a", 2, 20, 20)
    await asyncio.sleep(2)
    await shelf.end()
    await asyncio.sleep(1)
    await shelf.say("b", 1, 20)  # said before the end, and late
    await asyncio.wait_for(following, 30)

    assert [message for _, message in heard] == ["a 1", "a 2", "a 3", "b 1"]
    assert 20 <= heard[1][0] - began <= 21.1


@virtual
async def test_nobody_reads_of_a_task_that_is_not_there() -> None:
    shelf = Shelf()
    with pytest.raises(TaskNotFound):
        await shelf.all()
    await shelf.begin(tenant="acme")
    with pytest.raises(TaskNotFound):
        await shelf.reader.page(TASK)
    other = Shelf()
    await other.begin()
    await other.end(DELETED)
    with pytest.raises(TaskNotFound):
        await other.all(follow=True)


@virtual
async def test_what_makes_no_sense_is_refused_with_a_word_of_help() -> None:
    shelf = Shelf()
    await shelf.begin()
    with pytest.raises(ValueError, match="no level 'warn'"):
        await shelf.all(level="warn")
    with pytest.raises(ValueError, match="limit is a whole number"):
        await shelf.reader.page(TASK, limit=0)
    with pytest.raises(ValueError, match="not a cursor"):
        await shelf.reader.page(TASK, cursor="x")


def test_a_trace_id_is_the_tasks_own() -> None:
    assert trace_id_of(TASK)[:16] == TASK.replace("-", "")[:16]
    assert len(trace_id_of("any \ud800")) == 32
    assert trace_id_of("a") != trace_id_of("b")
