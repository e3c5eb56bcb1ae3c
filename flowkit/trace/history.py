"""How a flow and its nodes did over time: percentiles and failure rates, from histograms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowkit.monitor_ports import BAD, Bins, Histogram, Rollup, seconds_of
from flowkit.wire.rollups import add_bins, counts_in


@dataclass(frozen=True, slots=True)
class Point:
    """A node of a flow in one bucket of time that begins at `start` (epoch seconds). `count` attempts ended in it,
    `outcomes` tells how; `failed` of them failed or were lost. `p50` and `p95` are seconds that those ran which were
    not among these, within 2.5 %; None where there were none."""

    flow: str
    node: str
    start: float
    count: int
    failed: int
    p50: float | None
    p95: float | None
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def failure_rate(self) -> float:
        return self.failed / self.count if self.count else 0.0


def points_of(histograms: Iterable[Histogram]) -> list[Point]:
    """A point for each."""
    return [_point(one) for one in histograms]


def histograms_of(rollups: Iterable[Rollup], base: str | None, bucket_sec: int) -> list[Histogram]:
    """What the rollups of one span counted, of this node or of all, in buckets that are multiples of that span; in the
    order of flow, node and time."""
    found: dict[tuple[str, str, float], dict[str, Bins]] = {}
    for rollup in rollups:
        start = rollup.start // bucket_sec * bucket_sec
        for name, counted in counts_in(rollup, base).items():
            known = found.get((rollup.flow, name, start))
            if known is None:
                found[rollup.flow, name, start] = counted
                continue
            for outcome, bins in counted.items():
                add_bins(known.setdefault(outcome, {}), bins)
    return [Histogram(*key, found[key]) for key in sorted(found)]


def quantile(bins: Bins, share: float) -> float | None:
    """The time that this share of the attempts did not exceed."""
    left = math.ceil(share * sum(bins.values()))
    for number in sorted(bins):
        left -= bins[number]
        if left <= 0:
            return seconds_of(number)
    return None


def _point(one: Histogram) -> Point:
    counts = {outcome: sum(bins.values()) for outcome, bins in one.outcomes.items()}
    good: Bins = {}
    for outcome, bins in one.outcomes.items():
        if outcome not in BAD:
            add_bins(good, bins)
    failed = sum(counts.get(outcome, 0) for outcome in BAD)
    p50, p95 = quantile(good, 0.5), quantile(good, 0.95)
    return Point(one.flow, one.base, one.start, sum(counts.values()), failed, p50, p95, counts)
