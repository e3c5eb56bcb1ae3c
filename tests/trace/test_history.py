"""Percentiles and failure rates over time."""

from __future__ import annotations

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.monitor_ports import HistogramRow, bin_of
from flowkit.trace.history import points_of, quantile
from flowkit.trace.traces import Traces
from tests.contracts.test_traces import BEGAN, DAY, record


def test_a_point_tells_count_failures_and_percentiles_of_what_succeeded() -> None:
    rows = [
        HistogramRow("etl", "load", 0.0, bin_of(1.0), False, 94),
        HistogramRow("etl", "load", 0.0, bin_of(10.0), False, 6),
        HistogramRow("etl", "load", 0.0, bin_of(99.0), True, 25),
        HistogramRow("etl", "load", 3600.0, bin_of(1.0), True, 2),
        HistogramRow("etl", "save", 0.0, bin_of(2.0), False, 1),
    ]
    first, second, third = points_of(rows)

    assert (first.count, first.failed, first.failure_rate) == (125, 25, 0.2)
    assert first.p50 == pytest.approx(1.0, rel=0.026)
    assert first.p95 == pytest.approx(10.0, rel=0.026)
    assert (second.count, second.failure_rate, second.p50, second.p95) == (2, 1.0, None, None)
    assert (third.node, third.p50) == ("save", pytest.approx(2.0, rel=0.026))


def test_a_quantile_is_what_that_share_did_not_exceed() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({0: 1, 5: 1}, 0.5) == 0.0
    assert quantile({0: 1, 5: 2}, 0.5) == quantile({5: 1}, 0.95)


async def test_questions_are_bounded() -> None:
    store = MemoryStore()
    clock = ManualClock(BEGAN + DAY)

    async def load(task_id: str) -> None:
        raise AssertionError(task_id)

    traces = Traces(load, store.traces, clock)  # type: ignore[arg-type]
    await store.traces.insert_attempts([record(n, tenant="default") for n in range(1, 30)])

    (point,) = await traces.history(bucket_sec=DAY)
    assert (point.count, point.start, point.p50) == (29, BEGAN, pytest.approx(15.0, rel=0.026))
    assert [one.run_sec for one in await traces.slowest(limit=2)] == [29.0, 28.0]
    assert await traces.slowest(since=BEGAN - DAY, until=BEGAN) == []
    for wrong in ({"bucket_sec": 1.0}, {"bucket_sec": 0.5}, {"since": 0.0}, {"since": 9e9}):
        with pytest.raises(ValueError, match=r"at most|not less"):
            await traces.history(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit is"):
        await traces.slowest(limit=0)
