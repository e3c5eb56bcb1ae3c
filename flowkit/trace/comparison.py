"""Two tasks side by side: what ran in both, how long, and what differs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from flowkit.monitor_ports import AttemptRecord
from flowkit.trace.analysis import critical_path
from flowkit.trace.resources import Resources, resources_of
from flowkit.trace.task_trace import TaskTrace


@dataclass(frozen=True, slots=True)
class Side:
    """A node of the graph in one task, all of its items and attempts together. `states` counts how its items, or it
    alone, ended; seconds are sums over attempts."""

    states: dict[str, int]
    attempts: int
    running: float
    waiting: float
    workers: int
    codes: dict[str, int]
    resources: Resources | None = None


@dataclass(frozen=True, slots=True)
class NodeDifference:
    """A node in both tasks; None where the graph of one has it not. `slower` are the seconds that it ran longer in the
    second one."""

    node: str
    first: Side | None
    second: Side | None
    slower: float

    @property
    def differs(self) -> bool:
        """Whether it ended otherwise, was tried otherwise, or is in one of them only."""
        if self.first is None or self.second is None:
            return True
        one, two = self.first, self.second
        return (one.states, one.attempts, one.codes) != (two.states, two.attempts, two.codes)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`first` and `second` are the ids; `seconds` and `critical` are those of each (the whole, and what ran on the
    critical path), `params` the names of the params that differ. `nodes` are the nodes of both graphs, the one
    that differs most in run time first."""

    first: str
    second: str
    status: tuple[str, str]
    seconds: tuple[float, float]
    critical: tuple[float, float]
    same_graph: bool
    params: tuple[str, ...]
    nodes: tuple[NodeDifference, ...]


def compare(first: TaskTrace, second: TaskTrace) -> Comparison:
    """How the second differs from the first."""
    sides = [_sides(trace) for trace in (first, second)]
    nodes = [_difference(name, sides[0].get(name), sides[1].get(name)) for name in sides[0].keys() | sides[1].keys()]
    paths = [critical_path(trace) for trace in (first, second)]
    ran = [sum(step.running for step in path.steps) for path in paths]
    return Comparison(
        first=first.task_id, second=second.task_id, status=(first.status, second.status),
        seconds=(paths[0].seconds, paths[1].seconds), critical=(ran[0], ran[1]),
        same_graph=first.graph == second.graph, params=tuple(_differing(first.params, second.params)),
        nodes=tuple(sorted(nodes, key=lambda one: (-abs(one.slower), one.node))),
    )  # fmt: skip


def _sides(trace: TaskTrace) -> dict[str, Side]:
    groups = {node.base for node in trace.nodes.values() if node.node != node.base}
    states: dict[str, Counter[str]] = {}
    for node in trace.nodes.values():
        if node.node != node.base or node.base not in groups:  # a group is its items
            states.setdefault(node.base, Counter())[node.state] += 1
    of_base: dict[str, list[AttemptRecord]] = {}
    for attempt in trace.attempts:
        of_base.setdefault(attempt.record.base, []).append(attempt.record)
    return {base: _side(count, of_base.get(base, [])) for base, count in states.items()}


def _side(states: Counter[str], records: list[AttemptRecord]) -> Side:
    codes = Counter(record.code for record in records if record.code)
    return Side(
        dict(sorted(states.items())), len(records), sum(record.run_sec for record in records),
        sum(record.waited_sec for record in records), len({record.worker for record in records if record.worker}),
        dict(sorted(codes.items())), resources_of(records),
    )  # fmt: skip


def _difference(name: str, first: Side | None, second: Side | None) -> NodeDifference:
    slower = (second.running if second is not None else 0.0) - (first.running if first is not None else 0.0)
    return NodeDifference(name, first, second, slower)


def _differing(first: Any, second: Any) -> list[str]:
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else ["(all)"]
    missing = object()
    return sorted(
        name for name in first.keys() | second.keys() if first.get(name, missing) != second.get(name, missing)
    )
