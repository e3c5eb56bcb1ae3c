"""The runs of a workload as one figure each: medians, with the lowest and the highest."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.measure import FLOOR, FLOWKIT, Run, at_quantile

Pick = Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some runs, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """One workload. Rates are units per second; hops milliseconds, the mean by run, p50 and p99 over all runs; costs
    are per run and process, `messages`, `documents` and `round_trips` per node; `others_cores` is what
    strangers took of the machine in the worst run."""

    workload: str
    what: str
    unit: str
    runs: int
    rate: Spread
    floor_rate: Spread | None
    share: float | None
    hop_ms: Spread | None
    hop_p50_ms: float | None
    hop_p99_ms: float | None
    floor_hop_ms: Spread | None
    hop_ratio: float | None
    ms_per_node: float
    create_ms: float
    cpu_sec: dict[str, float]
    cpu_ms_per_node: float
    messages: float
    documents: float
    round_trips: float
    floor_messages: float | None
    floor_documents: float | None
    rss_mb: dict[str, float]
    others_cores: float
    trouble: dict[str, int]
    more: dict[str, Any] = field(default_factory=dict)


def summarise(runs: Sequence[Run], *, pick: Pick = statistics.median) -> list[Summary]:
    """One summary per workload that FlowKit ran, in the order of the runs. `pick` chooses among the runs' counts."""
    labels = dict.fromkeys(run.workload for run in runs if run.side == FLOWKIT)
    return [
        _summary(
            [run for run in runs if run.workload == label and run.side == FLOWKIT],
            [run for run in runs if run.workload == label and run.side == FLOOR],
            pick,
        )
        for label in labels
    ]


def _summary(runs: Sequence[Run], floor: Sequence[Run], pick: Pick) -> Summary:
    first = runs[0]
    rate, floor_rate = Spread.of([run.rate for run in runs]), _rate(floor)
    hops, floor_hops = _hop(runs), _hop(floor)
    pooled = [1000 * hop for run in runs for hop in run.hops]
    return Summary(
        workload=first.workload,
        what=first.what,
        unit=first.unit,
        runs=len(runs),
        rate=rate,
        floor_rate=floor_rate,
        share=None if floor_rate is None else rate.median / floor_rate.median,
        hop_ms=hops,
        hop_p50_ms=at_quantile(pooled, 0.5) if pooled else None,
        hop_p99_ms=at_quantile(pooled, 0.99) if pooled else None,
        floor_hop_ms=floor_hops,
        hop_ratio=None if hops is None or floor_hops is None else hops.median / floor_hops.median,
        ms_per_node=statistics.median(1000 * run.seconds / run.nodes for run in runs),
        create_ms=statistics.median(1000 * run.create_seconds for run in runs),
        cpu_sec={name: statistics.median(run.counts.cpu[name] for run in runs) for name in first.counts.cpu},
        cpu_ms_per_node=statistics.median(
            1000 * sum(s for name, s in run.counts.cpu.items() if not name.startswith("floor")) / run.nodes
            for run in runs
        ),
        messages=_per_node(runs, lambda run: run.messages, pick),
        documents=_per_node(runs, lambda run: run.counts.written, pick),
        round_trips=_per_node(runs, lambda run: run.counts.round_trips, pick),
        floor_messages=_per_node(floor, lambda run: run.messages, pick) if floor else None,
        floor_documents=_per_node(floor, lambda run: run.counts.written, pick) if floor else None,
        rss_mb={name: max(run.counts.rss[name] for run in runs) for name in first.counts.rss},
        others_cores=max(run.counts.others for run in [*runs, *floor]),
        trouble=_added([run.trouble for run in runs]),
        more=runs[-1].more,
    )


def _rate(runs: Sequence[Run]) -> Spread | None:
    return Spread.of([run.rate for run in runs]) if runs else None


def _hop(runs: Sequence[Run]) -> Spread | None:
    means = [mean for run in runs if (mean := run.mean_hop_ms) is not None]
    return Spread.of(means) if means else None


def _per_node(runs: Sequence[Run], count: Callable[[Run], int], pick: Pick) -> float:
    return pick([count(run) / run.nodes for run in runs])


def _added(troubles: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(one.get(name, 0) for one in troubles) for one in troubles for name in one}
