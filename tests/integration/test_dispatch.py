"""Labels and stickiness on a real Kafka and a real MongoDB, with workers as users start them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from flowkit import Context, Creation
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    # Sockets that the drivers drop when they are stopped in the middle of something.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


async def where(inputs: Any, ctx: Context) -> str:
    await asyncio.sleep(0.01)
    return ctx.worker_id


def graph(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": [{"type": "where", "inputs": {}, **node} for node in nodes]}


ASKING = graph(
    {"node_id": "eu", "worker_labels": {"zone": "eu"}},
    {"node_id": "gpu", "worker_labels": {"gpu": ["h100", "a100"]}},
    {"node_id": "us", "worker_labels": {"zone": "us"}, "depends_on": ["eu", "gpu"]},
)
STICKY = graph(
    {"node_id": "load"},
    *({"node_id": f"n{number}", "depends_on": ["load"], "sticky": {"node": "load"}} for number in range(4)),
    {"node_id": "last", "depends_on": [f"n{number}" for number in range(4)], "sticky": {"node": "n3"}},
)


async def test_nodes_go_to_the_workers_whose_labels_they_ask_for(site: Site) -> None:
    eu = site.worker({"where": where}, worker_id="w-eu", labels={"zone": "eu", "gpu": "a100"})
    us = site.worker({"where": where}, worker_id="w-us", labels={"zone": "us"})
    async with site.coordinator() as coordinator, eu, us:
        ids = await coordinator.create_tasks([Creation(ASKING) for _ in range(30)])
        results = [await coordinator.wait_task(task_id, timeout=30) for task_id in ids]

        assert all(result.outputs == {"eu": "w-eu", "gpu": "w-eu", "us": "w-us"} for result in results)


async def test_it_is_said_which_labels_nobody_has_until_somebody_comes_who_has_them(site: Site) -> None:
    async with (
        site.coordinator() as coordinator,
        site.worker({"where": where}, worker_id="w1", labels={"zone": "eu-1"}),
    ):
        asks = graph({"node_id": "n", "worker_labels": {"zone": "eu-2", "gpu": "a100"}})
        task_id = await coordinator.create_task(graph=asks)

        async def lonely() -> Any:
            return next((r for r in await coordinator.explain(task_id) if "w1" in r.message), None)

        reason = await until("nobody has the labels, and w1 is known", lonely)
        assert reason.message == (
            "node 'n' waits: no live worker that serves 'where' has the labels gpu=a100, zone=eu-2; "
            "the nearest, 'w1', has no label 'gpu', and has zone=eu-1 (did you mean 'eu-1'?)"
        )
        async with site.worker({"where": where}, worker_id="w2", labels={"zone": "eu-2", "gpu": "a100"}):
            assert (await coordinator.wait_task(task_id, timeout=30)).output == "w2"


async def test_nodes_run_where_those_ran_that_they_follow(site: Site) -> None:
    one = site.worker({"where": where}, worker_id="w1", slots=8)
    other = site.worker({"where": where}, worker_id="w2", slots=8)
    async with site.coordinator() as coordinator, one, other:
        await until("both are known", lambda: len(coordinator.runtime.fleet.workers) == 2)
        ids = await coordinator.create_tasks([Creation(STICKY) for _ in range(40)])
        results = [await coordinator.wait_task(task_id, timeout=30) for task_id in ids]

        assert all(len(set(result.outputs.values())) == 1 for result in results)
        assert len(Counter(result.outputs["load"] for result in results)) == 2


async def test_who_follows_a_worker_that_stopped_runs_elsewhere(site: Site) -> None:
    nodes = graph(
        {"node_id": "load"},
        {"node_id": "wait", "type": "signal", "inputs": {"name": "go"}, "depends_on": ["load"]},
        {"node_id": "n", "depends_on": ["wait"], "sticky": {"node": "load", "patience_sec": 3600}},
    )
    async with site.coordinator() as coordinator:
        first = site.worker({"where": where}, worker_id="w1")
        await first.start()
        task_id = await coordinator.create_task(graph=nodes)

        async def loaded() -> bool:
            return (await coordinator.get_task(task_id)).nodes["load"].state == "finished"

        await until("the first node ran", loaded)
        await first.stop()
        await coordinator.signal_task(task_id, "go")
        async with site.worker({"where": where}, worker_id="w2"):
            result = await coordinator.wait_task(task_id, timeout=30)

        assert (result.outputs["load"], result.outputs["n"]) == ("w1", "w2")
