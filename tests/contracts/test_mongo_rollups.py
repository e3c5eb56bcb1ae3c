"""How attempts are counted once in MongoDB, whoever dies, comes late or comes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("pymongo")

from flowkit.adapters.mongo import MongoStore
from flowkit.errors import StoreUnavailable
from flowkit.monitor_ports import HOUR_SEC, AttemptRecord
from flowkit.ports import Outcome
from flowkit.trace.history import histograms_of
from tests.contracts.test_traces import ALL, BEGAN, record

pytestmark = pytest.mark.mongo

Batch = tuple[dict[str, tuple[int, int]], list[AttemptRecord]]


@pytest.fixture
async def stores(mongo_database: Any) -> AsyncIterator[list[MongoStore]]:
    """Three processes with one database."""
    stores = [MongoStore(mongo_database) for _ in range(3)]
    for store in stores:
        await store.start()
    yield stores
    for store in stores:
        await store.stop()


def batch(*numbers: int, flows: int = 1) -> Batch:
    records = [record(n, flow=f"f{n % flows}", ended_at=BEGAN + n) for n in numbers]
    return {one.task_id: (0, 1) for one in records}, records


async def total(store: MongoStore, span: int = HOUR_SEC) -> int:
    found = histograms_of(await store.traces.rollups(ALL, span=span), None, span)
    return sum(sum(bins.values()) for one in found for bins in one.outcomes.values())


async def test_five_hundred_tasks_of_a_flow_cost_three_documents(stores: list[MongoStore], mongo_database: Any) -> None:
    for start in (0, 500):
        assert await stores[0].traces.count_attempts(*batch(*range(start, start + 500))) is Outcome.OK

    sizes = {name: await mongo_database[name].count_documents({}) for name in ("batches", "rollups", "attempts")}
    assert sizes == {"batches": 2, "rollups": 2, "attempts": 0}
    assert await total(stores[0]) == await total(stores[0], 86_400) == 1000


async def test_what_somebody_inserted_who_died_then_is_added_by_the_next_and_once(stores: list[MongoStore]) -> None:
    dies, heir, _ = stores

    async def death(batch: Any) -> None:
        raise StoreUnavailable("gone")

    add = dies.traces._rollups._add
    dies.traces._rollups._add = death  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await dies.traces.count_attempts(*batch(1, 2))
    assert await total(heir) == 0

    assert await heir.traces.count_attempts({}, []) is Outcome.OK
    assert await total(heir) == 2
    assert await heir.traces.count_attempts(*batch(1)) is Outcome.NO_MATCH
    assert await heir.traces.count_attempts(*batch(3)) is Outcome.OK

    dies.traces._rollups._add = add  # type: ignore[method-assign]
    for number in (2, 1, 2):  # who was only slow adds what was added meanwhile, in any order
        (late,) = await dies.traces._rollups._docs("batches", {"_id": number})
        await dies.traces._rollups._add(late)
    assert await total(heir) == await total(heir, 86_400) == 3


async def test_who_dies_with_half_of_a_batch_added_leaves_the_other_half_to_the_next(stores: list[MongoStore]) -> None:
    dies, heir, late = stores
    write = dies.traces._rollups._write

    async def half(writes: list[Any]) -> None:
        await write(writes[: len(writes) // 2])
        raise StoreUnavailable("gone")

    dies.traces._rollups._write = half  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await dies.traces.count_attempts(*batch(*range(40), flows=10))
    assert 0 < await total(heir) + await total(heir, 86_400) < 80

    outcomes = await asyncio.gather(*(one.traces.count_attempts({}, []) for one in (heir, late, heir, late)))
    assert set(outcomes) == {Outcome.OK}
    assert await total(heir) == await total(heir, 86_400) == 40


async def test_of_those_who_count_at_the_same_time_all_get_their_turn(stores: list[MongoStore]) -> None:
    async def work(store: MongoStore, first: int) -> None:
        for number in range(first, 60, len(stores)):
            while (outcome := await store.traces.count_attempts(*batch(number))) is not Outcome.OK:
                assert outcome is Outcome.UNKNOWN  # so many were first each time that it gave up

    await asyncio.gather(*(work(store, first) for first, store in enumerate(stores)))

    assert await total(stores[0]) == await total(stores[0], 86_400) == 60
    numbers = [doc["_id"] for doc in await stores[0].traces._rollups._docs("batches", {}, ["_id"])]
    assert sorted(numbers) == list(range(1, 61))


async def test_what_was_added_is_let_go_and_batches_go_with_their_tasks(stores: list[MongoStore]) -> None:
    store = stores[0]
    for number in range(70):
        await store.traces.count_attempts(*batch(number))
    docs = {doc["_id"]: doc for doc in await store.traces._rollups._docs("batches", {})}
    assert [number for number, doc in docs.items() if doc["bodies"]] == list(range(64, 71))
    assert await store.traces.indexed(["t0", "t69"]) == {"t0": 1, "t69": 1}

    await store.delete_history([f"t{number}" for number in range(70)])
    await store.traces.expire_rollups(0.0, limit=10)
    assert [doc["_id"] for doc in await store.traces._rollups._docs("batches", {})] == [70]  # the next one is 71
    assert await total(store) == 70
