"""What every `TraceStore` promises, asked of every backend."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from flowkit.monitor_ports import (
    HOUR_SEC,
    AttemptQuery,
    AttemptRecord,
    Histogram,
    TraceStore,
    bin_of,
    seconds_of,
)  # fmt: skip
from flowkit.ports import Outcome, Store
from flowkit.trace.history import histograms_of
from flowkit.wire.rollups import records_in
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


async def test_histograms_count_by_bucket_node_outcome_and_bin(traces: TraceStore) -> None:
    await traces.insert_attempts([
        record(1, ended_at=BEGAN, run_sec=1.0), record(2, ended_at=BEGAN + 3599.9, run_sec=1.0),
        record(3, ended_at=BEGAN + 3600.0, run_sec=1.0), record(4, ended_at=BEGAN, run_sec=9.0, outcome="lost"),
        record(5, ended_at=BEGAN, run_sec=0.0, base="save", node="save", outcome="cancelled"),
    ])  # fmt: skip

    one, nine = bin_of(1.0), bin_of(9.0)
    assert await traces.histograms(ALL, bucket_sec=3600.0) == [
        Histogram("etl", "load", BEGAN, {"succeeded": {one: 2}, "lost": {nine: 1}}),
        Histogram("etl", "load", BEGAN + 3600.0, {"succeeded": {one: 1}}),
        Histogram("etl", "save", BEGAN, {"cancelled": {0: 1}}),
    ]
    (day,) = await traces.histograms(replace(ALL, flow="etl", base="load"), bucket_sec=DAY)
    assert day.outcomes == {"succeeded": {one: 3}, "lost": {nine: 1}}
    assert await traces.histograms(replace(ALL, flow="nothing"), bucket_sec=DAY) == []


def usage(cpu_sec: float, memory: int) -> dict[str, Any]:
    return {"verdict": "finished", "level": "L3", "cpu_sec": cpu_sec, "peak_memory_bytes": memory, "sent_bytes": 7}


async def test_what_programs_used_comes_back_and_orders_those_that_ran_one(traces: TraceStore) -> None:
    records = [
        record(1), record(2, usage=usage(0.5, 2**33)), record(3, usage=usage(2.0, 2**20), ended_at=BEGAN + DAY),
        record(4, usage={"verdict": "timeout", "level": "L2"}), record(5, usage=usage(float("nan"), 1)),
    ]  # fmt: skip
    assert await traces.insert_attempts(records) == [OK, OK, OK, OK, UNKNOWN]

    assert await traces.slowest_attempts(ALL, limit=9) == records[3::-1]
    assert await traces.slowest_attempts(ALL, limit=9, by="cpu") == [records[2], records[1]]
    assert await traces.slowest_attempts(ALL, limit=1, by="memory") == [records[1]]


async def counted(traces: TraceStore, span: int, **fields: Any) -> list[Histogram]:
    return histograms_of(await traces.rollups(replace(ALL, **fields), span=span), None, span)


async def test_what_is_counted_adds_up_by_hour_and_day_and_marks_its_tasks(traces: TraceStore) -> None:
    one, two = bin_of(1.0), bin_of(2.0)
    hour = BEGAN + DAY - HOUR_SEC  # the last of a day
    first = [
        record(1, ended_at=hour, run_sec=1.0), record(2, ended_at=hour + 3599.0, run_sec=1.0, outcome="failed"),
        record(3, ended_at=hour, run_sec=1.0, tenant="else"), record(4, ended_at=hour, flow="other", run_sec=2.0),
    ]  # fmt: skip
    later = [record(5, ended_at=hour + 1.0, run_sec=2.0), record(6, ended_at=hour + 3600.0, run_sec=2.0, base="save")]
    assert await traces.count_attempts({f"t{n}": (0, n) for n in (1, 2, 3, 4)}, first) is OK
    assert await traces.count_attempts({"t5": (0, 5), "t6": (0, 6)}, later) is OK

    assert await counted(traces, HOUR_SEC, flow="etl") == [
        Histogram("etl", "load", hour, {"succeeded": {one: 1, two: 1}, "failed": {one: 1}}),
        Histogram("etl", "save", hour + 3600.0, {"succeeded": {two: 1}}),
    ]
    assert [(each.flow, each.base, each.start) for each in await counted(traces, int(DAY))] == [
        ("etl", "load", BEGAN), ("etl", "save", BEGAN + DAY), ("other", "load", BEGAN),
    ]  # fmt: skip
    assert [each.outcomes for each in await counted(traces, HOUR_SEC, tenant="else")] == [{"succeeded": {one: 1}}]
    touched = await counted(traces, HOUR_SEC, since=hour + 3599.5, until=hour + 3600.0)
    assert {(each.flow, each.start) for each in touched} == {("etl", hour), ("other", hour)}
    assert await counted(traces, HOUR_SEC, since=hour + 7200.0) == await counted(traces, HOUR_SEC, until=hour) == []
    assert await traces.indexed(["t1", "t6", "t7"]) == {"t1": 1, "t6": 6}


async def test_nothing_is_counted_where_one_of_them_was_counted_already(traces: TraceStore) -> None:
    assert await traces.count_attempts({"a": (0, 5), "b": (0, 3)}, [record(1, task_id="a")]) is OK
    was = await counted(traces, HOUR_SEC)

    again = [record(1, task_id="a"), record(2, task_id="c")]
    assert await traces.count_attempts({"a": (0, 5), "c": (0, 2)}, again) is Outcome.NO_MATCH
    assert await traces.count_attempts({"a": (3, 9)}, again[:1]) is Outcome.NO_MATCH
    assert await traces.count_attempts({"a": (6, 9)}, again[:1]) is Outcome.NO_MATCH  # nobody counted the sixth
    assert await traces.count_attempts({"d": (1, 2)}, again[:1]) is Outcome.NO_MATCH
    assert (await counted(traces, HOUR_SEC), await traces.indexed(["a", "b", "c"])) == (was, {"a": 5, "b": 3})

    assert await traces.count_attempts({"a": (5, 9), "c": (0, 2)}, again) is OK
    assert await traces.count_attempts({}, []) is OK
    assert sum(sum(each.outcomes["succeeded"].values()) for each in await counted(traces, HOUR_SEC)) == 3
    assert await traces.indexed(["a", "b", "c"]) == {"a": 9, "b": 3, "c": 2}


async def test_of_many_who_count_the_same_tasks_at_once_one_does(traces: TraceStore) -> None:
    def batch(number: int) -> tuple[dict[str, tuple[int, int]], list[AttemptRecord]]:
        tasks = [f"t{number}", f"t{number + 1}"]
        return {task: (0, 1) for task in tasks}, [record(number, task_id=task) for task in tasks]

    outcomes = await asyncio.gather(*(traces.count_attempts(*batch(n % 4)) for n in range(12)))

    marked = await traces.indexed([f"t{n}" for n in range(5)])
    total = sum(sum(each.outcomes["succeeded"].values()) for each in await counted(traces, HOUR_SEC))
    assert total == len(marked) == 2 * outcomes.count(OK)
    assert set(outcomes) <= {OK, Outcome.NO_MATCH, UNKNOWN}


async def test_a_rollup_that_has_grown_is_continued_in_another(traces: TraceStore) -> None:
    for start in range(0, 4000, 1000):
        records = [record(n, base=f"n{n}", node=f"n{n}", ended_at=BEGAN) for n in range(start, start + 1000)]
        assert await traces.count_attempts({f"t{n}": (0, 1) for n in range(start, start + 1000)}, records) is OK

    rollups = await traces.rollups(ALL, span=HOUR_SEC)
    assert len({one.part for one in rollups}) == len(rollups) > 2
    assert max(len(one.body) for one in rollups) < 500_000
    assert len(histograms_of(rollups, None, HOUR_SEC)) == 4000


async def test_a_rollup_keeps_the_records_with_most_of_each_node(traces: TraceStore) -> None:
    records = [record(n, ended_at=BEGAN + n, usage=usage(1.0 / n, n) if n % 2 else None) for n in range(1, 60)]
    for start in (0, 30):
        part = records[start : start + 30]
        await traces.count_attempts({one.task_id: (0, 1) for one in part}, part)
    (hour,) = await traces.rollups(ALL, span=HOUR_SEC)

    assert records_in(hour, "load", "run") == records[:-6:-1]
    assert records_in(hour, None, "cpu") == records[:10:2]
    assert records_in(hour, "load", "memory") == records[:-11:-2]
    assert records_in(hour, "save", "run") == []


async def test_rollups_go_when_their_span_is_over_for_so_long(traces: TraceStore) -> None:
    await traces.count_attempts({"a": (0, 1)}, [record(n, ended_at=BEGAN + n * 3600.0) for n in range(30)])

    removed = [await traces.expire_rollups(BEGAN + 8.5 * 3600.0, limit=5) for _ in range(3)]
    assert removed == [5, 3, 0]
    assert len(await traces.rollups(ALL, span=HOUR_SEC)) == 22
    assert len(await traces.rollups(ALL, span=int(DAY))) == 2


async def test_old_ones_go_so_many_at_a_time(traces: TraceStore) -> None:
    await traces.insert_attempts([record(n) for n in range(10)])

    removed = [await traces.expire_attempts(BEGAN + 8.0, limit=4) for _ in range(3)]
    assert removed == [4, 2, 0]
    assert len(await traces.slowest_attempts(ALL, limit=99)) == 4


async def test_they_go_with_the_history_of_their_task(traces: TraceStore, store: Store) -> None:
    await traces.insert_attempts([record(n % 3, attempt=n) for n in range(1300)])
    await traces.count_attempts({"t0": (0, 1), "t1": (0, 1), "t2": (0, 1)}, [record(0)])

    assert await store.delete_history(["t0", "t2"]) is OK
    assert {one.task_id for one in await traces.slowest_attempts(ALL, limit=999)} == {"t1"}
    assert await traces.indexed(["t0", "t1", "t2"]) == {"t1": 1}
    assert len(await counted(traces, HOUR_SEC)) == 1  # what was counted stays so

    assert await traces.count_attempts({"t0": (0, 4)}, [record(0)]) is OK  # another task of the same name
    assert await traces.indexed(["t0"]) == {"t0": 4}


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
    wanted = [await store.traces.histograms(query, bucket_sec=3600.0) for query in queries]
    collection = store.traces._collection

    class Narrow:
        def aggregate(self, pipeline: list[dict[str, Any]], **options: Any) -> Any:
            if "marks" in pipeline[1]["$group"]:
                raise OperationFailure("BSONObj size is invalid", code=10334)
            return collection("attempts").aggregate(pipeline, **options)

    monkeypatch.setattr(store.traces, "_collection", lambda name: Narrow())
    assert [await store.traces.histograms(query, bucket_sec=3600.0) for query in queries] == wanted
    assert sum(sum(bins.values()) for one in wanted[0] for bins in one.outcomes.values()) == 400
    await store.stop()
