"""Counts and histograms as they grow, by their labels; and what keeps the labels few."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from flowkit.measures import Measure

OTHER = "other"


class Tally:
    """A counter: how often, by labels."""

    def __init__(self, measure: Measure, labels: Sequence[str]) -> None:
        self.measure = measure
        self.labels = tuple(labels)
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        self.values[labels] = self.values.get(labels, 0.0) + by


class Spread:
    """A histogram: how often each bucket, by labels. `values` are the counts of the buckets, that above all of them
    last, and the sum of what was seen."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.labels = measure.labels
        self.values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def see(self, seconds: float, *labels: str) -> None:
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = ([0] * (len(self.measure.buckets) + 1), [0.0])
        seconds = max(0.0, seconds)  # clocks of two machines may differ
        found[0][bisect_left(self.measure.buckets, seconds)] += 1
        found[1][0] += seconds


class Few:
    """At most `most` values of a label; whatever comes beyond them is `other`, and `capped` hears of it each time."""

    def __init__(self, most: int, capped: Callable[[], None]) -> None:
        self._most = most
        self._capped = capped
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) < self._most:
            self._known.add(value)
            return value
        self._capped()
        return OTHER
