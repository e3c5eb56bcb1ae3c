"""Whole clusters of the real code in simulated weather: no seed may break a promise.

Every seed replays: `python -m flowkit.testing trace SEED --mode MODE`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from flowkit.testing import World
from flowkit.testing.faults import INJECTED
from flowkit.testing.plugin import MakeWorld
from flowkit.testing.runner import Tally, describe, run_in_processes, run_seeds

CHUNK = 50
CALM_SEEDS = 16  # `make nightly` takes a thousand of each mode
RICH_SEEDS = 30  # and of these two thousand
# One process each: other tests have the other cores.
JOBS = 1


def assert_good(tally: Tally, seeds: int) -> None:
    assert not tally.bad, "\n" + describe(tally)
    assert tally.seeds == seeds


# ---------------------------------------------------------------------------------------------- random worlds


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_no_promise_is_broken_in_chaos(first: int) -> None:
    tally = run_in_processes(first, first + CHUNK, "chaos", jobs=JOBS)

    assert_good(tally, CHUNK)
    assert tally.faults >= 10 * CHUNK
    assert tally.runs / tally.needed < 1.15


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["calm", "outage", "ccrash"])
def test_nothing_runs_twice_where_no_worker_was_harmed(mode: str) -> None:
    tally = run_in_processes(0, CALM_SEEDS, mode, jobs=JOBS)

    assert_good(tally, CALM_SEEDS)
    assert tally.runs == tally.needed


@pytest.mark.timeout(300)
def test_every_kind_of_fault_is_injected_and_survived() -> None:
    tally = run_in_processes(200, 200 + 2 * CHUNK, "chaos", jobs=JOBS)

    assert_good(tally, 2 * CHUNK)
    assert tally.faults >= 20 * CHUNK
    missing = [name for name in (*INJECTED, *SURVIVED) if tally.counts[name] == 0]
    assert not missing


@pytest.mark.timeout(300)
def test_no_promise_is_broken_where_graphs_use_all_that_they_can_say() -> None:
    tally = run_in_processes(0, RICH_SEEDS, "chaos", directed=["rich"], jobs=JOBS)

    assert_good(tally, RICH_SEEDS)
    unused = [name for name in USED if tally.counts[name] == 0]
    assert not unused


USED = ("outputs kept", "successors chosen", "streams begun", "tasks undone", "graphs with limits", "graphs with flows",
        "graphs with signals", "graphs with sub-graphs", "graphs with maps")  # fmt: skip


# What the cluster does about it, or suffers from it.
SURVIVED = ("mongo_timeout", "mongo_unread", "rolled_back", "rebalance", "lease_expired", "killed_no_renewal",
            "killed_revoked")  # fmt: skip


@pytest.mark.timeout(300)
def test_the_same_seed_twice_leaves_the_same_trace() -> None:
    digests: list[list[str]] = []
    for _ in range(2):
        found: list[str] = []
        run_seeds([1, 7, 11, 23, 42], "chaos", on_report=lambda report, found=found: found.append(report.digest))
        digests.append(found)

    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 5


@pytest.mark.timeout(300)
def test_another_process_with_another_hash_seed_leaves_the_same_trace() -> None:
    script = "from flowkit.testing import simulate; print(simulate(17).digest)"
    digests = set()
    for seed in ("0", "1"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": "."}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)

    assert len(digests) == 1


# ---------------------------------------------------------------------------------------------- one's own play

CHAIN = {
    "nodes": [
        {"node_id": "hi", "type": "greet"},
        {"node_id": "loud", "type": "shout", "depends_on": ["hi"]},
    ]
}


async def greet(name: str) -> dict[str, str]:
    await asyncio.sleep(3600)
    return {"text": f"hello {name}"}


async def greet_soon(name: str) -> dict[str, str]:
    await asyncio.sleep(100)
    return {"text": f"hello {name}"}


async def shout(text: str) -> str:
    return text.upper() + "!"


def test_two_hours_of_a_cluster_pass_in_a_moment(flowkit_world: MakeWorld) -> None:
    from flowkit.coordinator.creation import Creation

    results: list[Any] = []

    async def play(world: World) -> None:
        creation = Creation(graph=CHAIN, params={"name": "Ada"})
        [task_id] = await world.ask(lambda api: api.create([creation]))
        results.append(await world.ask(lambda api: api.wait(task_id)))

    report = flowkit_world(handlers={"greet": greet, "shout": shout}).run(play)

    assert report.violations == []
    assert results[0].output == "HELLO ADA!"
    assert 3600 < report.virtual_sec < 3700


def test_a_worker_that_dies_is_replaced_by_another(flowkit_world: MakeWorld) -> None:
    from flowkit.coordinator.creation import Creation

    world = flowkit_world(workers=2, handlers={"greet": greet_soon, "shout": shout})

    async def play(world: World) -> None:
        [task_id] = await world.ask(lambda api: api.create([Creation(graph=CHAIN, params={"name": "Ada"})]))
        await asyncio.sleep(60)
        view = await world.ask(lambda api: api.get(task_id))
        [machine] = [machine for machine in world.workers if machine.name == view.nodes["hi"].worker]
        machine.crash(back_after=None)
        result = await world.ask(lambda api: api.wait(task_id, timeout=7200))
        assert result.output == "HELLO ADA!"
        view = await world.ask(lambda api: api.get(task_id))
        assert view.nodes["hi"].attempts == 2

    assert world.run(play).violations == []


def test_a_violation_in_a_play_is_reported(flowkit_world: MakeWorld) -> None:
    async def play(world: World) -> None:
        world.observer.say("made_up", "t", "to see it")

    assert [v.kind for v in flowkit_world().run(play).violations] == ["made_up"]


def test_what_a_play_raises_is_raised(flowkit_world: MakeWorld) -> None:
    async def play(world: World) -> None:
        raise LookupError("wrong")

    with pytest.raises(LookupError, match="wrong"):
        flowkit_world().run(play)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode is one of chaos, calm"):
        World(mode="stormy")
