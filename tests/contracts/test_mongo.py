"""What the MongoDB store promises beyond the contract: doubt is told as doubt, any usual handle will do."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("pymongo")

from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener

from deploy.local import MongoServer
from flowkit.adapters.mongo import MongoStore
from flowkit.adapters.mongo_documents import list_query
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.ports import Commit, FlowTag, FlowVersion, Head, HeadFilter, HeadUpdate, Outcome, Renewal, Request

OK, DUPLICATE, NO_MATCH, UNKNOWN = Outcome.OK, Outcome.DUPLICATE, Outcome.NO_MATCH, Outcome.UNKNOWN

# PyMongo drops the sockets of connections that it was making when its client is closed.
pytestmark = [
    pytest.mark.xdist_group("mongo_of_its_own"),
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


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


@pytest.fixture(scope="module")
def own_server(mongo_url: str) -> Iterator[MongoServer]:
    """A server that a test may freeze; `mongo_url` first, for it skips where none can be had."""
    with MongoServer() as server:
        yield server


def commit(task_id: str, seq: int = 1) -> Commit:
    return Commit(task_id, seq, f"{task_id}-{seq}", "", 1.0, "me", "{}")


def update(task_id: str, seq: int) -> HeadUpdate:
    return HeadUpdate(task_id, "running", seq, seq, True, None, 2.0)


@asynccontextmanager
async def failing(database: Any, commands: list[str], **how: Any) -> AsyncIterator[None]:
    """The server fails these commands, of this database only."""
    admin = database.client.admin
    data = {"failCommands": commands, "namespace": f"{database.name}.{how.pop('collection')}", **how}
    await admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        await admin.command({"configureFailPoint": "failCommand", "mode": "off"})


class TestDoubt:
    async def test_a_write_concern_error_leaves_only_duplicates_clear(
        self, store: MongoStore, mongo_database: Any
    ) -> None:
        await store.insert_commits([commit("a")])
        doubt = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with failing(mongo_database, ["insert"], collection="commits", writeConcernError=doubt):
            outcomes = await store.insert_commits([commit("a"), commit("b"), commit("c")])
            alone = [await store.insert_commits([one]) for one in (commit("a"), commit("d"))]
        assert outcomes == [DUPLICATE, UNKNOWN, UNKNOWN]
        assert alone == [[DUPLICATE], [UNKNOWN]]
        # They come to be there all the same; a majority read right now need not find them.
        async with asyncio.timeout(5):
            while len(await store.read_commits(["a", "b", "c"])) < 3:
                pass

        async with failing(mongo_database, ["update"], collection="tasks", writeConcernError=doubt):
            assert await store.update_heads([update("t", 1)]) == [UNKNOWN]
        async with failing(mongo_database, ["update"], collection="workers", writeConcernError=doubt):
            assert await store.renew(Renewal("w", "i", 1, ())) is UNKNOWN
        async with failing(mongo_database, ["update"], collection="requests", writeConcernError=doubt):
            assert await store.mark_applied([("t", 1)]) is UNKNOWN
        async with failing(mongo_database, ["insert"], collection="requests", writeConcernError=doubt):
            assert await store.insert_request(Request("t", 1, "r", "cancel", "{}", 0, "t", "p", 1.0)) is UNKNOWN
        async with failing(mongo_database, ["insert"], collection="flows", writeConcernError=doubt):
            assert await store.insert_flow_version(FlowVersion("t", "f", 1, "g", 1.0, "p")) is UNKNOWN
        async with failing(mongo_database, ["insert"], collection="flow_tags", writeConcernError=doubt):
            assert await store.put_flow_tag(FlowTag("t", "f", "x", 1, 1, 1.0, "p")) is UNKNOWN
        async with failing(mongo_database, ["update"], collection="flow_tags", writeConcernError=doubt):
            assert await store.put_flow_tag(FlowTag("t", "f", "x", 1, 2, 1.0, "p")) is UNKNOWN

    async def test_an_error_of_the_whole_command_is_unknown_for_all(
        self, store: MongoStore, mongo_database: Any
    ) -> None:
        async with failing(mongo_database, ["insert"], collection="commits", errorCode=13):
            assert await store.insert_commits([commit("a"), commit("b")]) == [UNKNOWN] * 2
            assert await store.insert_commits([commit("a")]) == [UNKNOWN]
        async with failing(mongo_database, ["insert"], collection="commits", closeConnection=True):
            assert await store.insert_commits([commit("a"), commit("b")]) == [UNKNOWN] * 2
            assert await store.insert_commits([commit("a")]) == [UNKNOWN]
        assert await store.insert_commits([commit("a"), commit("b")]) == [OK] * 2

    async def test_a_read_without_an_answer_raises(self, store: MongoStore, mongo_database: Any) -> None:
        async with failing(mongo_database, ["find"], collection="tasks", errorCode=13):
            with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
                await store.read_heads(["t"])
        assert await store.read_heads(["t"]) == []

    async def test_an_update_that_cannot_be_checked_is_unknown(self, store: MongoStore, mongo_database: Any) -> None:
        await store.insert_heads([Head("a", 0, "g"), Head("b", 0, "g")])
        async with failing(mongo_database, ["find"], collection="tasks", errorCode=13):
            assert await store.update_heads([update("a", 1)]) == [OK]
            assert await store.update_heads([update("b", 1), update("ghost", 1)]) == [UNKNOWN] * 2

    async def test_a_blob_in_doubt_raises(self, store: MongoStore, mongo_database: Any) -> None:
        doubt = {"code": 64, "errmsg": "waiting for replication timed out"}
        async with failing(mongo_database, ["insert"], collection="graphs", errorCode=13):
            with pytest.raises(StoreUnavailable):
                await store.put_blob("ref", bytes(2_000_000), kind="graph")
        # In doubt, but a majority read finds all of it.
        async with failing(mongo_database, ["insert"], collection="graphs", writeConcernError=doubt):
            await store.put_blob("ref", bytes(2_000_000), kind="graph")
        assert len(await store.get_blob("ref", kind="graph")) == 2_000_000

    async def test_a_head_of_before_snapshots_is_read_as_it_was(self, store: MongoStore, mongo_database: Any) -> None:
        await store.insert_heads([Head("t", 0, "g", snapshot="1:s")])
        await mongo_database.tasks.update_one({"_id": "t"}, {"$unset": {"snapshot": 1}})

        assert await store.read_heads(["t"]) == [Head("t", 0, "g")]

    async def test_a_head_of_before_flows_and_children_is_read_and_listed_as_nobodys(
        self, store: MongoStore, mongo_database: Any
    ) -> None:
        await store.insert_heads([Head("t", 0, "g"), Head("child", 0, "g", parent="t")])
        new = ("flow", "flow_name", "parent", "parent_node", "parent_attempt", "depth", "deadline", "traceparent")
        await mongo_database.tasks.update_one({"_id": "t"}, {"$unset": dict.fromkeys(new, 1)})

        assert await store.list_heads(HeadFilter("default", parent=""), limit=9) == [Head("t", 0, "g")]
        assert [one.task_id for one in await store.list_heads(HeadFilter(parent="t"), limit=9)] == ["child"]
        assert [one.task_id for one in await store.list_heads(HeadFilter(flow=""), limit=9)] == ["t", "child"]

    async def test_a_blob_with_a_missing_piece_is_not_there(self, store: MongoStore, mongo_database: Any) -> None:
        await store.put_blob("ref", bytes(2_000_000), kind="graph")
        await mongo_database.graphs.delete_one({"_id": "ref:000002"})
        with pytest.raises(KeyError):
            await store.get_blob("ref", kind="graph")
        await store.put_blob("ref", bytes(2_000_000), kind="graph")
        assert len(await store.get_blob("ref", kind="graph")) == 2_000_000


async def test_a_read_of_hundreds_of_documents_is_one_round_trip(mongo_url: str) -> None:
    asked: list[str] = []

    class Listener(CommandListener):
        def started(self, event: Any) -> None:
            asked.append(event.command_name)

        def succeeded(self, event: Any) -> None: ...

        def failed(self, event: Any) -> None: ...

    async with AsyncMongoClient(mongo_url, event_listeners=[Listener()]) as client:
        name = f"reads_{uuid.uuid4().hex[:8]}"
        store = MongoStore(client[name])
        await store.start()
        heads = [Head(f"t{i:03}", 0, "g") for i in range(300)]
        assert await store.insert_heads(heads) == [OK] * 300
        asked.clear()

        assert len(await store.list_heads(HeadFilter(), limit=300)) == 300
        assert len(await store.read_heads([head.task_id for head in heads[:200]])) == 200
        assert asked == ["find", "find"]
        await store.stop()
        await client.drop_database(name)


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_a_frozen_server_is_doubt_within_the_timeout_and_then_goes_on(
    own_server: MongoServer, driver: str
) -> None:
    if driver == "pymongo":
        client: Any = AsyncMongoClient(own_server.url)
    else:
        client = pytest.importorskip("motor.motor_asyncio").AsyncIOMotorClient(own_server.url)
    database = client[f"frozen_{uuid.uuid4().hex[:8]}"]
    store, patient = MongoStore(database, timeout=1.0), MongoStore(database, timeout=60.0)
    for one in (store, patient):
        await one.start()
    assert await patient.insert_commits([commit("before")]) == [OK]

    own_server.freeze()
    try:
        began = time.monotonic()
        outcomes, head, request = await asyncio.gather(
            store.insert_commits([commit(f"t{i}") for i in range(10)]),
            store.update_heads([update("t", 1)]),
            store.insert_request(Request("t", 1, "r", "cancel", "{}", 0, "t", "p", 1.0)),
        )
        assert outcomes == [UNKNOWN] * 10
        assert head == [UNKNOWN]
        assert request is UNKNOWN
        with pytest.raises(StoreUnavailable):
            await store.read_commits(["before"])
        assert time.monotonic() - began < 15.0
    finally:
        own_server.thaw()

    async with asyncio.timeout(60):
        while await store.insert_commits([commit("after")]) == [UNKNOWN]:
            pass  # each try takes its timeout
    assert [one.task_id for one in await patient.read_commits(["before", "after"])] == ["after", "before"]
    for one in (store, patient):
        await one.stop()
    closed = client.close()
    if closed is not None:
        await closed


class TestHandles:
    async def test_a_url_makes_a_client_of_our_own_and_closes_it(self, mongo_url: str) -> None:
        name = f"flowkit_test_{uuid.uuid4().hex[:8]}"
        base, _, options = mongo_url.partition("?")
        store = MongoStore(f"{base.rstrip('/')}/{name}?{options}")
        await store.start()
        assert await store.insert_commits([commit("t")]) == [OK]
        assert str((await store.describe())["address"]).endswith(f"/{name}")
        client = store._database.started().own_client
        await client.drop_database(name)
        await store.stop()
        with pytest.raises(Exception, match="close"):
            await client.admin.command("ping")

    async def test_a_handle_given_stays_open(self, store: MongoStore, mongo_database: Any) -> None:
        await store.stop()
        assert (await mongo_database.command("ping"))["ok"] == 1.0

    async def test_what_a_handle_was_tuned_to_does_not_weaken_the_store(self, mongo_url: str) -> None:
        from bson.codec_options import CodecOptions
        from pymongo import ReadPreference, WriteConcern

        name = f"flowkit_test_{uuid.uuid4().hex[:8]}"
        async with AsyncMongoClient(mongo_url, retryWrites=False, tz_aware=True) as client:
            weak: Any = client.get_database(
                name,
                codec_options=CodecOptions(document_class=dict, tz_aware=True),
                write_concern=WriteConcern(w=0),
                read_preference=ReadPreference.SECONDARY_PREFERRED,
            )
            store = MongoStore(weak)
            await store.start()
            assert await store.insert_commits([commit("t"), commit("t")]) == [OK, DUPLICATE]
            assert store._database.collection("commits").write_concern.document == {"w": "majority", "j": True}
            await client.drop_database(name)
            await store.stop()

    def test_a_synchronous_handle_is_refused_with_a_hint(self) -> None:
        with (
            MongoClient("127.0.0.1", connect=False) as client,
            pytest.raises(ConfigError, match="AsyncMongoClient"),
        ):
            MongoStore(client["x"])

    async def test_a_client_is_refused_with_a_hint(self) -> None:
        client: Any = AsyncMongoClient("127.0.0.1", connect=False)
        with pytest.raises(ConfigError, match="flowkit"):
            MongoStore(client)
        await client.close()

    @pytest.mark.parametrize("wrong", [None, 7, "127.0.0.1:27017", "http://x", "mongodb://"])
    def test_anything_else_is_refused_with_a_hint(self, wrong: object) -> None:
        with pytest.raises(ConfigError, match=r"mongodb://|MongoDB URL"):
            MongoStore(wrong)

    async def test_a_server_that_is_not_there_is_named_without_its_password(self) -> None:
        store = MongoStore("mongodb://user:sesame@127.0.0.1:1/x", start_timeout=0.5)
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as caught:
            await store.start()
        assert "sesame" not in str(caught.value)
        with pytest.raises(StoreUnavailable, match="not started"):
            await store.read_heads(["t"])


async def test_the_queries_of_the_hot_path_use_their_indexes(store: MongoStore, mongo_database: Any) -> None:
    await store.insert_heads([Head(f"t{i}", i % 4, "g", labels={"k": "v"}) for i in range(50)])

    async def index_of(collection: str, query: dict[str, Any], sort: dict[str, int]) -> str:
        explained = await mongo_database.command(
            {"explain": {"find": collection, "filter": query, "sort": sort, "limit": 5}}
        )
        plan = str(explained["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in plan
        return plan

    due = {"partition": {"$in": [1, 2]}, "active": True, "wake": {"$lte": 5.0}}
    assert "'due'" in await index_of("tasks", due, {"wake": 1, "_id": 1})
    active = {"partition": 1, "active": True, "_id": {"$gt": "t"}}
    assert "'active'" in await index_of("tasks", active, {"_id": 1})
    opened = {"partition": {"$in": [1, 2]}, "applied": False}
    assert "'open'" in await index_of("requests", opened, {"task": 1, "n": 1})
    await index_of("commits", {"$or": [{"_id": {"$gt": "t:1", "$lt": "t;"}, "task": "t"}]}, {})

    assert "'versions'" in await index_of("flows", {"tenant": "t", "name": "f", "version": {"$lt": 9}}, {"version": -1})
    assert "'versions'" in await index_of("flows", {"tenant": "t", "version": 1, "name": {"$gt": ""}}, {"name": 1})
    await index_of("flow_tags", {"tenant": "t", "name": {"$in": ["f", "g"]}}, {"name": 1, "tag": 1})

    # Of indexes that would all do, a trial on what is there chooses: few of many are wanted, and none of the newest.
    many = [Head(f"c{i}", 0, "g", tenant="x", created_at=float(i), parent="mother") for i in range(100, 500)]
    few = [Head(f"f{i}", 0, "g", tenant="x", created_at=float(i), flow=f"etl@{3 + i % 2}") for i in range(20)]
    await store.insert_heads(many + few)
    for where, index in [
        (HeadFilter("x", parent=""), "family"),
        (HeadFilter("x", parent="t"), "family"),
        (HeadFilter("x", flow="etl"), "flow"),
        (HeadFilter("x", flow="etl@3"), "flow"),
    ]:
        for after in (None, (450.0, "t")):
            plan = await index_of("tasks", list_query(where, after), {"created_at": -1, "_id": -1})
            assert f"'{index}'" in plan
            assert "'SORT'" not in plan
