"""Coordinators and workers are killed and frozen, Kafka and mongod crash, and nothing is lost or done twice.

An independent ledger says what handlers did; an independent checker judges the commits. `make test` runs the short
form, `make nightly` the whole. Each prints a table of what was demanded and what was measured; the file that
FLOWKIT_REPORT names gets it as a line of JSON.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from deploy.local.server import LocalServer
from flowkit.coordinator.views import TaskResult
from tests.integration.harness.demands import Demand, of_kills, of_load, of_outage, report
from tests.integration.harness.drama import TTL_SEC, Drama, drama
from tests.integration.harness.ledger import Ledger, Run
from tests.integration.harness.processes import Cluster, Part
from tests.integration.harness.verdict import Verdict
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    # Sockets of the test's own client, dropped when their server crashes.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


# Other tests run beside the short form, and machines differ: what is promised is asked of the whole. A recovery that
# does not come by itself takes for ever. Its nodes are longer, so that enough of them run on whatever machine.
BUSY = 3.0
BUSY_SEC = (0.2, 1.5)


@pytest.fixture(autouse=True)
def servers_can_be_had(kafka_address: str, mongo_url: str) -> None:
    """The session's servers are not used here, but skip or fail the test where none can be had."""


async def kill_workers(play: Drama, times: int) -> None:
    for _ in range(times):
        await play.kill("worker")
        await asyncio.sleep(4)
    await asyncio.sleep(TTL_SEC)


async def kill_coordinators(play: Drama, times: int) -> None:
    for _ in range(times):
        replacement = await play.kill("coordinator")
        await play.cluster.in_business([replacement])
        await asyncio.sleep(2)


async def strike(play: Drama, times: int) -> None:
    """Mongod is killed, Kafka restarted."""
    for _ in range(times):
        await play.strike(play.mongo, crash=True)
        await asyncio.sleep(3)
        await play.strike(play.kafka, crash=False)
        await asyncio.sleep(3)


async def crash(play: Drama, server: LocalServer, times: int) -> None:
    for _ in range(times):
        await play.strike(server, crash=True)
        await asyncio.sleep(3)


async def freeze(play: Drama, roles: list[Any]) -> None:
    for role in roles:
        await play.freeze(role, 2 * TTL_SEC)
        await asyncio.sleep(3)


def judge(name: str, play: Drama, verdict: Verdict, demands: list[Demand], capsys: Any) -> None:
    more = {
        "happenings": dict(play.cluster.counts()),
        "asked_again": play.load.doubts,
        "ended": play.load.ended(),
        "signals": dict(play.load.signals),
    }
    with capsys.disabled():
        print(report(name, verdict, demands, more))
    missed = [demand for demand in demands if not demand.met]
    assert not missed, "\n".join(map(str, missed))


@pytest.mark.crowd
@pytest.mark.timeout(600)
async def test_kills_freezes_and_restarts_lose_nothing_and_do_nothing_twice(tmp_path: Path, capsys: Any) -> None:
    async with drama(tmp_path, seed=1, sec=BUSY_SEC) as play:
        await kill_workers(play, 2)
        await kill_coordinators(play, 1)
        await strike(play, 1)
        await freeze(play, ["worker"])
        verdict = await play.verdict()
    plan = {"worker_kill": 2, "coordinator_kill": 1, "mongod_kill": 1, "kafka_restart": 1, "worker_stop": 1}
    demands = of_kills(verdict, plan, slack=BUSY) + of_load(verdict, play.load.ended())
    judge("kills_short", play, verdict, demands, capsys)


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_many_kills_freezes_and_restarts_lose_nothing_and_do_nothing_twice(tmp_path: Path, capsys: Any) -> None:
    async with drama(tmp_path, seed=2) as play:
        await kill_workers(play, 20)
        await kill_coordinators(play, 20)
        await strike(play, 5)
        await crash(play, play.kafka, 2)
        await freeze(play, ["worker", "coordinator"] * 5)
        verdict = await play.verdict(timeout=120)
    plan = {
        "worker_kill": 20, "coordinator_kill": 20, "mongod_kill": 5, "kafka_restart": 5, "kafka_kill": 2,
        "worker_stop": 5, "coordinator_stop": 5,
    }  # fmt: skip
    demands = of_kills(verdict, plan) + of_load(verdict, play.load.ended())
    judge("kills_whole", play, verdict, demands, capsys)


# ------------------------------------------------------------------------------------------ outages


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_a_kafka_outage_of_three_ttls_kills_no_running_attempt(how: str, tmp_path: Path, capsys: Any) -> None:
    async with drama(tmp_path, seed=3, tasks=10) as play:
        ids = [await play.load.client.create_task(graph=one_node(4 * TTL_SEC + 5)) for _ in range(20)]
        await until("all of the long ones have begun", lambda: play.begun(ids))
        if how == "stopped":
            await play.strike(play.kafka, crash=False, away=3 * TTL_SEC)
        else:
            await play.hold_breath(play.kafka, 3 * TTL_SEC)
        results = [await play.load.client.wait_task(task_id, timeout=60) for task_id in ids]
        verdict = await play.verdict()
    unfinished = [f"{result.task_id} {result.status}" for result in results if result.status != "finished"]
    demands = of_outage(verdict, unfinished, killed=play.cluster.counts()["AttemptKilled"])
    judge(f"outage_{how}", play, verdict, demands, capsys)


def one_node(sec: float, gate: Path | str = "") -> dict[str, Any]:
    return {"nodes": [{"node_id": "long", "type": "step", "inputs": {"sec": sec, "gate": str(gate)}}]}


# ------------------------------------------------------------------------------------------ leaving in good order


async def create_and_begin(site: Site, ledger: Ledger, count: int, gate: Path) -> list[str]:
    """They run until there is a file of this name."""
    async with site.client() as client:
        ids = [await client.create_task(graph=one_node(0.0, gate)) for _ in range(count)]
    await until("all have begun", lambda: len(ledger.running()) == count)
    return ids


async def results_of(site: Site, ids: list[str]) -> list[TaskResult]:
    async with site.client() as client:
        return await asyncio.gather(*(client.wait_task(task_id, timeout=60) for task_id in ids))


def ran_once(ledger: Ledger) -> list[Run]:
    ledger.look()
    assert {len(runs) for runs in ledger.by_key().values()} == {1}, "something ran twice"
    assert {run.how for run in ledger.runs} == {"done"}
    return ledger.runs


@pytest.mark.timeout(240)
async def test_a_worker_told_to_stop_finishes_what_it_runs_and_takes_nothing_more(site: Site, tmp_path: Path) -> None:
    ledger, gate = Ledger(tmp_path / "ledger"), tmp_path / "gate"
    with Cluster(site, tmp_path, ledger.path) as cluster:
        await cluster.start(coordinators=1, workers=2)
        ids = await create_and_begin(site, ledger, 12, gate)
        leaver = cluster.parts["w0"]
        mine = {run.key for run in ledger.running() if run.worker == leaver.name}
        assert 0 < len(mine) < 12

        leaver.terminate()
        await until("it is known that it drains", lambda: drains(cluster.parts["c0"], leaver))
        ids += await create_and_begin_more(site, ledger, 6)
        gate.touch()
        assert await leaver.ended(timeout=60) == 0
        results = await results_of(site, ids)
        happenings = cluster.counts()
    assert {result.status for result in results} == {"finished"}
    runs = ran_once(ledger)
    assert len(runs) == len(ids)
    assert {run.key for run in runs if run.worker == leaver.name} == mine, "it took more after it was told to stop"
    assert happenings["LeaseExpired"] == 0


def drains(coordinator: Part, worker: Part) -> bool:
    news = f"worker='{worker.name}', what='draining'"
    return any(what == "WorkerSeen" and news in about for _, what, about in coordinator.said())


async def create_and_begin_more(site: Site, ledger: Ledger, count: int) -> list[str]:
    before = len(ledger.runs)
    async with site.client() as client:
        ids = [await client.create_task(graph=one_node(0.1)) for _ in range(count)]

    def begun() -> bool:
        ledger.look()
        return len(ledger.runs) >= before + count

    await until("the new ones have begun elsewhere", begun)
    return ids


@pytest.mark.timeout(240)
async def test_a_coordinator_told_to_stop_hands_its_tasks_over_at_once(site: Site, tmp_path: Path) -> None:
    ledger, gate = Ledger(tmp_path / "ledger"), tmp_path / "gate"
    with Cluster(site, tmp_path, ledger.path) as cluster:
        await cluster.start(coordinators=2, workers=2)
        ids = await create_and_begin(site, ledger, 12, gate)
        leaver = cluster.parts["c0"]
        leaver.terminate()
        assert await leaver.ended(timeout=60) == 0
        assert await in_the_group(site) <= 1, "nobody waits for its session to end"
        gate.touch()
        late = [await create(site, one_node(0.05)) for _ in range(16)]
        results = await results_of(site, ids + late)
        happenings = cluster.counts()
    assert {result.status for result in results} == {"finished"}
    ran_once(ledger)
    assert happenings["LeaseExpired"] == 0
    assert len(results) == 28  # sixteen fall on all partitions


async def in_the_group(site: Site) -> int:
    """How many coordinators the broker counts."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=site.kafka)
    await admin.start()
    try:
        answers = await admin.describe_consumer_groups([f"{site.prefix}coordinators"])
    finally:
        await admin.close()
    return sum(len(group[5]) for answer in answers for group in answer.groups)


async def create(site: Site, graph: dict[str, Any]) -> str:
    async with site.client() as client:
        return await client.create_task(graph=graph)
