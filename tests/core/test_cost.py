"""A fact costs what it touches: a graph of n nodes costs O(n) in all (I9). Counted, not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest

from flowkit.core import reports as r
from flowkit.core.decide import decide
from flowkit.core.dialect import parse_graph
from flowkit.core.model import Task
from flowkit.core.payload import Payload
from tests.core.builders import START, edge, graph, new_task, node, once

SIZES = (60, 120)
LINEAR = 2.3


def chain(n: int) -> dict[str, Any]:
    return graph(node("n0"), *(node(f"n{i}", f"n{i - 1}") for i in range(1, n)))


def fan_out(n: int) -> dict[str, Any]:
    return graph(node("root"), *(node(f"n{i}", "root") for i in range(n)))


def fan_in(n: int) -> dict[str, Any]:
    return graph(*(node(f"n{i}") for i in range(n)), node("end", *[f"n{i}" for i in range(n)]))


def fan_in_by_reading(n: int) -> dict[str, Any]:
    return graph(*(node(f"n{i}") for i in range(n)), node("end", inputs=[{"$from": f"n{i}"} for i in range(n)]))


def reading_beside_an_edge(n: int) -> dict[str, Any]:
    readers = (node(f"r{i}", "x", inputs={"v": {"$from": "s"}}) for i in range(n))
    return graph(node("x"), node("s"), *readers)


def layers(n: int) -> dict[str, Any]:
    """A square of layers, each node waiting for two of the layer above."""
    width = 6
    names = [[f"n{row}.{i}" for i in range(width)] for row in range(n // width)]
    nodes = [once(name) for name in names[0]]
    for above, row in pairwise(names):
        nodes += [node(name, above[i], above[(i + 1) % width]) for i, name in enumerate(row)]
    return graph(*nodes)


def handled_failures(n: int, **more: Any) -> dict[str, Any]:
    return graph(*(once(f"n{i}", continue_on_failure=True) for i in range(n)), **more)


def alerts(n: int) -> dict[str, Any]:
    nodes = [once(f"n{i}") for i in range(n)] + [node(f"a{i}") for i in range(n)]
    return graph(*nodes, edges=[edge(f"n{i}", f"a{i}", "failure") for i in range(n)])


def skipped_chain_to_a_join(n: int) -> dict[str, Any]:
    """Every node fails; a join behind a long chain of skipped ones handles all of it."""
    failing = [once(f"n{i}") for i in range(n)]
    links = [node("x0", *[one["node_id"] for one in failing]), *(node(f"x{i}", f"x{i - 1}") for i in range(1, n))]
    return graph(*failing, *links, node("ok"), node("join", f"x{n - 1}", "ok", fan_in="any"))


def joins_with_losers(n: int) -> dict[str, Any]:
    triples = ((node(f"p{i}"), node(f"q{i}"), node(f"j{i}", f"p{i}", f"q{i}", fan_in="any", losers="cancel"))
               for i in range(n))  # fmt: skip
    return graph(*(one for triple in triples for one in triple))


def fails(name: str) -> bool:
    return name.startswith("n")


def never(name: str) -> bool:
    return False


def run_to_the_end(task: Task, failing: Callable[[str], bool]) -> None:
    """One report per decision, as where nodes take a while; `p...` never get a result."""
    decide(task, [r.Accepted()], START)
    while not task.ended:
        name = next(name for names in task.ready.values() for name in names if not name.startswith("p"))
        decide(task, [r.Placed(name, f"{name}#", "w", "i", 0.0)], START)
        attempt = task.runs[name].attempt
        if failing(name):
            report: r.Report = r.Failed(name, attempt, f"{name}#", {"code": "x", "message": ""})
        else:
            report = r.Succeeded(name, attempt, f"{name}#", Payload(1))
        decide(task, [report], START)


def lines_of(action: Callable[[], None]) -> int:
    """How many lines of the core are run: every visit of an edge or a node is some."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        if "/flowkit/" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


CASES = {
    "chain": (chain, never),
    "fan-out": (fan_out, never),
    "fan-in": (fan_in, never),
    "fan-in by reading": (fan_in_by_reading, never),
    "reading beside an edge": (reading_beside_an_edge, never),
    "layers": (layers, never),
    "failing layers": (layers, lambda name: name == "n0.0"),
    "handled failures": (handled_failures, fails),
    "handled failures and fail_fast": (lambda n: handled_failures(n, fail_fast=True), fails),
    "failure edges": (alerts, fails),
    "failures handled by one join": (skipped_chain_to_a_join, fails),
    "losers": (joins_with_losers, never),
}


@pytest.mark.parametrize("name", CASES)
def test_a_graph_of_twice_the_size_costs_twice_as_much(name: str) -> None:
    make, failing = CASES[name]
    costs = []
    for size in SIZES:
        task = new_task(parse_graph(make(size)))
        costs.append(lines_of(lambda task=task: run_to_the_end(task, failing)))  # type: ignore[misc]
        assert task.ended

    assert costs[1] / costs[0] < LINEAR, costs


def test_a_fact_in_a_large_graph_costs_no_more_than_in_a_small_one() -> None:
    costs = []
    for size in (10, 1000):
        task = new_task(fan_in(size))
        decide(task, [r.Accepted(), r.Placed("n0", "t", "w", "i", 0.0)], START)
        result = r.Succeeded("n0", 1, "t", Payload(1))
        costs.append(lines_of(lambda task=task, result=result: decide(task, [result], START)))  # type: ignore[misc]

    assert costs[0] == costs[1]
