"""The coordinator as older code uses it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.clock import ManualClock, SystemClock
from flowkit.coordinator.adapters import AdapterError, default_adapters
from flowkit.errors import GraphError
from flowkit.worker import Batch, BatchResult, EchoHandler, RoleHandler, Worker
from tests.compat.conftest import House

HELLO = {
    "nodes": [{"node_id": "process_data", "type": "processor", "io": {"input_inline": {"data": "hello world"}}}],
    "edges": [],
}


class MyHandler(RoleHandler):
    role = "processor"

    async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
        return BatchResult(success=True, metrics={"length": len(batch.payload["input_inline"]["data"])})


async def test_the_documented_example_runs(any_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", any_house.settings.get("kafka_bootstrap", "nowhere:9092"))
    monkeypatch.setenv("FLOWKIT_TOPIC_PREFIX", any_house.settings.get("topic_prefix", "flowkit."))
    mongo_db = any_house.db

    # fmt: off
    coordinator = Coordinator(db=mongo_db, cfg=CoordinatorConfig())
    worker = Worker(db=mongo_db, cfg=WorkerConfig(roles=["processor"]), handlers={"processor": MyHandler()})
    await coordinator.start(); await worker.start()  # noqa: E702
    task_id = await coordinator.create_task(params={}, graph={
        "nodes": [{"node_id": "process_data", "type": "processor", "io": {"input_inline": {"data": "hello world"}}}],
        "edges": []})
    # fmt: on
    result = await coordinator.wait_task(task_id, timeout=30)
    await worker.stop()
    await coordinator.stop()

    assert result.status == "finished"
    assert result.outputs == {"process_data": {"metrics": {"length": 11}}}


async def test_a_task_id_is_a_uuid(house: House) -> None:
    async with house.coordinator() as coordinator:
        task_id = await coordinator.create_task(params={}, graph=HELLO)

    assert str(uuid.UUID(task_id)) == task_id


async def test_a_restart_goes_on_with_what_was_there(any_house: House) -> None:
    coordinator, worker = any_house.coordinator(), any_house.worker({"processor": MyHandler()})
    await coordinator.start()
    task_id = await coordinator.create_task(params={}, graph=HELLO)
    await coordinator.restart()
    await worker.start()

    assert (await coordinator.wait_task(task_id, timeout=30)).status == "finished"

    await worker.stop()
    await coordinator.stop()


@pytest.mark.parametrize("verb", ["cancel_task", "cascade_cancel"])
async def test_cancelling_answers_at_once_and_ends_the_task(house: House, verb: str) -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        begun.set()
        await asyncio.sleep(60)

    graph = {"nodes": [{"node_id": "a", "type": "slow"}, {"node_id": "b", "type": "slow", "depends_on": ["a"]}]}
    async with house.coordinator() as coordinator, house.worker({"slow": slow}):
        task_id = await coordinator.create_task(params={}, graph=graph)
        await begun.wait()
        async with asyncio.timeout(30):
            assert await getattr(coordinator, verb)(task_id, reason="enough") is True
        result = await coordinator.wait_task(task_id, timeout=60)
        view = await coordinator.get_task(task_id)

    assert (result.status, view.reason) == ("cancelled", "enough")
    assert {name: node.state for name, node in view.nodes.items()} == {"a": "cancelled", "b": "cancelled"}


async def test_cancelling_an_unknown_task_is_false(house: House) -> None:
    async with house.coordinator() as coordinator:
        assert await coordinator.cancel_task(str(uuid.uuid4())) is False
        assert await coordinator.cascade_cancel(str(uuid.uuid4()), reason="x") is False


def test_its_parts_can_be_looked_at(house: House) -> None:
    cfg = CoordinatorConfig(worker_types=["processor"])
    coordinator = Coordinator(db=house.db, cfg=cfg)

    assert coordinator.db is house.db
    assert coordinator.cfg.worker_types == ["processor"]
    assert coordinator.cfg is not cfg, "settings are copied"
    assert isinstance(coordinator.clock, SystemClock)
    assert coordinator.bus is not None
    assert "vars.set" in coordinator.adapters


def test_a_clock_may_be_given(house: House) -> None:
    clock = ManualClock(start_ms=5)

    assert house.coordinator(clock=clock).clock is clock
    assert house.worker({"processor": MyHandler()}, clock=clock).clock is clock


async def test_worker_types_may_be_given_in_short(house: House) -> None:
    coordinator = house.coordinator(worker_types=["processor", "indexer"])

    assert coordinator.cfg.worker_types == ["processor", "indexer"]
    async with coordinator:
        await coordinator.create_task(params={}, graph=HELLO)
        with pytest.raises(GraphError, match=r"'indexr' is not one of worker_types \(did you mean 'indexer'\?\)"):
            await coordinator.create_task(params={}, graph={"nodes": [{"node_id": "a", "type": "indexr"}]})


# ------------------------------------------------------------------------------------------ functions of one's own


def call(node_id: str, fn: str, **fn_args: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "coordinator_fn", "io": {"fn": fn, "fn_args": fn_args}}


async def vars_echo(task_id: str, **kv: Any) -> dict[str, Any]:
    return {"ok": True, "task_id": task_id, "kv": kv}


async def test_a_function_of_ones_own_is_called_with_the_task_and_its_arguments(any_house: House) -> None:
    graph = {"nodes": [call("say", "vars.echo", a=1, b={"c": [2]})]}

    result = await any_house.run(graph, {"echo": EchoHandler()}, adapters={"vars.echo": vars_echo})

    assert result.output == {"ok": True, "task_id": result.task_id, "kv": {"a": 1, "b": {"c": [2]}}}


async def test_a_plain_function_may_block_and_its_output_goes_on(house: House) -> None:
    def measure(task_id: str, text: str) -> int:
        return len(text)

    nodes = [call("say", "measure", text="four"), {"node_id": "next", "type": "echo", "inputs": {"$from": "say"},
             "depends_on": ["say"]}]  # fmt: skip

    result = await house.run(
        {"nodes": nodes}, {"echo": EchoHandler()}, adapters={**default_adapters(), "measure": measure}
    )

    assert result.output == 4


async def test_a_function_that_refuses_fails_its_node_once(house: House) -> None:
    calls = []

    async def strict(task_id: str) -> None:
        calls.append(task_id)
        raise AdapterError("nothing to do", code="empty")

    result = await house.run({"nodes": [call("say", "strict")]}, {"echo": EchoHandler()}, adapters={"strict": strict})

    assert (result.status, result.error["code"], result.error["message"]) == ("failed", "empty", "nothing to do")
    assert len(calls) == 1


async def test_functions_are_there_again_after_a_restart(house: House) -> None:
    coordinator = house.coordinator(adapters={"vars.echo": vars_echo})
    async with coordinator:
        await coordinator.restart()
        task_id = await coordinator.create_task(params={}, graph={"nodes": [call("say", "vars.echo", a=1)]})
        assert (await coordinator.wait_task(task_id, timeout=60)).status == "finished"


async def test_a_coordinator_whose_functions_cannot_be_served_does_not_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Worker) -> None:
        raise ConnectionError("no worker today")

    coordinator = house.coordinator(adapters={"vars.echo": vars_echo})
    with monkeypatch.context() as broken:
        broken.setattr(Worker, "start", refuse)
        with pytest.raises(ConnectionError, match="no worker today"):
            await coordinator.start()
    assert not coordinator.coordinating

    await coordinator.start()
    assert coordinator.coordinating
    await coordinator.stop()


async def test_the_functions_given_replace_the_built_in_ones(house: House) -> None:
    async with house.coordinator(adapters={"vars.echo": vars_echo}) as coordinator:
        assert list(coordinator.adapters) == ["vars.echo"]
        with pytest.raises(GraphError, match=r"E_ADAPTER_UNKNOWN at nodes\[0\].io.fn"):
            await coordinator.create_task(params={}, graph={"nodes": [call("a", "vars.set", x=1)]})


@pytest.mark.parametrize(
    "given", ["tests.compat.detector:ByName", "tests.compat.detector.by_name", "tests.compat.detector:make"]
)
def test_a_detector_may_be_named_by_an_import_string(house: House, given: str) -> None:
    coordinator = house.coordinator(sensitive_detector=given)

    assert coordinator.is_sensitive("db.password", "x")
    assert not coordinator.is_sensitive("db.user", "x")


async def test_the_tasks_document_is_found_by_its_id_and_says_the_status(pymongo_house: House) -> None:
    result = await pymongo_house.run(HELLO, {"processor": MyHandler()})

    async with asyncio.timeout(60):  # the document may lag behind the task by a second
        while (document := await pymongo_house.db.tasks.find_one({"id": result.task_id}))["status"] != "finished":
            await asyncio.sleep(0.05)

    assert document["_id"] == result.task_id
