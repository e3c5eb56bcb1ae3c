"""What the load is made of: small tasks that between them use all that a graph can say, each with what must come of it.

Every task takes few nodes of the time that the load is given, so that many attempts always run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LENGTH = 6
WIDTH = 4
ITEMS = 5
TIMES = 3
CHILDREN = 3
BATCHES = 12
MOST = 3
"""So many of the limited nodes may run at a time."""
KEYS = 3
KEPT_SEC = 30.0
PART, WHOLE = "load.part", "load.whole"
"""Flows: the second runs the first in two of its nodes."""
APPROVAL = "approval"


@dataclass(frozen=True, slots=True)
class Order:
    """A task to be created, of a graph or of a flow. It ends as `expected` says: with this output; failed, if None.
    `signal` is the payload that it waits for."""

    expected: Any
    graph: Any = None
    flow: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    signal: Any = None


@dataclass(frozen=True, slots=True)
class Graphs:
    """Draws orders. Nodes take a time in the range `sec`."""

    dice: random.Random
    sec: tuple[float, float]

    def order(self, kind: str) -> Order:
        make, _ = KINDS[kind]
        return make(self)

    def chain(self) -> Order:
        nodes = [self._node(f"n{i}", {"n": {"$from": f"n{i - 1}.n"}} if i else {}) for i in range(LENGTH)]
        return Order({"n": LENGTH}, {"nodes": nodes})

    def diamond(self) -> Order:
        top = self._node("top", {})
        middle = [self._node(f"m{i}", {"n": {"$from": "top.n"}}) for i in range(WIDTH)]
        join = self._join("join", {f"m{i}": {"$from": f"m{i}"} for i in range(WIDTH)})
        return Order({"n": 2 * WIDTH}, {"nodes": [top, *middle, join]})

    def map(self) -> Order:
        """Some items of the list that a node gives, two at a time; the condition sees all of them."""
        items = {"node_id": "list", "type": "items", "inputs": {"count": ITEMS, "sec": self._sec()}}
        item = {"foreach": {"$from": "list"}, "max_parallel": 2}
        each = self._node("each", {"n": {"$item": ""}}) | item
        nodes = [items, each, self._node("last", {"n": {"$expr": "size(nodes['each'].output)"}})]
        edges = [{"from": "each", "to": "last", "when": f"output[{ITEMS - 1}].n == {ITEMS}"}]
        return Order({"n": ITEMS + 1}, {"nodes": nodes, "edges": edges})

    def repeat(self) -> Order:
        repeat = {"until": f"output.n == {TIMES}", "every_sec": 0.1, "max": TIMES + 1}
        before = {"$expr": "previous == null ? 0 : previous.n"}
        return Order({"n": TIMES}, {"nodes": [self._node("poll", {"n": before}) | {"repeat": repeat}]})

    def children(self) -> Order:
        """A child for each item, and one after them."""
        inner = {"nodes": [self._node("in", {"n": {"$param": "n"}})]}
        many = {"node_id": "many", "type": "task", "graph": inner, "foreach": list(range(CHILDREN))}
        nodes = [
            many | {"inputs": {"n": {"$item": ""}}},
            {"node_id": "one", "type": "task", "graph": inner, "inputs": {"n": {"$from": f"many[{CHILDREN - 1}].n"}}},
        ]
        return Order({"n": CHILDREN + 1}, {"nodes": nodes})

    def undone(self) -> Order:
        """What was done is undone, the last first, for the last node fails."""
        done = [
            self._node(f"n{i}", {"n": {"$from": f"n{i - 1}.n"}} if i else {}) | {"compensate": self._undo()}
            for i in range(2)
        ]
        return Order(None, {"nodes": [*done, {"node_id": "no", "type": "refuse", "inputs": {}, "depends_on": ["n1"]}]})

    def choice(self) -> Order:
        """One to three ways from a node, by conditions, of which one has a node behind it that is skipped with it; they
        meet again. A node of its own never runs."""
        n = self.dice.randint(1, 3)
        edges = [
            {"from": "pick", "to": "one", "when": "output.n == 1"},
            {"from": "pick", "to": "few", "when": "output.n <= 2"},
            {"from": "pick", "to": "else", "otherwise": True},
            ["else", "behind"],
            ["one", "join"], ["few", "join"], ["behind", "join"],
        ]  # fmt: skip
        nodes = [
            self._node("pick", {"n": {"$param": "n"}}),
            self._node("one", {"n": {"$from": "pick.n"}}),
            self._node("few", {"n": {"$from": "pick.n"}}),
            self._node("else", {"n": {"$from": "pick.n"}}),
            self._node("behind", {"n": {"$from": "else.n"}}),
            self._join("join", {name: _or_none(name) for name in ("one", "few", "behind")}),
            self._node("never", {}) | {"when": "params.n > 3"},
        ]
        output = {"sum": {"$from": "join.n"}, "behind": _or_none("behind"), "never": _or_none("never")}
        ways = {1: [2, 2], 2: [3], 3: [5]}[n]
        behind = {"n": 5} if n == 3 else {"n": 0}
        graph = {"nodes": nodes, "edges": edges, "output": output}
        return Order({"sum": sum(ways), "behind": behind, "never": {"n": 0}}, graph, params={"n": n - 1})

    def route(self) -> Order:
        """A handler says itself who comes next."""
        ways = ["a", "b", "c"]
        chosen = sorted(self.dice.sample(ways, self.dice.randint(1, 2)))
        nodes = [
            {"node_id": "guide", "type": "guide", "inputs": {"to": chosen, "sec": self._sec()}},
            *(self._node(way, {"n": i}) | {"depends_on": ["guide"]} for i, way in enumerate(ways)),
            self._join("join", {way: _or_none(way) for way in ways}) | {"depends_on": ways},
        ]
        return Order({"n": sum(1 + ways.index(way) for way in chosen)}, {"nodes": nodes})

    def sleep(self) -> Order:
        """Time passes between two nodes, and the coordinator counts."""
        nap = {"node_id": "nap", "type": "sleep", "inputs": {"seconds": self._sec()}, "depends_on": ["first"]}
        call = {"fn": "vars.incr", "fn_args": {"key": "n", "by": 4}}
        count = {"node_id": "count", "type": "coordinator_fn", "io": call, "depends_on": ["nap"]}
        last = self._node("last", {"n": {"$var": "n"}}) | {"depends_on": ["count"]}
        return Order({"n": 5}, {"nodes": [self._node("first", {}), nap, count, last]})

    def signal(self) -> Order:
        payload = {"n": self.dice.randint(0, 99)}
        ask = {"node_id": "ask", "type": "signal", "inputs": {"name": APPROVAL}, "depends_on": ["first"]}
        nodes = [self._node("first", {}), ask, self._node("last", {"n": {"$from": "ask.n"}})]
        return Order({"n": payload["n"] + 1}, {"nodes": nodes}, signal=payload)

    def limit(self) -> Order:
        """All tasks of this kind share the first limit, some of them the second, of which each takes two permits."""
        all_of_them = {"key": "load", "max": MOST}
        some_of_them = {"key": "load:{params.who}", "max": 4, "weight": 2}
        nodes = [
            self._node("a", {}) | {"limits": [all_of_them]},
            self._node("b", {"n": {"$from": "a.n"}}) | {"limits": [some_of_them, all_of_them]},
        ]
        return Order({"n": 2}, {"nodes": nodes}, params={"who": self.dice.choice("xy")})

    def cache(self) -> Order:
        """One of few keys, each of which has its own output."""
        k = self.dice.randrange(KEYS)
        asked = self._node("asked", {"n": {"$param": "n"}}) | {"cache": {"key": "params.key", "ttl_sec": KEPT_SEC}}
        nodes = [asked, self._node("last", {"n": {"$from": "asked.n"}})]
        return Order({"n": 10 * k + 2}, {"nodes": nodes}, params={"key": f"load {k}", "n": 10 * k})

    def stream(self) -> Order:
        early = {"start_when": "first_batch", "stream": {"max_batches": 4}}
        source = {"n": BATCHES, "sec": self._sec()}
        nodes = [
            {"node_id": "s0", "type": "numbers", "inputs": source, "stream": {"max_batches": 4}},
            {"node_id": "s1", "type": "shift", "inputs": {"rows": {"$stream": "s0"}}, **early},
            {"node_id": "s2", "type": "tally", "inputs": {"rows": {"$stream": "s1"}}, **early},
        ]
        return Order({"count": BATCHES, "wrong": 0}, {"nodes": nodes})

    def flow(self) -> Order:
        n = self.dice.randint(0, 99)
        return Order({"n": n + 2}, flow=WHOLE, params={"n": n, "sec": self._sec()})

    def urgent(self) -> Order:
        """Goes before others: few enough, so that nobody starves."""
        nodes = [self._node("a", {}) | {"priority": 2}, self._node("b", {"n": {"$from": "a.n"}})]
        return Order({"n": 2}, {"nodes": nodes}, priority=3)

    # ------------------------------------------------------------------------------------------ parts of them

    def _sec(self) -> float:
        """Rather long than short, for the same reason."""
        least, most = self.sec
        return round(self.dice.triangular(least, most, most), 3)

    def _node(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"node_id": name, "type": "step", "inputs": {"sec": self._sec(), **inputs}}

    def _join(self, name: str, parts: dict[str, Any]) -> dict[str, Any]:
        return {"node_id": name, "type": "join", "inputs": {"parts": parts, "sec": self._sec()}}

    def _undo(self) -> dict[str, Any]:
        return {"type": "step", "inputs": {"sec": self._sec()}}


def _or_none(node: str) -> dict[str, Any]:
    return {"$from": node, "default": {"n": 0}}


KINDS: dict[str, tuple[Callable[[Graphs], Order], int]] = {
    "chain": (Graphs.chain, 6),
    "diamond": (Graphs.diamond, 6),
    "map": (Graphs.map, 1),
    "repeat": (Graphs.repeat, 1),
    "children": (Graphs.children, 1),
    "undone": (Graphs.undone, 1),
    "choice": (Graphs.choice, 1),
    "route": (Graphs.route, 1),
    "sleep": (Graphs.sleep, 1),
    "signal": (Graphs.signal, 1),
    "limit": (Graphs.limit, 1),
    "cache": (Graphs.cache, 1),
    "stream": (Graphs.stream, 1),
    "flow": (Graphs.flow, 1),
    "urgent": (Graphs.urgent, 1),
}
"""How each kind is made, and how often it is drawn beside the others: the first two, of which more attempts run for
what they cost, often enough that on a busy machine, too, many attempts run at any moment."""

_STEP = {"node_id": "in", "type": "step", "inputs": {"n": {"$param": "n"}, "sec": {"$param": "sec"}}}
_CALL = {"type": "task", "flow": PART}
FLOWS: dict[str, Any] = {
    PART: {"nodes": [_STEP]},
    WHOLE: {
        "nodes": [
            {"node_id": "a", **_CALL, "inputs": {"n": {"$param": "n"}, "sec": {"$param": "sec"}}},
            {"node_id": "b", **_CALL, "inputs": {"n": {"$from": "a.n"}, "sec": {"$param": "sec"}}},
        ]
    },
}
"""In the order in which they are to be put."""
