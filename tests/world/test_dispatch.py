"""Who runs what in a whole cluster: two tenants, workers with labels, workers that are followed and die."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flowkit.coordinator.creation import Creation
from flowkit.testing import World
from flowkit.testing.play import RandomPlay
from flowkit.testing.plugin import MakeWorld

NODE_SEC = 10.0
ONE: dict[str, Any] = {"nodes": [{"node_id": "n", "type": "work"}]}


async def work(inputs: Any, ctx: Any) -> str:
    await asyncio.sleep(NODE_SEC)
    return str(ctx.worker_id)


async def create(world: World, tenant: str, graph: dict[str, Any], tasks: int = 1) -> list[str]:
    """Create tasks as a tenant would, which has an API machine of its own."""
    machine = world.apis[0 if tenant == "red" else 1]
    while machine.name not in world.runtimes:
        await asyncio.sleep(0.1)
    world.runtimes[machine.name].api.tenant = tenant
    ids: list[str] = await world.ask(lambda api: api.create([Creation(graph)] * tasks), machine=machine)
    return ids


async def ended(world: World, tenant: str, task_id: str) -> Any:
    return await world.ask(lambda api: api.wait(task_id), machine=world.apis[0 if tenant == "red" else 1])


# Tenants.


@pytest.mark.parametrize("seed", [1, 2])
def test_a_flood_of_one_tenant_delays_anothers_task_by_two_rounds_at_most(flowkit_world: MakeWorld, seed: int) -> None:
    took: list[float] = []

    async def play(world: World) -> None:
        await create(world, "red", ONE, 300)
        await asyncio.sleep(103.0)
        began = world.stage.now
        [single] = await create(world, "blue", ONE)
        assert (await ended(world, "blue", single)).status == "finished"
        took.append(world.stage.now - began)

    report = flowkit_world(seed=seed, coordinators=1, workers=1, handlers={"work": work}).run(play)

    assert report.violations == []
    assert report.virtual_sec > 1500.0  # the flood took its time
    # The two slots are free again within a node's run: so a round is at most that long; and then it runs.
    assert took[0] < 2 * NODE_SEC + NODE_SEC


def test_single_tasks_of_one_tenant_do_not_hold_up_the_flood_of_another(flowkit_world: MakeWorld) -> None:
    times: dict[str, float] = {}

    async def play(world: World) -> None:
        async def flood() -> None:
            for task_id in await create(world, "red", ONE, 40):
                await ended(world, "red", task_id)
            times["red"] = world.stage.now

        async def one_after_another() -> None:
            for _ in range(20):
                [task_id] = await create(world, "blue", ONE)
                await ended(world, "blue", task_id)

        await asyncio.gather(flood(), one_after_another())

    report = flowkit_world(seed=3, coordinators=1, workers=1, handlers={"work": work}).run(play)

    assert report.violations == []
    assert times["red"] < 60 * NODE_SEC / 2 + 2 * NODE_SEC  # sixty nodes on two slots, all of them used


# Labels.


@pytest.mark.parametrize("seed", [5, 6])
def test_a_node_waits_for_a_worker_with_its_labels_and_is_told_which_are_missing(
    flowkit_world: MakeWorld, seed: int
) -> None:
    world = flowkit_world(seed=seed, coordinators=2, workers=3, handlers={"work": work})
    world.labels["W1"] = {"zone": "eu"}
    asks = {"nodes": [{"node_id": "n", "type": "work", "worker_labels": {"zone": ["eu", "asia"]}}]}
    ran: list[str] = []
    said: set[str] = set()

    async def play(world: World) -> None:
        for task_id in await create(world, "red", asks, 4):
            ran.append((await ended(world, "red", task_id)).output)
        world.workers[1].crash(back_after=100.0)
        await asyncio.sleep(5.0)
        [task_id] = await create(world, "red", asks)
        await asyncio.sleep(40.0)
        for machine in world.coordinators:
            world.runtimes[machine.name].api.tenant = "red"
            reasons = await world.ask(lambda api: api.explain(task_id), machine=machine)
            said.update(reason.message for reason in reasons if reason.code == "no_worker")
        ran.append((await ended(world, "red", task_id)).output)

    report = world.run(play)

    assert report.violations == []
    assert ran == ["W1"] * 5
    assert said == {
        "node 'n' waits: no live worker that serves 'work' has the labels zone=asia or eu; "
        "the nearest, 'W0', has no label 'zone'"
    }


# Stickiness.

STICKY: dict[str, Any] = {
    "nodes": [
        {"node_id": "load", "type": "work"},
        {"node_id": "a", "type": "work", "depends_on": ["load"], "sticky": {"node": "load"}},
        {"node_id": "b", "type": "work", "depends_on": ["a"], "sticky": {"node": "load"}},
    ]
}


@pytest.mark.parametrize("seed", [7, 8])
def test_nodes_stay_with_the_worker_that_they_follow(flowkit_world: MakeWorld, seed: int) -> None:
    ran: list[set[str]] = []

    async def play(world: World) -> None:
        for task_id in await create(world, "red", STICKY, 6):
            ran.append(set((await ended(world, "red", task_id)).outputs.values()))

    report = flowkit_world(seed=seed, coordinators=2, workers=3, handlers={"work": work}).run(play)

    assert report.violations == []
    assert [len(workers) for workers in ran] == [1] * 6
    assert len(set.union(*ran)) == 3


@pytest.mark.parametrize("seed", [9, 10])
@pytest.mark.parametrize("patience", [1.0, 3600.0])
def test_no_node_waits_for_a_worker_that_died(flowkit_world: MakeWorld, seed: int, patience: float) -> None:
    follows = {"node": "load", "patience_sec": patience}
    nodes = [STICKY["nodes"][0], *({**node, "sticky": follows} for node in STICKY["nodes"][1:])]
    took: list[float] = []

    async def play(world: World) -> None:
        [task_id] = await create(world, "red", {"nodes": nodes})
        await asyncio.sleep(NODE_SEC + 1.0)
        view = await world.ask(lambda api: api.get(task_id))
        [machine] = [machine for machine in world.workers if machine.name == view.nodes["a"].worker]
        machine.crash(back_after=None)
        began = world.stage.now
        result = await ended(world, "red", task_id)
        took.append(world.stage.now - began)
        assert result.status == "finished"
        assert {result.outputs["a"], result.outputs["b"]} == {result.outputs["b"]}  # together at another
        assert result.outputs["load"] == machine.name != result.outputs["a"]

    report = flowkit_world(seed=seed, coordinators=2, workers=2, handlers={"work": work}).run(play)

    assert report.violations == []
    assert took[0] < 60.0  # the lease of the one that died, and two nodes


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(400, 412))
def test_no_promise_is_broken_in_chaos_where_everybody_follows_somebody(seed: int) -> None:
    world = World(seed, mode="chaos", patience_sec=300.0)
    world.labels = {"W0": {"disk": "ssd"}, "W1": {"disk": "ssd"}}
    play = RandomPlay(world)
    play.plans = {key: replace(plan, graph=clinging(plan.graph, key)) for key, plan in play.plans.items()}

    report = play.run()

    assert report.violations == []


def clinging(graph: dict[str, Any], key: str) -> dict[str, Any]:
    """The same graph, whose nodes follow the first or their task, prefer labels, or ask for them."""
    says = [{"sticky": {"node": "n0"}}, {"sticky": "task"}, {"prefer_labels": {"disk": "ssd"}, "sticky": "task"},
            {"worker_labels": {"disk": ["ssd", "nvme"]}, "sticky": {"patience_sec": 1}, "priority": 1}]  # fmt: skip
    nodes = [{**node, **says[(number + len(key)) % 4]} for number, node in enumerate(graph["nodes"])]
    return {**graph, "nodes": nodes}
