"""How far streams are is told while they run: of each edge, now and then, and only to whoever listens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

from flowkit import Embedded, WorkerConfig
from flowkit.coordinator.stream_progress import TELL_SEC, Flow
from flowkit.coordinator.watch import STREAMED, TaskEvent
from flowkit.wire.events import EdgeProgress, Event, decode_event, encode_progress, progress_headers


async def numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i
        await asyncio.sleep(0.005)


async def passed(rows: AsyncIterator[int]) -> AsyncIterator[int]:
    async for row in rows:
        yield row


async def total(rows: AsyncIterator[int]) -> int:
    return sum([row async for row in rows])


EDGE = ("a", "b")
EARLY = {"start_when": "first_batch"}
GRAPH: dict[str, Any] = {
    "nodes": [
        {"node_id": "make", "type": "numbers", "inputs": {"n": 400}},
        {"node_id": "pass", "type": "passed", "inputs": {"rows": {"$stream": "make"}}, **EARLY},
        {"node_id": "sum", "type": "total", "inputs": {"rows": {"$stream": "pass"}}, **EARLY},
    ]
}


async def watched(**cfg: Any) -> tuple[list[TaskEvent], list[Event], list[TaskEvent]]:
    """What a watcher of a whole run saw, what the world was told of streams, and what a watcher after it sees."""
    told: list[Event] = []
    async with Embedded(handlers=[numbers, passed, total], worker_cfg=WorkerConfig(**cfg)) as engine:
        runtime = engine.coordinator.runtime
        tail = await runtime.bus.tail(runtime.topics.events)
        task = await engine.submit(GRAPH)
        events = [event async for event in task.watch()]
        while records := await tail.fetch(0.1):
            told += [event for event in map(decode_event, [record.value for record in records]) if event.streams]
        await tail.stop()
        again = [event async for event in task.watch()]
    return events, told, again


async def test_a_watcher_sees_every_edge_move_at_most_once_a_second() -> None:
    events, told, again = await watched(heartbeat_sec=0.1)
    flowing = [event for event in events if event.type == STREAMED]
    seconds = events[-1].at - events[0].at

    assert {(event.data["source"], event.node_id) for event in flowing} == {("make", "pass"), ("pass", "sum")}
    for source in ("make", "pass"):
        of_edge = [event for event in flowing if event.data["source"] == source]
        assert 2 <= len(of_edge) <= seconds / TELL_SEC + 1  # though heartbeats come ten times a second
        assert all(after.at - before.at >= 0.95 * TELL_SEC for before, after in pairwise(of_edge))
        made = [event.data["produced"] for event in of_edge]
        read = [event.data["consumed"] for event in of_edge]
        assert made == sorted(set(made))
        assert read == sorted(read)
        assert all(event.data["lag"] == event.data["produced"] - event.data["consumed"] >= 0 for event in of_edge)
    assert {(edge.source, edge.reader) for event in told for edge in event.streams} == {
        ("make", "pass"),
        ("pass", "sum"),
    }
    assert len(told) <= seconds / TELL_SEC + 1
    assert [event.type for event in again] == [event.type for event in events if event.type != STREAMED]


def test_an_edge_is_told_as_its_reader_sees_it_once_that_has_read_something() -> None:
    flow = Flow(0)
    flow.made(EDGE, 100)
    assert flow.edges == {EDGE: (100, 0)}
    flow.read(EDGE, 120, 70)
    flow.made(EDGE, 900)  # the reader has read on as well, but has not said so yet
    assert flow.edges == {EDGE: (120, 70)}


def test_an_attempt_that_reads_again_takes_nothing_back() -> None:
    flow = Flow(0)
    flow.read(EDGE, 120, 70)
    flow.new.clear()
    flow.read(EDGE, 120, 10)
    assert flow.edges == {EDGE: (120, 70)}
    assert not flow.new


def test_an_event_about_streams_is_read_as_it_was_written() -> None:
    event = Event("t", "acme", 7, 1700000000.5, "", "running", [], [EdgeProgress("a", "b", 12, 5)])
    assert decode_event(encode_progress(event)) == event
    headers = dict(progress_headers(event))
    assert headers["ce_type"] == b"flowkit.task.streams.v1"
    assert headers["ce_id"] == b"t:7:1700000000.500000"
