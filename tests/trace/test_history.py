"""Percentiles and failure rates over time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.monitor_ports import AttemptRecord, Histogram, bin_of
from flowkit.ports import Outcome
from flowkit.trace.history import points_of, quantile
from flowkit.trace.task_trace import Recorded
from flowkit.trace.traces import Traces
from tests.contracts.test_traces import BEGAN, DAY, record


def test_a_point_tells_count_failures_and_percentiles_of_what_succeeded() -> None:
    first, second, third = points_of([
        Histogram("etl", "load", 0.0, {"succeeded": {bin_of(1.0): 90, bin_of(10.0): 6}, "cancelled": {bin_of(1.0): 4},
                                       "failed": {bin_of(99.0): 20}, "lost": {bin_of(99.0): 5}}),
        Histogram("etl", "load", 3600.0, {"lost": {bin_of(1.0): 2}}),
        Histogram("etl", "save", 0.0, {"succeeded": {bin_of(2.0): 1}}),
    ])  # fmt: skip

    assert first.outcomes == {"succeeded": 96, "cancelled": 4, "failed": 20, "lost": 5}
    assert (first.count, first.failed, first.failure_rate) == (125, 25, 0.2)
    assert first.p50 == pytest.approx(1.0, rel=0.026)
    assert first.p95 == pytest.approx(10.0, rel=0.026)
    assert (second.count, second.failure_rate, second.p50, second.p95) == (2, 1.0, None, None)
    assert (third.node, third.p50) == ("save", pytest.approx(2.0, rel=0.026))


def test_a_quantile_is_what_that_share_did_not_exceed() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({0: 1, 5: 1}, 0.5) == 0.0
    assert quantile({0: 1, 5: 2}, 0.5) == quantile({5: 1}, 0.95)


async def nobodys(task_id: str) -> Recorded:
    raise AssertionError(task_id)


async def counted(records: Sequence[AttemptRecord], *, keep: bool = True) -> Traces:
    store = MemoryStore()
    if keep:
        await store.traces.insert_attempts(records)
    assert await store.traces.count_attempts({one.task_id: (0, one.seq) for one in records}, records) is Outcome.OK
    return Traces(nobodys, store.traces, ManualClock(BEGAN + DAY))


async def test_questions_are_bounded() -> None:
    traces = await counted([record(n, tenant="default") for n in range(1, 30)])

    (point,) = await traces.history(bucket_sec=DAY)
    assert (point.count, point.start, point.p50) == (29, BEGAN, pytest.approx(15.0, rel=0.026))
    assert [one.run_sec for one in await traces.slowest(limit=2)] == [29.0, 28.0]
    assert await traces.slowest(since=BEGAN - DAY, until=BEGAN) == []
    for wrong in ({"bucket_sec": 1.0}, {"bucket_sec": 0.5}, {"since": 0.0}, {"since": 9e9}):
        with pytest.raises(ValueError, match=r"at most|not less"):
            await traces.history(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit is"):
        await traces.slowest(limit=0)
    with pytest.raises(ValueError, match=r"did you mean 'memory'\?"):
        await traces.slowest(by="memry")


async def test_buckets_of_hours_come_from_what_was_counted_and_others_from_the_records() -> None:
    records = [record(n, tenant="default", ended_at=BEGAN + 100.0 * n) for n in range(1, 300)]
    both, alone = await counted(records), await counted(records, keep=False)

    for bucket in (3600.0, 7200.0, DAY):
        since, until = BEGAN + 1800.0, BEGAN + 5.5 * 3600
        found = await both.history(bucket_sec=bucket, since=since, until=until, node="load")
        assert found == await alone.history(bucket_sec=bucket, since=since, until=until)
        whole = [point for point in found if point.start]
        inside = [one for one in records if whole[0].start <= one.ended_at < whole[-1].start + bucket]
        assert sum(point.count for point in found) == len(inside)
    (minute,) = await both.history(bucket_sec=60.0, since=BEGAN + 100.0, until=BEGAN + 101.0)
    assert (minute.start, minute.count) == (BEGAN + 60.0, 1)
    with pytest.raises(ValueError, match=r"60 s is no whole hour.*trace_index"):
        await alone.history(bucket_sec=60.0, since=BEGAN, until=BEGAN + 3600.0)
    assert (
        await alone.history(node="nothing") == await alone.history(flow="nothing", bucket_sec=60.0, since=BEGAN) == []
    )


async def test_without_records_the_five_that_took_most_of_each_node_and_day_are_known() -> None:
    records = [
        record(n, tenant="default", base=f"n{n % 3}", ended_at=BEGAN - day * DAY + n, task_id=f"t{n}.{day}")
        for n in range(40) for day in range(3)
    ]  # fmt: skip
    both, alone = await counted(records), await counted(records, keep=False)

    assert await both.slowest(limit=40) != await alone.slowest(limit=50)
    assert await both.slowest(limit=5) == await alone.slowest(limit=5)
    assert len(await alone.slowest(limit=1000)) == 3 * 3 * 5
    assert len(await both.slowest(limit=1000)) == 120
    assert [one.run_sec for one in await alone.slowest(node="n1", limit=3)] == [37.0] * 3
