"""How a flow and its nodes did over time: percentiles and failure rates, from histograms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from flowkit.monitor_ports import HistogramRow, seconds_of


@dataclass(frozen=True, slots=True)
class Point:
    """A node of a flow in one bucket of time that begins at `start` (epoch seconds). `count` attempts ended in it,
    `failed` of them failed or were lost. `p50` and `p95` are seconds that those ran which were not among these, within
    2.5 %; None where there were none."""

    flow: str
    node: str
    start: float
    count: int
    failed: int
    p50: float | None
    p95: float | None

    @property
    def failure_rate(self) -> float:
        return self.failed / self.count if self.count else 0.0


def points_of(rows: Iterable[HistogramRow]) -> list[Point]:
    """The points of rows that are in the order of a `TraceStore`."""
    found: list[Point] = []
    for (flow, base, start), group in groupby(rows, key=lambda row: (row.flow, row.base, row.start)):
        bucket = list(group)
        good: dict[int, int] = {}
        for row in bucket:
            if not row.bad:
                good[row.bin] = good.get(row.bin, 0) + row.count
        failed = sum(row.count for row in bucket if row.bad)
        count = failed + sum(good.values())
        found.append(Point(flow, base, start, count, failed, quantile(good, 0.5), quantile(good, 0.95)))
    return found


def quantile(bins: dict[int, int], share: float) -> float | None:
    """The time that this share of the attempts did not exceed."""
    left = math.ceil(share * sum(bins.values()))
    for number in sorted(bins):
        left -= bins[number]
        if left <= 0:
            return seconds_of(number)
    return None
