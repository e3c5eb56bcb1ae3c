"""Sub-graphs on several coordinators: steered along with their parent, and heard of whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from flowkit.adapters.mongo import MongoStore
from flowkit.client import Client
from flowkit.core import facts as f
from flowkit.ports import Head
from flowkit.wire.facts import decode_facts
from tests.integration.harness.ledger import Ledger
from tests.integration.harness.processes import Cluster
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

CHILDREN = 100
PARTITIONS = 8
SEVERAL = 32
"""Their ids are as good as random: of a million such families, not one has all its children on half of the
partitions."""
HEARD_SEC = 30.0
"""A dead coordinator's session ends after six seconds; what it left undone is done within a few more, or some more on a
busy machine: it is not left to whoever comes by."""


@pytest.fixture
async def cluster(site: Site, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two coordinators and two workers, each a process."""
    ledger = Ledger(tmp_path / "ledger")
    with Cluster(site, tmp_path, ledger.path) as made:
        await made.start(coordinators=2, workers=2)
        yield made


def parent(items: list[int], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    many = {"node_id": "many", "type": "task", "graph": {"nodes": nodes}, "foreach": items}
    return {"nodes": [{**many, "inputs": {"n": {"$item": ""}}}]}


def step(sec: float, **more: Any) -> dict[str, Any]:
    return {"node_id": "step", "type": "step", "inputs": {"sec": sec, "n": {"$param": "n"}}, **more}


async def children_of(client: Client, task_id: str) -> list[Head]:
    return list((await client.list_tasks(parent=task_id, limit=1000)).heads)


async def all_are(client: Client, task_id: str, status: str, count: int) -> bool:
    return [head.status for head in await children_of(client, task_id)].count(status) == count


@pytest.mark.timeout(240)
async def test_children_elsewhere_are_paused_resumed_cancelled_and_restarted_along(
    site: Site, cluster: Cluster
) -> None:
    gate = {"node_id": "gate", "type": "signal", "inputs": {"name": "go"}}
    graph = parent(list(range(SEVERAL)), [gate, step(0.05, depends_on=["gate"])])
    async with site.client() as client:
        task_id = await client.create_task(graph=graph)
        await until("all run", lambda: all_are(client, task_id, "running", SEVERAL))
        # So both coordinators have some.
        assert len({head.partition for head in await children_of(client, task_id)}) > PARTITIONS // 2

        await client.pause_task(task_id)
        await until("all are paused", lambda: all_are(client, task_id, "paused", SEVERAL))
        await client.resume_task(task_id)
        await until("all run again", lambda: all_are(client, task_id, "running", SEVERAL))
        await client.cancel_task(task_id, reason="enough")
        assert (await client.wait_task(task_id, timeout=30)).status == "cancelled"
        await until("all are cancelled", lambda: all_are(client, task_id, "cancelled", SEVERAL))

        assert await client.restart_task(task_id)
        await until("others run", lambda: all_are(client, task_id, "running", SEVERAL))
        for head in await children_of(client, task_id):
            if head.status == "running":
                await client.signal_task(head.task_id, "go")
        result = await client.wait_task(task_id, timeout=30)
    assert result.output == [{"n": n + 1} for n in range(SEVERAL)]


@pytest.mark.timeout(240)
async def test_children_go_on_where_they_stopped_though_a_coordinator_dies_as_they_are_asked(
    site: Site, cluster: Cluster
) -> None:
    gate = {"node_id": "gate", "type": "signal", "inputs": {"name": "go"}, "depends_on": ["step"]}
    give = {
        "node_id": "give",
        "type": "step",
        "inputs": {"sec": 0.05, "n": {"$from": "step.n"}},
        "depends_on": ["gate"],
    }
    ledger = Ledger(cluster.ledger)

    def all_waited() -> bool:
        ledger.look()
        return sum(run.how == "done" for run in ledger.runs) == 12

    async with site.client() as client:
        task_id = await client.create_task(graph=parent(list(range(12)), [step(0.05), gate, give]))
        await until("all wait at the gate", all_waited, timeout=30)
        await client.cancel_task(task_id, reason="not now")
        assert (await client.wait_task(task_id, timeout=30)).status == "cancelled"

        plan = await client.plan_restart(task_id, failed_only=True)
        assert {(child.fate, child.plan.again if child.plan else None) for child in plan.children} == {
            ("goes on", frozenset({"gate", "give"}))
        }
        assert await client.restart_task(task_id, failed_only=True)
        cluster.parts["c0"].kill()
        await until("all run again", lambda: all_have_gone_on(client, task_id, 12), timeout=40)
        for head in await children_of(client, task_id):
            await client.signal_task(head.task_id, "go")
        result = await client.wait_task(task_id, timeout=60)
        children = await children_of(client, task_id)

    assert result.output == [{"n": n + 2} for n in range(12)]
    assert len(children) == 12, "no child is new"
    ledger.look()
    assert {len(runs) for runs in ledger.by_key().values()} == {1}, "what had finished in them did not run again"


async def all_have_gone_on(client: Client, task_id: str, count: int) -> bool:
    """By their commits: heads lag, and may still say that a child runs that was cancelled."""
    views = [await client.get_task(head.task_id) for head in await children_of(client, task_id)]
    return [view.status for view in views] == ["running"] * count and all(view.generation for view in views)


@pytest.mark.timeout(240)
async def test_a_coordinator_that_dies_amid_a_hundred_children_costs_none_of_them(
    site: Site, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(cluster.ledger)

    def some_are_done() -> bool:
        ledger.look()
        return sum(run.how == "done" for run in ledger.runs) >= CHILDREN // 5

    async with site.client() as client:
        task_id = await client.create_task(graph=parent(list(range(CHILDREN)), [step(1.0)]))
        await until("some children are done", some_are_done, timeout=60)
        killed_at = cluster.parts["c0"].kill()
        result = await client.wait_task(task_id, timeout=60)
        late = await seconds_until_heard(site, task_id)

    assert result.output == [{"n": n + 1} for n in range(CHILDREN)]
    ledger.look()
    assert len(ledger.by_key()) == CHILDREN
    assert {len(runs) for runs in ledger.by_key().values()} == {1}, "a coordinator's death is no reason to run again"
    took = (result.ended_at or 0.0) - killed_at
    with capsys.disabled():
        print(f"\nthe parent heard of its children within {max(late):.2f} s, and ended {took:.2f} s after the kill")
    assert max(late) < HEARD_SEC


async def seconds_until_heard(site: Site, task_id: str) -> list[float]:
    """From each child's end to its parent's commit of it."""
    store = MongoStore(site.db)
    await store.start()
    try:
        heard = {
            fact.node: (fact.token, commit.at)
            for commit in await store.read_commits([task_id])
            for fact in decode_facts(commit.body)
            if isinstance(fact, f.AttemptSucceeded)
        }
        ended = {
            commit.task_id: commit.at
            for commit in await store.read_commits([token for token, _ in heard.values()])
            for fact in decode_facts(commit.body)
            if isinstance(fact, f.TaskEnded)
        }
    finally:
        await store.stop()
    assert len(heard) == len(ended) == CHILDREN
    return [at - ended[token] for token, at in heard.values()]


@pytest.mark.timeout(240)
async def test_a_signal_and_a_sleep_outlive_every_process(site: Site, cluster: Cluster) -> None:
    nodes = [
        {"node_id": "ask", "type": "signal", "inputs": {"name": "go"}},
        {"node_id": "rest", "type": "sleep", "inputs": {"seconds": 4}},
        {"node_id": "step", "type": "step", "inputs": {"sec": 0.05, "n": {"$from": "ask"}}, "depends_on": ["rest"]},
    ]
    async with site.client() as client:
        task_id = await client.create_task(graph={"nodes": nodes})
        child = await client.create_task(graph=parent([1, 2], nodes[1:2]))
        await until("it waits", lambda: waits(client, task_id))
        await until("the children sleep", lambda: all_sleep(client, child, 2))
        for part in list(cluster.parts.values()):
            part.kill()
        signalled = asyncio.create_task(client.signal_task(task_id, "go", 7))
        for part in list(cluster.parts.values()):
            cluster.replace(part)
        result = await client.wait_task(task_id, timeout=60)
        nap = await client.wait_task(child, timeout=60)
        assert await signalled in (True, False)  # it was written down before anybody could answer
    assert (result.output, result.error) == ({"n": 8}, None)
    assert result.seconds >= 4
    assert (nap.output, nap.error) == ([None, None], None)


async def waits(client: Client, task_id: str) -> bool:
    """Or it has slept by now, on a machine that halted."""
    codes = {reason.code for reason in await client.explain(task_id)}
    slept = (await client.get_task(task_id)).nodes["rest"].state == "finished"
    return "signal" in codes and ("sleeping" in codes or slept)


async def all_sleep(client: Client, task_id: str, count: int) -> bool:
    return [head.status in ("running", "finished") for head in await children_of(client, task_id)] == [True] * count
