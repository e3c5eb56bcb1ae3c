"""Coordinators are killed while many tasks share a limit: never do more run than it allows, and all of them end.

What runs when, an independent ledger of the handlers says. `make test` runs the short form, `make nightly` the whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from flowkit.adapters.mongo import MongoStore
from tests.integration.harness.ledger import Ledger, Run
from tests.integration.harness.processes import Cluster
from tests.integration.site import Site, until

pytestmark = [pytest.mark.kafka, pytest.mark.mongo]

MOST = 3
PARTITIONS = 8


def graph(sec: float, gate: Path) -> dict[str, Any]:
    limits = [{"key": "database", "max": MOST}, {"key": "of:{tenant}", "max": 8, "weight": 2}]
    return {"nodes": [{"node_id": "one", "type": "step", "inputs": {"sec": sec, "gate": str(gate)}, "limits": limits}]}


def most_at_once(runs: Sequence[Run]) -> int:
    """How many ran at the worst moment; where one begins when another ends, they did not meet."""
    assert all(run.ended is not None for run in runs)
    turns = sorted([(run.began, 1) for run in runs] + [(run.ended or 0.0, -1) for run in runs])
    running = peak = 0
    for _, turn in turns:
        running += turn
        peak = max(peak, running)
    return peak


async def nothing_is_held(site: Site) -> bool:
    store = MongoStore(site.db)
    await store.start()
    try:
        return not [one for partition in range(PARTITIONS) for one in await store.limits_of(partition, limit=9)]
    finally:
        await store.stop()


async def kill_one(cluster: Cluster, turn: int) -> None:
    places = sorted(place for place, part in cluster.parts.items() if part.role == "coordinator")
    victim = cluster.parts[places[turn % len(places)]]
    victim.kill()
    await cluster.in_business([cluster.replace(victim)])


async def under_fire(site: Site, folder: Path, *, tasks: int, sec: float, kills: int, every: float) -> list[Run]:
    """Create the tasks, kill coordinators while they run, wait for all; the runs of their handlers. None ends before
    the first coordinator is dead: so there are enough of them, however long it took to get there."""
    ledger, gate = Ledger(folder / "ledger"), folder / "gate"
    with Cluster(site, folder, ledger.path) as cluster:
        await cluster.start(coordinators=2, workers=2)
        async with site.client() as client:
            ids = [await client.create_task(graph=graph(sec, gate)) for _ in range(tasks)]
            for turn in range(kills):
                await until("the limit is used up", lambda: len(ledger.running()) == MOST, timeout=60, every=0.02)
                await kill_one(cluster, turn)
                gate.touch()
                await asyncio.sleep(every)
            results = await asyncio.gather(*(client.wait_task(task_id, timeout=600) for task_id in ids))
        assert {result.status for result in results} == {"finished"}
        await until("no permit is held any more", lambda: nothing_is_held(site), timeout=90, every=1.0)
        assert cluster.complaints() == []
    ledger.look()
    return ledger.runs


@pytest.mark.timeout(240)
async def test_a_kill_of_a_coordinator_never_lets_more_run_than_the_limit_allows(site: Site, tmp_path: Path) -> None:
    runs = await under_fire(site, tmp_path, tasks=50, sec=0.25, kills=1, every=0.2)

    assert len(runs) == len({run.key for run in runs}) == 50
    assert most_at_once(runs) == MOST


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_twenty_kills_of_coordinators_never_let_more_run_than_the_limit_allows(
    site: Site, tmp_path: Path, capsys: Any
) -> None:
    began = time.monotonic()
    runs = await under_fire(site, tmp_path, tasks=1000, sec=0.4, kills=20, every=1.0)

    with capsys.disabled():
        print(f"\n1,000 tasks and 20 kills took {time.monotonic() - began:.0f} s; at most {most_at_once(runs)} ran")
    assert len(runs) == len({run.key for run in runs}) == 1000
    assert most_at_once(runs) == MOST
