"""What users do wrong with the engine in their process is said at once, with what to do."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.adapters.memory import MemoryBus
from flowkit.errors import ConfigError, GraphError
from flowkit.wire.events import decode_event

GRAPH = {"nodes": [{"node_id": "a", "type": "greet"}]}


def greet(name: str = "") -> str:
    return name


async def test_run_says_what_to_write_where_a_loop_runs_already(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ConfigError, match=r"an event loop runs here already .*: write await flowkit.arun"):
        flowkit.run(GRAPH, handlers=[greet])

    assert not recwarn.list  # no coroutine was left unawaited


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ({"slots": 2}, r"cfg is a WorkerConfig, not a dict: WorkerConfig\(\*\*cfg\) makes one of it"),
        (flowkit.CoordinatorConfig(), "cfg is a WorkerConfig, not a CoordinatorConfig"),
    ],
)
def test_settings_of_another_kind_are_refused(cfg: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        flowkit.Worker(cfg=cfg, handlers=[greet])
    with pytest.raises(ConfigError, match="cfg is a CoordinatorConfig, not a WorkerConfig"):
        flowkit.Coordinator(cfg=flowkit.WorkerConfig())  # type: ignore[arg-type]


async def test_targets_are_a_list() -> None:
    async with flowkit.Embedded(handlers=[greet]) as engine:
        with pytest.raises(
            GraphError, match=r"E_TYPE at targets: expected a list of node ids, found 'a'; write \['a'\]"
        ):
            await engine.submit(GRAPH, targets="a")


async def test_a_graph_as_text_is_told_from_one_that_was_read() -> None:
    async with flowkit.Embedded(handlers=[greet]) as engine:
        with pytest.raises(GraphError, match=r"it is the text of one: json.loads\(text\) reads it"):
            await engine.submit('{"nodes": []}')


async def test_a_coordinator_that_was_told_to_end_hears_no_more_signals() -> None:
    running = asyncio.create_task(flowkit.Coordinator().run_forever())
    async with asyncio.timeout(30):
        while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await running

    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("timeout", ["5", True])
async def test_a_timeout_that_is_no_number_is_named(tmp_path: Path, timeout: Any) -> None:
    async with flowkit.Embedded(tmp_path / "flow.db") as engine:
        with pytest.raises(TypeError, match="timeout is a number of seconds, or None to wait for ever, not "):
            await engine.wait_task("t", timeout)


async def test_events_are_made_from_when_on_somebody_reads_them_and_heads_do_not_wait_for_them() -> None:
    async with flowkit.Embedded(handlers=[greet]) as engine:
        runtime = engine.coordinator.runtime
        topic, bus = runtime.topics.events, engine.coordinator.bus
        first = await engine.coordinator.create_task(graph=GRAPH, params={"name": "Ada"})
        assert (await engine.coordinator.wait_task(first, 30)).output == "Ada"
        await _at_rest(engine, first)
        assert isinstance(bus, MemoryBus)
        assert [log.end for log in bus.broker.logs(topic) if log.end] == []

        tail = await bus.tail(topic)
        second = await engine.coordinator.create_task(graph=GRAPH, params={"name": "Bob"})
        await engine.coordinator.wait_task(second, 30)
        await _at_rest(engine, second)
        events = [decode_event(record.value) for record in await tail.fetch(0)]

        assert {event.task_id for event in events} == {second}
        assert [event.seq for event in events] == list(range(1, events[-1].seq + 1))
        assert events[-1].status == "finished"


async def _at_rest(engine: flowkit.Embedded, task_id: str) -> None:
    """Its head says that it has ended, and that the world has been told everything."""
    async with asyncio.timeout(30):
        while True:
            (head,) = await engine.coordinator.runtime.store.read_heads([task_id])
            if not head.active and head.published_seq == head.seq:
                return
            await asyncio.sleep(0.05)


async def test_a_task_that_has_ended_is_freed_at_once() -> None:
    """Not only when Python looks at all objects, which it does when nothing else is to be done."""
    items = [{"node_id": "make", "type": "make"}, {"node_id": "each", "type": "greet", "foreach": {"$from": "make"}}]
    items[1] |= {"inputs": {"name": {"$item": ""}}}
    freed: list[weakref.ref[Any]] = []
    async with flowkit.Embedded(handlers={"greet": greet, "make": lambda: [str(n) for n in range(500)]}) as engine:
        cells = engine.coordinator.runtime.engine
        adopt = cells.adopt

        def watched(head: Any, graph: Any) -> None:
            adopt(head, graph)
            freed.append(weakref.ref(cells.cells[head.task_id].task.runs))  # type: ignore[union-attr]

        cells.adopt = watched  # type: ignore[method-assign]
        gc.disable()
        try:
            for graph in (GRAPH, {"nodes": items}):
                assert (await engine.wait_task((await engine.submit(graph)).id, 30)).ok
            async with asyncio.timeout(10):
                while any(one() is not None for one in freed):
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()
    assert len(freed) == 2
