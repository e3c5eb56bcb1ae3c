"""The workloads: which graphs, how many of them, and what must come out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BLOCK = 100
"""Nodes per block of W5's graphs: a head, its leaves, and a tail that adds them up."""

Graph = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """`tasks` tasks of one graph. `unit` is what its rate counts. `expected` is the output of the i-th task; `hops` are
    the nodes of a chain whose handlers' starts are taken, in order. `items` are those of the graph's map; `children`:
    each of them is a task."""

    name: str
    what: str
    unit: str
    graph: Graph
    tasks: int
    params: Callable[[int], dict[str, Any]]
    expected: Callable[[int], Any]
    hops: tuple[str, ...] = ()
    items: int = 0
    children: bool = False

    @property
    def outputs_per_task(self) -> int:
        return len(self.graph["nodes"])

    @property
    def nodes_per_task(self) -> int:
        return self.outputs_per_task + self.items

    @property
    def nodes(self) -> int:
        return self.tasks * self.nodes_per_task

    @property
    def units(self) -> int:
        if self.unit == "nodes":
            return self.nodes
        return self.items if self.children else self.tasks


def single(tasks: int) -> Workload:
    graph = {"name": "W1", "nodes": [{"node_id": "only", "type": "double"}]}
    return Workload("W1", f"{tasks} one-node tasks", "tasks", graph, tasks, lambda i: {"i": i}, lambda i: 2 * i)


def chain(length: int, tasks: int = 1, name: str = "W2") -> Workload:
    ids = [f"n{place:03d}" for place in range(length)]
    nodes: list[dict[str, Any]] = [{"node_id": ids[0], "type": "hop"}]
    nodes += [{"node_id": node, "type": "hop", "depends_on": [before]} for before, node in itertools.pairwise(ids)]
    # The last node's output would carry a time; so the graph's says the count alone.
    graph = {"name": name, "nodes": nodes, "output": {"n": {"$from": f"{ids[-1]}.n"}}}
    what = f"a chain of {length}" if tasks == 1 else f"{tasks} concurrent chains of {length}"
    return Workload(name, what, "nodes", graph, tasks, lambda i: {"n": i}, lambda i: {"n": i + length}, tuple(ids))


def fan(width: int) -> Workload:
    leaves = [
        {"node_id": f"leaf-{i}", "type": "double", "inputs": {"i": i}, "depends_on": ["root"]} for i in range(width)
    ]
    join = {"node_id": "join", "type": "total", "depends_on": [leaf["node_id"] for leaf in leaves]}
    graph = {"name": "W3", "nodes": [{"node_id": "root", "type": "hop"}, *leaves, join]}
    what = f"a fan-out of {width} and fan-in"
    return Workload("W3", what, "nodes", graph, 1, lambda i: {}, lambda i: width * (width - 1))


def diamonds(tasks: int) -> Workload:
    nodes = [
        {"node_id": "a", "type": "hop"},
        {"node_id": "b", "type": "hop", "depends_on": ["a"]},
        {"node_id": "c", "type": "hop", "depends_on": ["a"]},
        {"node_id": "d", "type": "total", "depends_on": ["b", "c"]},
    ]
    graph = {"name": "W4a", "nodes": nodes}
    what = f"{tasks} concurrent diamonds of 4"
    return Workload("W4a", what, "nodes", graph, tasks, lambda i: {"n": i}, lambda i: 2 * i + 4)


def blocks(size: int) -> Workload:
    """A graph of `size` nodes: a root, blocks of a head, 98 leaves and a tail, and a node that adds all tails up."""
    count, rest = divmod(size - 2, BLOCK)
    rest = rest if rest >= 3 else 0
    widths = [BLOCK - 2] * count + ([rest - 2] if rest else [])
    nodes: list[dict[str, Any]] = [{"node_id": "root", "type": "hop"}]
    total = 0
    for place, width in enumerate(widths):
        head = f"b{place}.head"
        leaves = [f"b{place}.{i}" for i in range(width)]
        nodes.append({"node_id": head, "type": "hop", "depends_on": ["root"]})
        nodes += [
            {"node_id": leaf, "type": "double", "inputs": {"i": place + i}, "depends_on": [head]}
            for i, leaf in enumerate(leaves)
        ]
        nodes.append({"node_id": f"b{place}.tail", "type": "total", "depends_on": leaves})
        total += sum(2 * (place + i) for i in range(width))
    nodes.append({"node_id": "sum", "type": "total", "depends_on": [f"b{place}.tail" for place in range(len(widths))]})
    graph = {"name": f"W5-{size}", "nodes": nodes}
    return Workload("W5", f"a graph of {len(nodes)} nodes", "nodes", graph, 1, lambda i: {}, lambda i: total)


def naps(tasks: int, after: float) -> Workload:
    graph = {"name": "W6", "nodes": [{"node_id": "nap", "type": "nap"}]}
    what = f"{tasks} tasks that wait {after:g} s"
    # The output is how late it woke: judged by the report, not here.
    return Workload("W6", what, "tasks", graph, tasks, lambda i: {"after": after}, lambda i: None)


def items(count: int) -> Workload:
    """A map over a list that a node gives, and a node that adds all up."""
    graph = {"name": "W8", "nodes": _mapped({"type": "double", "inputs": {"i": {"$item": ""}}})}
    what = f"a map over {count} items"
    return Workload("W8", what, "nodes", graph, 1, lambda i: {"n": count}, lambda i: count * (count - 1), items=count)


def children(count: int) -> Workload:
    """The same, each item a task of its own."""
    inner = {"name": "W9-child", "nodes": [{"node_id": "only", "type": "double"}]}
    graph = {
        "name": "W9",
        "nodes": _mapped({"type": "task", "graph": inner, "inputs": {"i": {"$item": ""}}}),
    }
    what = f"{count} sub-graphs of one parent"
    return Workload(
        "W9", what, "tasks", graph, 1, lambda i: {"n": count}, lambda i: count * (count - 1), items=count, children=True
    )


def _mapped(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"node_id": "list", "type": "numbers"},
        {"node_id": "each", "foreach": {"$from": "list"}, **item},
        {"node_id": "sum", "type": "add_up", "inputs": {"parts": {"$from": "each"}}},
    ]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large each workload is."""

    tasks: int = 1000
    chain: int = 100
    fan: int = 1000
    concurrent: int = 50
    chains: int = 20
    graphs: tuple[int, ...] = (1000, 10_000, 100_000)
    naps: int = 10_000
    nap_sec: float = 75.0
    items: int = 100_000
    children: int = 10_000


FULL = Sizes()
QUICK = Sizes(tasks=300, chain=50, fan=300, concurrent=20, chains=10, graphs=(500, 2000), naps=500, nap_sec=12.0,
              items=3000, children=300)  # fmt: skip
SIMPLE = ("W1", "W2", "W3", "W4a", "W4b")
MAPS = ("W8", "W9")
ALL = (*SIMPLE, "W5", "W6", *MAPS)


def simple(name: str, sizes: Sizes) -> Workload:
    """One of those that are run as they are."""
    match name:
        case "W1":
            return single(sizes.tasks)
        case "W2":
            return chain(sizes.chain)
        case "W3":
            return fan(sizes.fan)
        case "W4a":
            return diamonds(sizes.concurrent)
        case "W4b":
            return chain(sizes.chains, sizes.concurrent, "W4b")
        case "W8":
            return items(sizes.items)
        case "W9":
            return children(sizes.children)
    raise ValueError(f"no workload {name!r}; known are {', '.join(ALL)}")
