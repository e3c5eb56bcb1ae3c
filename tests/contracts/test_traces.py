"""What every `TraceStore` promises, asked of every backend."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from flowkit.monitor_ports import AttemptQuery, AttemptRecord, HistogramRow, TraceStore, bin_of, seconds_of
from flowkit.ports import Outcome, Store
from tests.contracts.conftest import PATIENCE_SEC

OK, DUPLICATE, UNKNOWN = Outcome.OK, Outcome.DUPLICATE, Outcome.UNKNOWN
DAY = 86_400.0
BEGAN = 20_000 * DAY
# Not "since ever": a store looks at each day of a query by itself, and whoever asks may ask for a quarter of a year.
ALL = AttemptQuery("acme", BEGAN - DAY, BEGAN + 4 * DAY)


def record(number: int, **fields: Any) -> AttemptRecord:
    usual = {
        "task_id": f"t{number}", "tenant": "acme", "flow": "etl", "node": "load[3]", "base": "load", "role": "work",
        "attempt": 1, "generation": 0, "outcome": "succeeded", "code": "", "worker": "w \u00fc",
        "ready_at": BEGAN + number, "leased_at": BEGAN + number + 0.5, "ended_at": BEGAN + number + 2.0,
        "run_sec": float(number), "seq": number + 1,
    }  # fmt: skip
    return AttemptRecord(**{**usual, **fields})


@pytest.fixture
def traces(store: Store) -> TraceStore:
    return store.traces  # type: ignore[attr-defined, no-any-return]


async def test_records_come_back_as_they_were_the_slowest_first(traces: TraceStore) -> None:
    records = [record(1), record(3, generation=2, code="boom", outcome="failed"), record(2, run_sec=7.25)]

    assert await traces.insert_attempts(records) == [OK] * 3
    assert await traces.slowest_attempts(ALL, limit=9) == [records[2], records[1], records[0]]
    assert await traces.slowest_attempts(ALL, limit=1) == [records[2]]


async def test_a_record_that_comes_twice_is_there_once_as_it_came_first(traces: TraceStore) -> None:
    await traces.insert_attempts([record(1)])

    again, other = record(1, run_sec=99.0), [record(1, attempt=2), record(1, node="load[4]")]
    assert await traces.insert_attempts([again, *other]) == [DUPLICATE, OK, OK]
    assert {one.run_sec for one in await traces.slowest_attempts(ALL, limit=9)} == {1.0}


async def test_one_that_no_store_can_keep_leaves_the_others_alone(traces: TraceStore) -> None:
    bad = [record(1, code="\ud800"), record(2, run_sec=float("nan"))]

    assert await traces.insert_attempts([bad[0], record(3), bad[1]]) == [UNKNOWN, OK, UNKNOWN]
    assert await traces.insert_attempts([]) == []


async def test_of_the_same_time_the_order_is_that_of_their_names(traces: TraceStore) -> None:
    records = [record(n, run_sec=1.0, ended_at=BEGAN + day * DAY) for n in range(6) for day in (n % 3,)]
    await traces.insert_attempts(records[::-1])

    assert [one.task_id for one in await traces.slowest_attempts(ALL, limit=4)] == ["t0", "t1", "t2", "t3"]


async def test_a_query_restricts(traces: TraceStore) -> None:
    await traces.insert_attempts([
        record(1), record(2, flow="other"), record(3, base="save", node="save"), record(4, tenant="else"),
        record(5, ended_at=BEGAN + 3 * DAY),
    ])  # fmt: skip

    async def found(**fields: Any) -> list[str]:
        return sorted(one.task_id for one in await traces.slowest_attempts(replace(ALL, **fields), limit=9))

    assert await found() == ["t1", "t2", "t3", "t5"]
    assert await found(tenant="else") == ["t4"]
    assert await found(flow="etl") == ["t1", "t3", "t5"]
    assert await found(flow="etl", base="save") == ["t3"]
    assert await found(base="load") == ["t1", "t2", "t5"]
    assert await found(since=BEGAN + 3.0) == ["t1", "t2", "t3", "t5"]
    assert await found(since=BEGAN + 3.5, until=BEGAN + 3 * DAY) == ["t2", "t3"]
    assert await found(since=BEGAN + 3 * DAY, until=BEGAN + 3 * DAY + 0.1) == ["t5"]


async def test_a_histogram_counts_by_bucket_node_bin_and_outcome(traces: TraceStore) -> None:
    await traces.insert_attempts([
        record(1, ended_at=BEGAN, run_sec=1.0), record(2, ended_at=BEGAN + 3599.9, run_sec=1.0),
        record(3, ended_at=BEGAN + 3600.0, run_sec=1.0), record(4, ended_at=BEGAN, run_sec=9.0, outcome="lost"),
        record(5, ended_at=BEGAN, run_sec=0.0, base="save", node="save", outcome="cancelled"),
    ])  # fmt: skip

    assert await traces.histogram(ALL, bucket_sec=3600.0) == [
        HistogramRow("etl", "load", BEGAN, bin_of(1.0), False, 2),
        HistogramRow("etl", "load", BEGAN, bin_of(9.0), True, 1),
        HistogramRow("etl", "load", BEGAN + 3600.0, bin_of(1.0), False, 1),
        HistogramRow("etl", "save", BEGAN, 0, False, 1),
    ]
    assert len(await traces.histogram(replace(ALL, flow="etl", base="load"), bucket_sec=DAY)) == 2
    assert await traces.histogram(replace(ALL, flow="nothing"), bucket_sec=DAY) == []


async def test_a_mark_never_goes_backwards(traces: TraceStore) -> None:
    assert await traces.mark_indexed({"a": 5, "b": 1}) is OK
    assert await traces.mark_indexed({"a": 3, "b": 2}) is OK
    assert await traces.mark_indexed({}) is OK

    assert await traces.indexed(["a", "b", "c"]) == {"a": 5, "b": 2}


async def test_old_ones_go_so_many_at_a_time(traces: TraceStore) -> None:
    await traces.insert_attempts([record(n) for n in range(10)])

    removed = [await traces.expire_attempts(BEGAN + 8.0, limit=4) for _ in range(3)]
    assert removed == [4, 2, 0]
    assert len(await traces.slowest_attempts(ALL, limit=99)) == 4


async def test_they_go_with_the_history_of_their_task(traces: TraceStore, store: Store) -> None:
    await traces.insert_attempts([record(n % 3, attempt=n) for n in range(1300)])
    await traces.mark_indexed({"t0": 1, "t1": 1, "t2": 1})

    assert await store.delete_history(["t0", "t2"]) is OK
    assert {one.task_id for one in await traces.slowest_attempts(ALL, limit=999)} == {"t1"}
    assert await traces.indexed(["t0", "t1", "t2"]) == {"t1": 1}


def test_the_middle_of_a_bin_is_near_to_all_that_fell_into_it() -> None:
    dice = random.Random(7)
    for _ in range(10_000):
        seconds = 10 ** dice.uniform(-3.9, 6)
        assert abs(seconds_of(bin_of(seconds)) / seconds - 1) < 0.026
    assert (bin_of(0.0), seconds_of(0)) == (0, 0.0)


@pytest.mark.mongo
async def test_where_a_document_is_too_small_for_a_bucket_mongodb_counts_instead(
    pymongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymongo.errors import OperationFailure

    from flowkit.adapters.mongo import MongoStore

    store = MongoStore(pymongo_database, timeout=PATIENCE_SEC)
    await store.start()
    records = [record(n % 40, attempt=n, outcome="failed" if n % 7 == 0 else "succeeded") for n in range(400)]
    await store.traces.insert_attempts(records)
    queries = (ALL, replace(ALL, flow="etl", base="load"))
    wanted = [await store.traces.histogram(query, bucket_sec=3600.0) for query in queries]
    collection = store.traces._collection

    class Narrow:
        def aggregate(self, pipeline: list[dict[str, Any]], **options: Any) -> Any:
            if "marks" in pipeline[1]["$group"]:
                raise OperationFailure("BSONObj size is invalid", code=10334)
            return collection("attempts").aggregate(pipeline, **options)

    monkeypatch.setattr(store.traces, "_collection", lambda name: Narrow())
    assert [await store.traces.histogram(query, bucket_sec=3600.0) for query in queries] == wanted
    assert sum(row.count for row in wanted[0]) == 400
    await store.stop()
