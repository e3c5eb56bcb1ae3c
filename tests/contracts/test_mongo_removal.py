"""What the MongoDB store promises where an artifact is put while it is collected, and where a removal dies half-way."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("pymongo")

from flowkit.adapters.mongo import MongoStore
from flowkit.adapters.mongo_documents import ended_query
from flowkit.errors import StoreUnavailable
from flowkit.ports import Commit, Head, Outcome, Request

# PyMongo drops the sockets of connections that it was making when its client is closed.
pytestmark = [
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

DATA = bytes(1_200_000)


@pytest.fixture(autouse=True)
def dropped_sockets_are_not_the_next_tests_problem() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
async def store(mongo_database: Any) -> AsyncIterator[MongoStore]:
    store = MongoStore(mongo_database)
    await store.start()
    yield store
    await store.stop()


def before(owner: Any, method: str, act: Callable[[], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch, *,
           where: Callable[..., bool] = lambda *_, **__: True) -> None:  # fmt: skip
    """Do something else, once, right before a method is called with such arguments."""
    really, done = getattr(owner, method), []

    async def do(*args: Any, **more: Any) -> Any:
        if not done and where(*args, **more):
            done.append(True)
            await act()
        return await really(*args, **more)

    monkeypatch.setattr(owner, method, do)


STEPS = [("_update", "claims"), ("_find", "artifacts"), ("_find", "claims"), ("_delete", "artifacts"),
         ("_delete", "claims")]  # fmt: skip


@pytest.mark.parametrize(("method", "collection"), STEPS)
async def test_an_artifact_that_another_task_puts_meanwhile_stays(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, method: str, collection: str
) -> None:
    await store.put_blob("r", DATA, kind="artifact", for_task="old")
    put = store.put_blob

    before(
        store._removal, method, lambda: put("r", DATA, kind="artifact", for_task="new"), monkeypatch,
        where=lambda name, *_: name == collection,
    )  # fmt: skip
    assert await store.collect_artifacts(["old"]) is Outcome.OK

    assert await store.get_blob("r", kind="artifact") == DATA


@pytest.mark.parametrize("method", ["_claim", "_insert", "_stamped"])
async def test_an_artifact_that_is_collected_while_it_is_put_is_put_whole(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    await store.put_blob("r", DATA, kind="artifact", for_task="old")

    before(store._blobs, method, lambda: store.collect_artifacts(["old"]), monkeypatch)
    await store.put_blob("r", DATA, kind="artifact", for_task="new")

    assert await store.get_blob("r", kind="artifact") == DATA


@pytest.mark.parametrize("place", range(5))
async def test_a_collection_that_dies_half_way_is_finished_by_the_next(
    store: MongoStore, mongo_database: Any, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    await store.put_blob("own", DATA, kind="artifact", for_task="a")
    await store.put_blob("shared", DATA, kind="artifact", for_task="a")
    await store.put_blob("shared", DATA, kind="artifact", for_task="b")
    method, collection = STEPS[place]

    async def die() -> None:
        raise StoreUnavailable("gone")

    before(store._removal, method, die, monkeypatch, where=lambda name, *_: name == collection)
    assert await store.collect_artifacts(["a"]) is Outcome.UNKNOWN
    assert await store.get_blob("shared", kind="artifact") == DATA

    assert await store.collect_artifacts(["a"]) is Outcome.OK
    assert await mongo_database.artifacts.distinct("ref") == ["shared"]
    assert await store.collect_artifacts(["b"]) is Outcome.OK
    assert await mongo_database.artifacts.count_documents({}) == 0
    assert await mongo_database.claims.count_documents({}) == 0


async def test_of_two_who_give_the_last_claims_up_at_once_one_removes_the_artifact(
    store: MongoStore, mongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("a", "b"):
        await store.put_blob("r", DATA, kind="artifact", for_task=task)
    other = MongoStore(mongo_database)
    await other.start()

    # The one has found the other's claim, and has not yet given up its own, when the other looks.
    before(store._removal, "_delete", lambda: other.collect_artifacts(["b"]), monkeypatch)
    assert await store.collect_artifacts(["a"]) is Outcome.OK

    await other.stop()
    assert await mongo_database.artifacts.count_documents({}) == 0


async def test_a_graph_that_is_put_while_it_is_collected_stays(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put_blob("g", DATA, kind="graph", at=10.0)

    before(store._removal, "_delete", lambda: store.put_blob("g", DATA, kind="graph", at=60.0), monkeypatch)
    assert await store.collect_graphs(["g"], 50.0, at=60.0) is Outcome.OK

    assert await store.get_blob("g", kind="graph") == DATA


async def test_what_was_put_before_anybody_counted_is_kept(store: MongoStore, mongo_database: Any) -> None:
    await store.put_blob("g", b"g", kind="graph", at=1.0)
    await mongo_database.graphs.update_many({}, {"$unset": {"put_at": 1, "stamp": 1}})
    await store.put_blob("r", b"r", kind="artifact", for_task="a")
    await mongo_database.claims.delete_many({})

    assert await store.idle_graphs(99.0, limit=9) == []
    await store.collect_graphs(["g"], 99.0, at=100.0)
    await store.collect_artifacts(["a"])

    assert await store.get_blob("g", kind="graph") == b"g"
    assert await store.get_blob("r", kind="artifact") == b"r"


async def test_a_head_of_before_retention_can_be_deleted(store: MongoStore, mongo_database: Any) -> None:
    await store.insert_heads([Head("t", 0, "g")])
    await mongo_database.tasks.update_many({}, {"$unset": {"remove_at": 1, "life": 1}})

    [head] = await store.read_heads(["t"])
    assert head == Head("t", 0, "g")
    assert await store.delete_heads([head]) is Outcome.OK
    assert await store.read_heads(["t"]) == []


@pytest.mark.parametrize("collection", ["requests", "commits"])
async def test_a_history_that_is_removed_half_way_is_removed_by_the_next(
    store: MongoStore, monkeypatch: pytest.MonkeyPatch, collection: str
) -> None:
    await store.insert_commits([Commit("t", seq, f"c{seq}", "", 1.0, "me", "{}") for seq in range(1, 2500)])
    await store.insert_request(Request("t", 1, "r", "pause", "{}", 0, "t", "p", 1.0))

    async def die() -> None:
        raise StoreUnavailable("gone")

    before(store._removal, "_delete", die, monkeypatch, where=lambda name, *_: name == collection)
    assert await store.delete_history(["t"]) is Outcome.UNKNOWN
    assert await store.delete_history(["t"]) is Outcome.OK
    assert await store.read_commits(["t"]) == []
    assert await store.read_requests("t") == []


async def test_what_looks_for_the_end_of_tasks_uses_its_indexes(store: MongoStore, mongo_database: Any) -> None:
    ends = [Head(f"t{i}", i % 4, "g", status="finished", active=False, ended_at=float(i)) for i in range(500)]
    await store.insert_heads(ends)
    await store.insert_heads([Head(f"r{i}", i % 4, "g", remove_at=float(i + 1)) for i in range(100)])

    async def plan_of(query: dict[str, Any], sort: dict[str, int], collection: str = "tasks") -> str:
        explained = await mongo_database.command(
            {"explain": {"find": collection, "filter": query, "sort": sort, "limit": 5}}
        )
        plan = str(explained["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in plan
        assert "'SORT'" not in plan
        return plan

    for after in (None, (100.0, "t100")):
        assert "'ended'" in await plan_of(ended_query([0, 1], "finished", 400.0, after), {"ended_at": 1, "_id": 1})
    removable = {"partition": {"$in": [0, 1]}, "remove_at": {"$gt": 0, "$lte": 50.0}}
    assert "'removable'" in await plan_of(removable, {"remove_at": 1, "_id": 1})
    assert "'graph'" in await plan_of({"graph": {"$in": ["g", "h"]}}, {})
    assert "'put'" in await plan_of({"i": 0, "put_at": {"$lt": 9.0}}, {"put_at": 1}, "graphs")
    assert "'ref'" in await plan_of({"ref": {"$in": ["r", "s"]}, "over": {"$ne": True}}, {}, "claims")
