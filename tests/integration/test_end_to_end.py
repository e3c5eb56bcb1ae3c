"""What the documents say, on a real Kafka and a real MongoDB, through the public API alone."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

import flowkit
from flowkit import Context, Coordinator, CoordinatorConfig, Creation, Worker, WorkerConfig
from flowkit.errors import GraphError, IdempotencyConflict, RequestRefused, TaskFailed, TaskNotFound, WaitTimeout
from flowkit.worker import BatchResult, RoleHandler
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    # Sockets that the drivers drop when they are stopped in the middle of something.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


# ------------------------------------------------------------------------------------------ the documented example


class MyHandler(RoleHandler):
    async def process_batch(self, batch: Any, ctx: Any) -> BatchResult:
        return BatchResult(success=True, metrics={"length": len(batch.payload["input_inline"]["data"])})


@asynccontextmanager
async def pymongo_database(url: str, name: str) -> AsyncIterator[Any]:
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(url) as client:
        yield client[name]
        await client.drop_database(name)


@asynccontextmanager
async def motor_database(url: str, name: str) -> AsyncIterator[Any]:
    from motor.motor_asyncio import AsyncIOMotorClient

    client = AsyncIOMotorClient(url)
    yield client[name]
    await client.drop_database(name)
    client.close()


async def quick_example(mongo_db: Any) -> Any:
    # fmt: off
    coordinator = Coordinator(db=mongo_db, cfg=CoordinatorConfig())
    worker = Worker(db=mongo_db, cfg=WorkerConfig(roles=["processor"]), handlers={"processor": MyHandler()})
    await coordinator.start(); await worker.start()  # noqa: E702
    task_id = await coordinator.create_task(params={}, graph={
        "nodes": [{"node_id": "process_data", "type": "processor", "io": {"input_inline": {"data": "hello world"}}}],
        "edges": []})
    # fmt: on
    result = await coordinator.wait_task(task_id, timeout=60)
    await worker.stop()
    await coordinator.stop()
    return result


@pytest.mark.xdist_group("default_names")  # of topics
@pytest.mark.parametrize("database", [pymongo_database, motor_database], ids=["pymongo", "motor"])
async def test_the_documented_example_runs_verbatim(
    database: Any, kafka_address: str, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_address)
    async with database(mongo_url, "flowkit_quick_example") as mongo_db:
        result = await quick_example(mongo_db)
    assert result.status == "finished", result.error
    assert result.outputs == {"process_data": {"metrics": {"length": 11}}}


# ------------------------------------------------------------------------------------------ what graphs do


class Flaky:
    """Fails so many times, each key for itself, and then works."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.attempts: Counter[str] = Counter()

    async def __call__(self, ctx: Context) -> int:
        self.attempts[ctx.idempotency_key] += 1
        if ctx.attempt <= self._failures:
            raise ConnectionError(f"attempt {ctx.attempt} has no luck")
        return ctx.attempt


async def double(i: int) -> int:
    return 2 * i


def total(inputs: dict[str, int]) -> int:
    return sum(inputs.values())


async def nap(sec: float = 0.0) -> float:
    await asyncio.sleep(sec)
    return sec


async def hang() -> None:
    """Until it is cancelled."""
    await asyncio.Event().wait()


async def refuse() -> None:
    raise ValueError("there is no such invoice")


async def add(n: int, by: int = 1) -> dict[str, int]:
    return {"n": n + by}


HANDLERS = {"double": double, "total": total, "nap": nap, "hang": hang, "refuse": refuse, "add": add}
QUICK_RETRY = {"max": 3, "backoff_sec": 0.05, "jitter": False}


@asynccontextmanager
async def running(site: Site, handlers: Any = HANDLERS, **settings: Any) -> AsyncIterator[Coordinator]:
    async with site.coordinator() as coordinator, site.worker(handlers, **settings):
        yield coordinator


def fan(width: int) -> dict[str, Any]:
    nodes = [{"node_id": f"n{i}", "type": "double", "inputs": {"i": i}} for i in range(width)]
    join = {"node_id": "sum", "type": "total", "depends_on": [node["node_id"] for node in nodes]}
    return {"nodes": [*nodes, join]}


def chain(*nodes: dict[str, Any]) -> dict[str, Any]:
    named = [node["node_id"] for node in nodes]
    return {"nodes": list(nodes), "edges": [list(pair) for pair in pairwise(named)]}


def napping(sec: float, node_id: str = "nap") -> dict[str, Any]:
    return {"node_id": node_id, "type": "nap", "inputs": {"sec": sec}}


HANGING = {"nodes": [{"node_id": "hang", "type": "hang"}]}


def waiting(*names: str) -> dict[str, Any]:
    """A chain of nodes that run until the test opens the gate of `Gate`."""
    return chain(*({"node_id": name, "type": "wait", "inputs": {}} for name in names))


class Gate(asyncio.Event):
    """What keeps nodes running for as long as a test needs them to, however long that takes."""

    @property
    def handlers(self) -> dict[str, Any]:
        async def wait() -> None:
            await self.wait()

        return {"wait": wait}


async def test_a_fan_out_and_fan_in_gives_every_result_once(site: Site) -> None:
    async with running(site) as coordinator:
        task_id = await coordinator.create_task(graph=fan(100))
        result = await coordinator.wait_task(task_id, timeout=60)
    assert result.status == "finished", result.error
    assert result.output == sum(2 * i for i in range(100))
    assert result.outputs["n7"] == 14
    assert len(result.outputs) == 101


async def test_a_chain_hands_its_outputs_on(site: Site) -> None:
    nodes = [{"node_id": f"n{i}", "type": "add"} for i in range(10)]
    async with running(site) as coordinator:
        task_id = await coordinator.create_task(graph=chain(*nodes), params={"n": 5})
        result = await coordinator.wait_task(task_id, timeout=60)
    assert result.output == {"n": 15}


async def test_a_failing_node_is_tried_again_until_it_works(site: Site) -> None:
    flaky = Flaky(2)
    graph = {"nodes": [{"node_id": "call", "type": "flaky", "retry_policy": QUICK_RETRY}]}
    async with running(site, {"flaky": flaky}) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        result = await coordinator.wait_task(task_id, timeout=60)
        view = await coordinator.get_task(task_id)
    assert (result.status, result.output) == ("finished", 3)
    assert view.nodes["call"].attempts == 3
    assert list(flaky.attempts) == [f"{task_id}:0:call"], "every attempt has the same idempotency key"


async def test_a_node_that_fails_for_good_fails_its_task_and_says_where(site: Site) -> None:
    graph = {
        "nodes": [
            {"node_id": "call", "type": "flaky", "retry_policy": QUICK_RETRY},
            {"node_id": "after", "type": "nap", "depends_on": ["call"]},
            {"node_id": "apart", "type": "nap", "inputs": {}},
        ]
    }
    async with running(site, {**HANDLERS, "flaky": Flaky(99)}) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        result = await coordinator.wait_task(task_id, timeout=60)
        view = await coordinator.get_task(task_id)
        with pytest.raises(TaskFailed, match="call") as failed:
            await coordinator.task(task_id).result()
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error["node_id"], result.error["code"]) == ("call", "ConnectionError")
    assert "has no luck" in result.error["message"]
    assert view.nodes["call"].attempts == 3
    assert view.nodes["after"].state == "skipped"
    assert view.nodes["apart"].state == "finished"
    assert 'raise ConnectionError(f"attempt' in str(failed.value), "the handler's own traceback"


async def make_bytes(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


async def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def make_text(size: int) -> dict[str, Any]:
    return {"text": "äx" * (size // 2), "size": size}


async def measure(text: str, size: int) -> dict[str, int]:
    return {"length": len(text), "size": size}


async def test_bytes_and_large_payloads_travel_as_artifacts_and_come_back_whole(site: Site) -> None:
    size = 1_500_000
    graph = {
        "nodes": [
            {"node_id": "bytes", "type": "make_bytes", "inputs": {"size": size}},
            {"node_id": "digest", "type": "digest", "inputs": {"data": {"$from": "bytes"}}},
            {"node_id": "text", "type": "make_text", "inputs": {"size": 200_000}},
            {"node_id": "measure", "type": "measure", "depends_on": ["text"]},
            {"node_id": "given", "type": "measure", "inputs": {"text": "y" * 150_000, "size": 1}},
        ]
    }
    async with running(site, [make_bytes, digest, make_text, measure]) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        result = await coordinator.wait_task(task_id, timeout=30)
        view = await coordinator.get_task(task_id)
    assert result.status == "finished", result.error
    data = await make_bytes(size)
    assert result.outputs["bytes"] == data
    assert result.outputs["digest"] == hashlib.sha256(data).hexdigest()
    assert result.outputs["text"] == await make_text(200_000)
    assert result.outputs["measure"] == {"length": 200_000, "size": 200_000}
    assert result.outputs["given"] == {"length": 150_000, "size": 1}
    assert view.nodes["bytes"].output == data


# ------------------------------------------------------------------------------------------ steering


async def forever(ctx: Context, began: list[str], ended: list[str]) -> None:
    began.append(ctx.node_id)
    try:
        await asyncio.sleep(600)
    finally:
        ended.append(ctx.node_id)


async def test_a_cancel_returns_at_once_and_stops_what_runs(site: Site) -> None:
    began: list[str] = []
    ended: list[str] = []

    async def hang(ctx: Context) -> None:
        await forever(ctx, began, ended)

    graph = chain({"node_id": "a", "type": "hang"}, {"node_id": "b", "type": "hang"})
    async with running(site, {"hang": hang}) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        await until("the node runs", lambda: began)
        at = time.monotonic()
        assert await coordinator.cancel_task(task_id, reason="changed my mind")
        asked = time.monotonic() - at
        result = await coordinator.wait_task(task_id, timeout=60)
        view = await coordinator.get_task(task_id)
        assert await coordinator.cancel_task("no-such-task") is False
    assert result.status == "cancelled"
    assert asked < 10  # what runs may take half a minute to stop
    assert ended == ["a"]
    assert {name: node.state for name, node in view.nodes.items()} == {"a": "cancelled", "b": "cancelled"}
    assert view.reason == "changed my mind"


async def test_a_paused_task_places_nothing_until_it_is_resumed(site: Site) -> None:
    gate = Gate()
    async with running(site, gate.handlers) as coordinator:
        task_id = await coordinator.create_task(graph=waiting("n0", "n1", "n2"))
        await until("the first node runs", lambda: states(coordinator, task_id, "running"))
        await coordinator.pause_task(task_id, reason="lunch")
        gate.set()
        await until("the first node is through", lambda: states(coordinator, task_id, "finished"))
        with pytest.raises(WaitTimeout):
            await coordinator.wait_task(task_id, timeout=1.5)
        view = await coordinator.get_task(task_id)
        reasons = await coordinator.explain(task_id)
        await coordinator.resume_task(task_id)
        result = await coordinator.wait_task(task_id, timeout=60)
        with pytest.raises(RequestRefused):
            await coordinator.resume_task(task_id)
    assert view.status == "paused"
    assert [node.state for node in view.nodes.values()] == ["finished", "ready", "pending"]
    assert any(reason.code == "paused" for reason in reasons)
    assert result.status == "finished"


async def states(coordinator: Coordinator, task_id: str, state: str) -> list[str]:
    view = await coordinator.get_task(task_id)
    return [name for name, node in view.nodes.items() if node.state == state]


class Mended:
    """A role that fails for good until somebody mends it."""

    def __init__(self) -> None:
        self.broken = True
        self.runs: Counter[str] = Counter()

    async def __call__(self, ctx: Context) -> str:
        self.runs[ctx.node_id] += 1
        if self.broken and ctx.node_id == "b":
            raise flowkit.Permanent("not_yet", "mend me first")
        return f"{ctx.node_id}{self.runs[ctx.node_id]}"


async def test_a_restart_runs_what_failed_or_what_follows_a_node_or_everything(site: Site) -> None:
    role = Mended()
    graph = chain(*({"node_id": name, "type": "step", "inputs": {}} for name in "abc"))
    async with running(site, {"step": role}) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        assert (await coordinator.wait_task(task_id, timeout=60)).status == "failed"
        assert role.runs == {"a": 1, "b": 1}

        role.broken = False
        await coordinator.restart_task(task_id, failed_only=True)
        result = await coordinator.wait_task(task_id, timeout=60)
        assert result.outputs == {"a": "a1", "b": "b2", "c": "c1"}

        await coordinator.restart_task(task_id, from_node="c")
        result = await coordinator.wait_task(task_id, timeout=60)
        assert result.outputs == {"a": "a1", "b": "b2", "c": "c2"}

        await coordinator.restart_task(task_id)
        result = await coordinator.wait_task(task_id, timeout=60)
        assert result.outputs == {"a": "a2", "b": "b3", "c": "c3"}
        view = await coordinator.get_task(task_id)
        assert view.generation == 3

        with pytest.raises(RequestRefused):
            await coordinator.restart_task(task_id, from_node="z")


# ------------------------------------------------------------------------------------------ at the door


async def test_an_idempotency_key_gives_the_same_task_and_refuses_another(site: Site) -> None:
    async with running(site) as coordinator:
        first = await coordinator.create_task(graph=fan(2), params={"a": 1}, idempotency_key="order-17")
        again = await coordinator.create_task(graph=fan(2), params={"a": 1}, idempotency_key="order-17")
        with pytest.raises(IdempotencyConflict):
            await coordinator.create_task(graph=fan(2), params={"a": 2}, idempotency_key="order-17")
        await coordinator.wait_task(first, timeout=60)
        after = await coordinator.create_task(graph=fan(2), params={"a": 1}, idempotency_key="order-17")
        page = await coordinator.list_tasks()
    assert first == again == after
    assert len(page.heads) == 1


async def test_a_wrong_graph_is_refused_with_every_problem(site: Site) -> None:
    graph = {"nodes": [napping(1, "a"), {"node_id": "b", "type": "nap", "depends_on": ["aa"]}], "edges": [["b", "c"]]}
    async with running(site) as coordinator:
        with pytest.raises(GraphError) as refused:
            await coordinator.create_task(graph=graph)
        with pytest.raises(TaskNotFound):
            await coordinator.get_task("no-such-task")
        assert not (await coordinator.list_tasks()).heads
    assert len(refused.value.problems) == 2
    assert {problem.code for problem in refused.value.problems} == {"E_PARENT_UNKNOWN", "E_CHILD_UNKNOWN"}


async def test_inputs_that_no_worker_takes_are_refused_once_its_hello_has_come(site: Site) -> None:
    misspelt = {"nodes": [{"node_id": "a", "type": "add", "inputs": {"m": 1, "by": 2}}]}
    async with running(site) as coordinator:
        await until("the hello", lambda: any(coordinator.runtime.fleet.signatures_of("add")))
        with pytest.raises(GraphError) as caught:
            await coordinator.create_task(graph=misspelt)
        fits = await coordinator.create_task(graph=chain({"node_id": "a", "type": "add"}), params={"n": 1})
        assert (await coordinator.wait_task(fits, timeout=60)).output == {"n": 2}

    assert [(problem.code, problem.place) for problem in caught.value.problems] == [("E_INPUTS", "nodes[0].inputs")]


async def test_a_list_is_filtered_and_comes_in_pages(site: Site) -> None:
    async with running(site) as coordinator:
        graph = {"name": "etl", **fan(2)}
        many = [Creation(graph, labels={"team": "a" if i % 2 else "b"}) for i in range(25)]
        ids = await coordinator.create_tasks(many)
        other = await coordinator.create_task(graph=HANGING, labels={"team": "c"})
        for task_id in ids:
            await coordinator.wait_task(task_id, timeout=60)

        seen: list[Any] = []
        page = await coordinator.list_tasks(name="etl", limit=10)
        seen += page.heads
        while page.cursor is not None:
            page = await coordinator.list_tasks(name="etl", limit=10, cursor=page.cursor)
            seen += page.heads
        assert sorted(head.task_id for head in seen) == sorted(ids)
        newest_first = sorted(seen, key=lambda head: (head.created_at, head.task_id), reverse=True)
        assert seen == newest_first

        of_a = await coordinator.list_tasks(labels={"team": "a"})
        assert {head.task_id for head in of_a.heads} == set(ids[1::2])

        async def finished() -> bool:
            return len((await coordinator.list_tasks(status="finished")).heads) == 25

        await until("the heads say that 25 are finished", finished, timeout=60)
        running_now = await coordinator.list_tasks(status=["queued", "running"])
        assert [head.task_id for head in running_now.heads] == [other]
        with pytest.raises(ValueError, match="finished"):
            await coordinator.list_tasks(status="finishd")
        await coordinator.cancel_task(other)


# ------------------------------------------------------------------------------------------ explaining and watching


async def test_it_explains_why_a_node_does_not_run(site: Site) -> None:
    graph = chain({"node_id": "a", "type": "napp", "inputs": {}}, {"node_id": "b", "type": "nap", "inputs": {}})
    async with running(site) as coordinator:
        task_id = await coordinator.create_task(graph=graph)

        async def explained() -> list[Any]:
            # Which roles there are is known once the worker was heard of.
            reasons = await coordinator.explain(task_id)
            return reasons if any("did you mean" in reason.message for reason in reasons) else []

        reasons = await until("nobody serves the role, and the worker that serves others is known", explained)
        said = {reason.node_id: reason for reason in reasons}
        assert said["a"].code == "no_worker"
        assert "did you mean 'nap'" in said["a"].message
        assert said["b"].code == "waiting_for"
        with pytest.raises(WaitTimeout, match="no live worker serves 'napp'"):
            await coordinator.wait_task(task_id, timeout=0.5)


async def test_a_watch_tells_every_transition_and_ends_with_the_task(site: Site) -> None:
    async with running(site) as coordinator, site.coordinator() as other:
        task_id = await coordinator.create_task(graph=chain(napping(0.3, "a"), napping(0.3, "b")))
        async with asyncio.timeout(60):
            live, elsewhere = await asyncio.gather(collect(coordinator, task_id), collect(other, task_id))
            late = await collect(other, task_id)
            rest = [event async for event in coordinator.watch(task_id, since=late[-1].seq - 1)]
    assert live == elsewhere == late
    steps = [(event.type, event.node_id, event.to_state) for event in live if event.type != "started"]
    assert steps == [
        ("created", "", "running"),
        ("leased", "a", "running"),
        ("succeeded", "a", "finished"),
        ("leased", "b", "running"),
        ("succeeded", "b", "finished"),
        ("ended", "", "finished"),
    ]
    assert [event.seq for event in live] == sorted(event.seq for event in live)
    assert rest == [event for event in late if event.seq == late[-1].seq]


async def collect(coordinator: Coordinator, task_id: str) -> list[Any]:
    return [event async for event in coordinator.watch(task_id)]


# ------------------------------------------------------------------------------------------ several of each


async def test_two_coordinators_share_the_tasks_and_each_answers_for_all(site: Site) -> None:
    async with site.coordinator() as one, site.coordinator() as two, site.worker(HANDLERS), site.worker(HANDLERS):
        await until("they share the partitions", lambda: shared(one, two))
        ids = await one.create_tasks([Creation(fan(4)) for _ in range(100)])
        results = await asyncio.gather(*(two.wait_task(task_id, timeout=60) for task_id in ids))
        by = Counter(commit.by for commit in await one.runtime.store.read_commits(ids))
    assert [result.output for result in results] == [12] * 100
    assert len(by) == 2, by


async def test_a_coordinator_that_does_not_own_a_task_can_do_everything_with_it(site: Site) -> None:
    gate = Gate()
    async with site.coordinator() as one, site.coordinator() as two, site.worker(gate.handlers):
        await until("they share the partitions", lambda: shared(one, two))
        ids = await one.create_tasks([Creation(waiting("a", "b")) for _ in range(20)])

        async def owner_of(task_id: str) -> Coordinator:
            commits = await one.runtime.store.read_commits([task_id])
            return one if commits[0].by == one.runtime.coordinator_id else two

        await until("all have begun", lambda: all_begun(one, ids))
        strangers = {task_id: two if await owner_of(task_id) is one else one for task_id in ids}
        assert set(strangers.values()) == {one, two}

        paused = ids[:5]
        for task_id in paused:
            await strangers[task_id].pause_task(task_id)
            assert (await strangers[task_id].get_task(task_id)).status == "paused"
        for task_id in ids[5:10]:
            assert await strangers[task_id].cancel_task(task_id)
        for task_id in paused:
            await strangers[task_id].resume_task(task_id)
        gate.set()  # until now none of them could end
        results = await asyncio.gather(*(strangers[task_id].wait_task(task_id, timeout=60) for task_id in ids))
        assert [result.status for result in results] == ["finished"] * 5 + ["cancelled"] * 5 + ["finished"] * 10

        await strangers[ids[0]].restart_task(ids[0], from_node="b")
        assert (await strangers[ids[0]].wait_task(ids[0], timeout=60)).status == "finished"
        assert (await strangers[ids[0]].get_task(ids[0])).generation == 1


def shared(one: Coordinator, two: Coordinator) -> bool:
    mine, yours = one.runtime.engine.owned, two.runtime.engine.owned
    return bool(mine and yours and not mine & yours and len(mine | yours) == one.cfg.facts_partitions)


async def all_begun(coordinator: Coordinator, ids: list[str]) -> bool:
    views = await asyncio.gather(*(coordinator.get_task(task_id) for task_id in ids))
    return all(view.seq > 0 for view in views)


async def test_a_client_that_coordinates_nothing_can_create_wait_and_steer(site: Site) -> None:
    async with running(site), site.client() as client:
        first = await client.create_task(graph=fan(3))
        assert (await client.wait_task(first, timeout=60)).output == 6
        second = await client.create_task(graph=HANGING)
        assert await client.cancel_task(second)
        assert (await client.wait_task(second, timeout=60)).status == "cancelled"
        await client.restart_task(first)
        assert (await client.wait_task(first, timeout=60)).output == 6


async def test_a_coordinator_that_leaves_hands_its_tasks_to_the_other_without_a_second_run(site: Site) -> None:
    runs: Counter[str] = Counter()

    left = asyncio.Event()

    async def slow(ctx: Context) -> None:
        runs[ctx.idempotency_key] += 1
        await left.wait()

    graph = chain({"node_id": "a", "type": "slow"}, {"node_id": "b", "type": "slow", "inputs": {}})
    async with site.coordinator() as one, site.worker({"slow": slow}):
        two = site.coordinator()
        await two.start()
        await until("they share the partitions", lambda: shared(one, two))
        ids = await one.create_tasks([Creation(graph) for _ in range(12)])
        await until("all have begun", lambda: len(runs) == 12)
        await two.stop()
        left.set()
        results = await asyncio.gather(*(one.wait_task(task_id, timeout=60) for task_id in ids))
    assert {result.status for result in results} == {"finished"}
    assert set(runs.values()) == {1}, runs
    assert len(runs) == 24
