"""Tasks are deleted, by users and by time, and nothing of them is left on real stores."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.client import Client
from flowkit.coordinator import deletion, lives, retention
from flowkit.coordinator.graphs import read_raw
from flowkit.errors import RequestRefused, TaskNotFound
from tests.integration.site import Site, until

ON_KAFKA = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
LARGE = "x" * 100_000
TIMES = 12


@pytest.fixture(params=["sqlite", pytest.param("kafka-mongo", marks=ON_KAFKA)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A database, and the settings that go with it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flow.db", {}
    site: Site = request.getfixturevalue("site")
    return site.db, site.settings


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes takes moments."""
    for module in (deletion, lives):
        monkeypatch.setattr(module, "GRACE_SEC", 1.0)
    for name, value in (("LOOK_SEC", 0.3), ("FIRST_LOOK_SEC", 0.3), ("IDLE_SEC", 2.0), ("SHARE", 0.5)):
        monkeypatch.setattr(retention, name, value)


def large(name: str) -> str:
    return LARGE + name


def both(*names: str) -> dict[str, Any]:
    return {"name": "large", "nodes": [{"node_id": n, "type": "large", "inputs": {"name": n}} for n in names]}


async def left(coordinator: Coordinator) -> dict[str, int]:
    """How many documents there are of what belongs to tasks."""
    store: Any = coordinator.runtime.store
    if hasattr(store, "path"):
        tables = {"heads", "commits", "requests", "claims", "labels", "blobs"}
        return {
            table: (await store._file.read(f"SELECT count(*) FROM {table}", [], lambda row: row[0], few=False))[0]  # noqa: S608
            for table in sorted(tables)
        }
    names = ("tasks", "commits", "requests", "claims", "artifacts", "snapshots", "graphs")
    return {name: await store._database.collection(name).count_documents({}) for name in names}


async def gone(coordinator: Coordinator) -> bool:
    return not any((await left(coordinator)).values())


@pytest.mark.usefixtures("quick")
@pytest.mark.timeout(240)
async def test_tasks_whose_retention_is_over_leave_nothing_behind(place: tuple[str, dict[str, Any]]) -> None:
    db, settings = place
    keeping = CoordinatorConfig(**settings)
    async with Worker(db=db, cfg=WorkerConfig(**settings, slots=16), handlers=[large]):
        async with Coordinator(db=db, cfg=keeping) as coordinator:
            ids = await coordinator.create_tasks(
                [{"graph": both("a", f"n{n}"), "labels": {"n": str(n)}, "idempotency_key": f"k{n}"} for n in range(20)]
            )
            results = [await coordinator.wait_task(task_id, timeout=30) for task_id in ids]
            assert {result.status for result in results} == {"finished"}
            assert await coordinator.restart_task(ids[0])
            assert (await coordinator.get_task(ids[1])).nodes["a"].output == large("a")

        # They end when they are told to, not when the test took long: whoever coordinates now keeps nothing.
        cfg = CoordinatorConfig(**settings, retention_sec=0.5, sweep_sec=0.3)
        async with Coordinator(db=db, cfg=cfg) as coordinator:
            await until("nothing is left", lambda: gone(coordinator), timeout=60)
            for task_id in ids:
                with pytest.raises(TaskNotFound):
                    await coordinator.get_task(task_id)
            assert coordinator.telemetry.counts["LoopFailed"] == 0

        async with Coordinator(db=db, cfg=keeping) as coordinator:
            again = await coordinator.create_task(graph=both("a"), idempotency_key="k0")
            assert (await coordinator.wait_task(again, timeout=30)).outputs == {"a": large("a")}


@pytest.mark.usefixtures("quick")
@pytest.mark.timeout(240)
async def test_a_task_is_deleted_by_whoever_asks_and_its_key_makes_another(place: tuple[str, dict[str, Any]]) -> None:
    db, settings = place
    cfg = CoordinatorConfig(**settings)
    refused = asyncio.Event()

    async def held() -> None:
        await refused.wait()

    async with (
        Coordinator(db=db, cfg=cfg) as coordinator,
        Worker(db=db, cfg=WorkerConfig(**settings), handlers=[large, held]),
        Client(db=db, cfg=cfg) as client,
    ):
        asked: dict[str, Any] = {"graph": both("a", "b"), "idempotency_key": "k", "labels": {"team": "blue"}}
        first = await coordinator.create_task(**asked)
        other = await coordinator.create_task(graph=both("a"))
        for task_id in (first, other):
            await coordinator.wait_task(task_id, timeout=30)

        assert await client.delete_task(first) is True
        assert await client.delete_task(first) is False
        assert await coordinator.task(first).delete() is False
        for api in (client, coordinator):
            with pytest.raises(TaskNotFound):
                await api.get_task(first)
            assert [head.task_id for head in (await api.list_tasks()).heads] == [other]
        with pytest.raises(TaskNotFound):
            await coordinator.restart_task(first)

        second = await client.create_task(**asked)
        assert second != first
        assert await coordinator.create_task(**asked) == second
        assert (await coordinator.wait_task(second, timeout=30)).outputs == {"a": large("a"), "b": large("b")}

        running = await coordinator.create_task(graph={"nodes": [{"node_id": "s", "type": "held"}]})
        with pytest.raises(RequestRefused, match="cancel it first"):
            await client.delete_task(running)
        refused.set()
        await coordinator.wait_task(running, timeout=30)
        assert await coordinator.delete_task(running)

        # What the two share with the deleted one is there, also when that has been removed.
        await until("it is removed", lambda: removed(coordinator, running), timeout=30)
        assert (await coordinator.get_task(second)).nodes["b"].output == large("b")
        assert (await coordinator.get_task(other)).nodes["a"].output == large("a")
        for task_id in (second, other):
            assert await coordinator.delete_task(task_id)
        await until("their artifacts are gone", lambda: no_claims(coordinator), timeout=30)


@pytest.mark.usefixtures("quick")
async def test_an_edited_graph_stays_as_long_as_the_task_that_goes_on_with_it(
    place: tuple[str, dict[str, Any]],
) -> None:
    db, settings = place
    worker_cfg = WorkerConfig(**settings)
    async with (
        Coordinator(db=db, cfg=CoordinatorConfig(**settings)) as coordinator,
        Worker(db=db, cfg=worker_cfg, handlers=[large]),
    ):
        store, edited = coordinator.runtime.store, both("a", "b")
        ref = (await read_raw(edited)).ref
        task_id = await coordinator.create_task(graph=both("a"))
        await coordinator.wait_task(task_id, timeout=30)
        await coordinator.plan_restart(task_id, graph=both("a", "x"))
        assert await coordinator.restart_task(task_id, graph=edited)
        assert set((await coordinator.wait_task(task_id, timeout=30)).outputs) == {"a", "b"}

        async def two_are_left() -> bool:
            return (await left(coordinator)).get("graphs", 2) == 2 and not await has_graph(store, both("a", "x"))

        await until("the graph that nothing came of is gone", two_are_left, timeout=30)
        assert await store.get_blob(ref, kind="graph")

        assert await coordinator.delete_task(task_id)
        await until("and then the others", lambda: has_no_graph(store, ref), timeout=30)


async def has_graph(store: Any, graph: Any) -> bool:
    return not await has_no_graph(store, (await read_raw(graph)).ref)


async def has_no_graph(store: Any, ref: str) -> bool:
    try:
        await store.get_blob(ref, kind="graph")
    except KeyError:
        return True
    return False


async def removed(coordinator: Coordinator, task_id: str) -> bool:
    return not await coordinator.runtime.store.read_heads([task_id])


async def no_claims(coordinator: Coordinator) -> bool:
    return (await left(coordinator))["claims"] == 0


@pytest.mark.timeout(240)
async def test_of_a_deletion_and_a_restart_at_once_one_is_done_and_the_other_refused(
    place: tuple[str, dict[str, Any]],
) -> None:
    db, settings = place
    cfg = CoordinatorConfig(**settings)
    async with (
        Coordinator(db=db, cfg=cfg) as coordinator,
        Worker(db=db, cfg=WorkerConfig(**settings, slots=16), handlers=[large]),
        Client(db=db, cfg=cfg) as client,
    ):
        ids = await coordinator.create_tasks([{"graph": both("a"), "labels": {"n": str(n)}} for n in range(TIMES)])
        for task_id in ids:
            await coordinator.wait_task(task_id, timeout=30)
        await asyncio.sleep(1.5)  # the heads follow, so that both are on the way at once

        outcomes = {"restarted": 0, "deleted": 0}
        for task_id in ids:
            deleted, restarted = await asyncio.gather(
                client.delete_task(task_id), coordinator.restart_task(task_id), return_exceptions=True
            )
            if restarted is True:
                outcomes["restarted"] += 1
                # Deleted it may be all the same, if it had ended once more by then.
                assert isinstance(deleted, RequestRefused) or deleted is True
                if deleted is not True:
                    assert (await coordinator.wait_task(task_id, timeout=30)).status == "finished"
            else:
                outcomes["deleted"] += 1
                assert deleted is True
                assert isinstance(restarted, TaskNotFound)
                with pytest.raises(TaskNotFound):
                    await coordinator.get_task(task_id)
        assert sum(outcomes.values()) == TIMES
        assert coordinator.telemetry.counts["Quarantined"] == 0
