"""What FlowKit must reach, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.measure import WRITTEN
from bench.summary import Summary

Figure = Callable[[Summary], float | None]

MESSAGES_PER_NODE = 3.2
DOCUMENTS_PER_NODE = 1.3
ROUND_TRIPS_PER_NODE = 0.1
MESSAGES_PER_ITEM = DOCUMENTS_PER_ITEM = 0.2
"""Those of a map's items travel and are recorded together."""
MESSAGES_PER_CHILD = 2.7
DOCUMENTS_PER_CHILD = 5.5
"""A child is a task: a head, two commits with an event each, and the head once or, on a slow machine, twice more."""
ROUND_TRIPS_PER_CHILD = 0.25


@dataclass(frozen=True, slots=True)
class Target:
    """`figure` of a workload must be at most, or at least, `limit`."""

    workload: str
    figure: str
    of: Figure
    at_most: bool
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    workload: str
    figure: str
    wanted: str
    measured: float
    met: bool


def _rate(one: Summary) -> float:
    return one.rate.median


def _hop(one: Summary) -> float | None:
    return None if one.hop_ms is None else one.hop_ms.median


COUNTS = [
    *(
        Target(name, "Kafka messages per node", lambda one: one.messages, True, MESSAGES_PER_NODE)
        for name in ("W2", "W4a", "W4b")
    ),
    *(
        Target(name, "documents per node", lambda one: one.documents, True, DOCUMENTS_PER_NODE)
        for name in ("W2", "W4b")
    ),
    Target("W3", "MongoDB round trips per node", lambda one: one.round_trips, True, ROUND_TRIPS_PER_NODE),
    Target("W8", "Kafka messages per item", lambda one: one.messages, True, MESSAGES_PER_ITEM),
    Target("W8", "documents per item", lambda one: one.documents, True, DOCUMENTS_PER_ITEM),
    Target("W8", "MongoDB round trips per item", lambda one: one.round_trips, True, ROUND_TRIPS_PER_NODE),
    Target("W9", "Kafka messages per child", lambda one: one.messages, True, MESSAGES_PER_CHILD),
    Target("W9", "documents per child", lambda one: one.documents, True, DOCUMENTS_PER_CHILD),
    Target("W9", "MongoDB round trips per child", lambda one: one.round_trips, True, ROUND_TRIPS_PER_CHILD),
]
"""CI gates these: they are the same on every machine. The nodes of W8 and W9 are its items and two more."""

CLUSTER = [
    Target("W1", "tasks/s", _rate, False, 3000),
    Target("W1", "share of the floor", lambda one: one.share, False, 0.25),
    Target("W2", "ms per hop", _hop, True, 4.5),
    Target("W2", "times the floor's hop", lambda one: one.hop_ratio, True, 1.7),
    Target("W3", "nodes/s", _rate, False, 7000),
    Target("W3", "share of the floor", lambda one: one.share, False, 0.25),
    Target("W4b", "nodes/s", _rate, False, 2400),
    Target("W4b", "share of the floor", lambda one: one.share, False, 0.3),
    *COUNTS,
]
EMBEDDED = [
    Target("W1", "tasks/s", _rate, False, 5000),
    Target("W2", "ms per hop", _hop, True, 0.6),
    Target("W3", "nodes/s", _rate, False, 10_000),
]
DEGRADATION = 1.3
DOCUMENT_BYTES = 2**20
BESIDE_P99_MS = 50.0
IDLE_CPU_PERCENT = 2.0
LATE_SEC = 2.0
MAP_SHARE = 0.8
BYTES_PER_ITEM = 1024.0
BYTES_LEFT = 128.0


def judge(found: Sequence[Summary], backend: str, targets: Sequence[Target] | None = None) -> list[Verdict]:
    """The targets that something was measured for."""
    if targets is None:
        targets = CLUSTER if backend == "kafka-mongo" else EMBEDDED
    by_name = {one.workload: one for one in found}
    verdicts: list[Verdict] = []
    for target in targets:
        measured = target.of(by_name[target.workload]) if target.workload in by_name else None
        if measured is not None:
            verdicts.append(_verdict(target.workload, target.figure, measured, target.limit, target.at_most))
    return [*verdicts, *_graphs(found), *_naps(by_name.get("W6")), *_maps(by_name)]


def _graphs(found: Sequence[Summary]) -> list[Verdict]:
    alone = [one for one in found if one.workload.startswith("W5") and one.hop_ms is None]
    beside = [one for one in found if one.workload.startswith("W5") and one.hop_ms is not None]
    verdicts: list[Verdict] = []
    if len(alone) > 1:
        ratio = alone[-1].ms_per_node / alone[0].ms_per_node
        verdicts.append(_verdict("W5", "cost per node, largest / smallest", ratio, DEGRADATION, True))
    if alone and (largest := alone[0].more.get("largest_document")):
        verdicts.append(_verdict("W5", "bytes of the largest document", largest, DOCUMENT_BYTES, True))
    verdicts += [
        _verdict("W5", "ms, p99 of the hops of W2 beside", one.hop_p99_ms, BESIDE_P99_MS, True)
        for one in beside
        if one.hop_p99_ms is not None
    ]
    return verdicts


def _maps(found: Mapping[str, Summary]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    more = found["W8"].more if "W8" in found else {}
    if "peak_bytes_per_item" in more:  # else its counts were taken, with few items
        if WRITTEN in found:
            share = found["W8"].rate.median / found[WRITTEN].rate.median
            verdicts.append(_verdict("W8", "nodes/s, by those of W3", share, MAP_SHARE, False))
        taken, left = more["peak_bytes_per_item"], more.get("left_bytes_per_item")
        verdicts.append(_verdict("W8", "bytes of memory per item", taken, BYTES_PER_ITEM, True))
        if left is not None:
            verdicts.append(_verdict("W8", "bytes that each further run leaves per item", left, BYTES_LEFT, True))
    return verdicts


def _naps(one: Summary | None) -> list[Verdict]:
    if one is None:
        return []
    own = [name for name in one.more["cpu_percent"] if name in ("coordinator", "worker", "embedded")]
    verdicts = [
        _verdict("W6", f"CPU % of the {name} that waits", one.more["cpu_percent"][name], IDLE_CPU_PERCENT, True)
        for name in own
    ]
    verdicts.append(_verdict("W6", "seconds late at most", one.more["late_sec"]["max"], LATE_SEC, True))
    return verdicts


def _verdict(workload: str, figure: str, measured: float, limit: float, at_most: bool) -> Verdict:
    met = measured <= limit if at_most else measured >= limit
    return Verdict(workload, figure, f"{'<=' if at_most else '>='} {limit:g}", measured, met)
