"""Where handlers are in the same process, what cannot fit them is refused before anything runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit import Client, Embedded, GraphError, Worker
from flowkit.backend import temporary_backend


def greet(name: str) -> str:
    return f"hello {name}"


def grete(nmae: str) -> str:
    return nmae


HELLO = {"nodes": [{"node_id": "hi", "type": "greet"}]}


async def test_the_first_task_already_is_held_against_the_handlers() -> None:
    async with Embedded(handlers=[greet]) as engine:
        with pytest.raises(GraphError, match=r"E_INPUTS at params: .* does not take nmae \(did you mean 'name'\?\)"):
            await engine.submit(HELLO, params={"nmae": "Ada"})
        assert (await (await engine.submit(HELLO, params={"name": "Ada"})).result()).output == "hello Ada"


async def test_an_embedded_engine_gives_handles_and_results_by_id() -> None:
    async with Embedded(handlers=[greet]) as engine:
        task = await engine.submit(HELLO, params={"name": "Ada"})

        assert (await engine.wait_task(task.id, timeout=20)).output == "hello Ada"
        assert await engine.task(task.id).status() == "finished"


async def test_a_handler_that_takes_nothing_is_given_nothing_of_what_came_before_it() -> None:
    def notify() -> str:
        return "done"

    graph: Any = {"nodes": [{"node_id": "first", "type": "notify"}, {"node_id": "hi", "type": "greet"},
                       {"node_id": "last", "type": "notify", "depends_on": ["hi", "first"]},
                       {"node_id": "after", "type": "notify", "depends_on": ["last"]}]}  # fmt: skip
    async with Embedded(handlers=[greet, notify]) as engine:
        task = await engine.submit(graph, params={"name": "Ada"})
        assert (await task.result(20)).output == "done"
        graph["nodes"][3]["inputs"] = {"x": 1}
        with pytest.raises(GraphError, match="does not take x"):
            await engine.submit(graph, params={"name": "Ada"})


async def test_a_reason_that_no_store_could_keep_cancels_all_the_same() -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    async with Embedded(handlers=[wait]) as engine:
        task = await engine.submit({"nodes": [{"node_id": "a", "type": "wait"}]})
        assert await task.cancel(reason="no\ud800")
        assert (await task.wait(20)).error == {"code": "cancelled", "message": "no\\ud800"}


async def test_a_client_knows_the_handlers_of_its_process_as_long_as_they_are_there() -> None:
    backend = temporary_backend()
    async with Client(backend=backend) as client, Worker(handlers=[greet], backend=backend) as worker:
        with pytest.raises(GraphError):
            await client.create_task(graph=HELLO, params={"nmae": "Ada"})
        async with Worker(handlers={"greet": grete}, backend=backend):
            assert await client.create_task(graph=HELLO, params={"nmae": "Ada"})  # one of the two may take it
        await worker.stop()
        assert await client.create_task(graph=HELLO, params={"nmae": "Ada"})
