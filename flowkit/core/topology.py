"""Which node waits for which: edges as declared, edges that references imply, and reads without an edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from flowkit.core.graph import FAILURE, MISSING, SUCCESS, Edge, Reference
from flowkit.core.keys import EdgeText
from flowkit.core.problems import Place, Problems, shown

MOST_CYCLES: Final = 10
NAMED_IN_CYCLE: Final = 12

Pair = tuple[str, str]
Some = dict[str, Any]  # by node id: a tuple of one (the usual case), or a list of several


class Topology:
    """The edges of one graph while it is read; `index` says where in `nodes` every id stands.

    First all edges are declared, by whatever form; then `connect` adds what nodes read, and checks the whole.
    """

    def __init__(self, index: Mapping[str, int], problems: Problems, base: Place = "") -> None:
        self.declared: dict[Pair, Edge] = {}
        self.incoming: Some = {}
        self.outgoing: Some = {}
        self.reads: Some = {}
        self.readers: Some = {}
        self._index = index
        self._problems = problems
        self._base = base
        self._named: list[tuple[Edge, Place]] = []  # edges whose conditions name nodes
        self._written: set[Pair] = set()  # pairs that `edges` or `routing` names
        self._incomplete: set[str] = set()  # targets of edges that were refused
        self._backward = False  # whether a source stands after its target: only then can there be a cycle

    def add_edges(self, texts: Iterable[Any]) -> None:
        """The graph's `edges`: `EdgeText`s, or MISSING where one could not be read."""
        for text in texts:
            if text is not MISSING and self._known(text):
                when, otherwise = text.more.get("when"), text.more.get("otherwise", False)
                edge = Edge(text.source, text.target, text.on, when=when, otherwise=otherwise)
                self._write(edge, text.place)
                if when is not None and otherwise:
                    say = "an edge has a condition, or is taken otherwise: keep one"
                    self._problems.add("E_KEY_CONFLICT", (text.place, "otherwise"), say)
                if when is not None and when.nodes:
                    self._named.append((edge, (text.place, "when")))

    def add_routing(self, source: str, routing: Mapping[str, list[Any]], place: Place) -> None:
        """A node's old `routing`: edges that leave it. What `edges` says too is no second edge."""
        for name, on in (("on_success", SUCCESS), ("on_failure", FAILURE)):
            for number, target in enumerate(routing.get(name, ())):
                if target is MISSING:
                    continue
                here = ((place, name), number)
                if target not in self._index:
                    self._report_unknown("E_CHILD_UNKNOWN", target, here)
                elif not self._has(source, target, on):
                    self._write(Edge(source, target, on), here)

    def add_parents(self, target: str, parents: list[Any], place: Place) -> None:
        """A node's `depends_on`: adds nothing to a pair that has an edge."""
        for number, source in enumerate(parents):
            if source in self._index:
                if (source, target) not in self.declared:
                    self.declared[source, target] = Edge(source, target)
            elif source is not MISSING:
                self._incomplete.add(target)
                self._report_unknown("E_PARENT_UNKNOWN", source, (place, number))

    def add_early(self, texts: Iterable[Any]) -> set[str]:
        """The graph's old `edges_ex`; the answer is the targets, which start with a first batch."""
        early = set()
        for number, text in enumerate(texts):
            if text is MISSING or "from" not in text or "to" not in text:
                continue
            place: Place = ("edges_ex", number)
            if self._known(EdgeText(text["from"], text["to"], SUCCESS, place, ("from", "to"), {})):
                self.declared.setdefault((text["from"], text["to"]), Edge(text["from"], text["to"]))
                early.add(text["to"])
        return early

    def connect(self, references: Mapping[str, tuple[Reference, ...]]) -> None:
        """Add what nodes read, once all edges are declared; report cycles."""
        for edge in self.declared.values():
            self._add(edge)
        with_edges = self.incoming.keys() | self._incomplete
        for target, read in references.items():
            self._add_references(target, read, target in with_edges)
        self._check_cycles()
        self._check_named()

    def check_count(self, target: str, need: int, place: Place, problems: Problems) -> None:
        """Report a `fan_in` that can never be reached."""
        edges = len(self.incoming.get(target, ()))
        if need > edges and target not in self._incomplete:
            say = f"waits for {need} edges and has {edges}; lower the count or add edges"
            problems.add("E_FAN_IN", place, say)

    def check_known(self, code: str, name: str, place: Place) -> None:
        """Report a name that is no node's."""
        if name not in self._index:
            self._report_unknown(code, name, place)

    # Declaring.

    def _known(self, text: EdgeText) -> bool:
        if text.source not in self._index:
            self._incomplete.add(text.target)
            self._report_unknown("E_PARENT_UNKNOWN", text.source, (text.place, text.steps[0]))
        if text.target not in self._index:
            self._report_unknown("E_CHILD_UNKNOWN", text.target, (text.place, text.steps[1]))
        return text.source in self._index and text.target in self._index

    def _has(self, source: str, target: str, on: str) -> bool:
        edge = self.declared.get((source, target))
        return edge is not None and edge.on == on

    def _write(self, edge: Edge, place: Place) -> None:
        pair = (edge.source, edge.target)
        if pair not in self._written:
            self._written.add(pair)
            self.declared[pair] = edge
            return
        on = self.declared[pair].on
        say = f"{shown(edge.source)} -> {shown(edge.target)} has an edge on {on} already; keep one"
        self._problems.add("E_EDGE_DUPLICATE", place, f"{say}, with `on: end` if both ends shall take it")

    def _report_unknown(self, code: str, name: str, place: Place) -> None:
        hint = self._problems.suggest(name, self._index)
        self._problems.add(code, place, f"no node has the id {shown(name)}{hint}")

    # Connecting.

    def _add(self, edge: Edge) -> None:
        source, target = edge.source, edge.target
        _append(self.incoming, target, edge)
        _append(self.outgoing, source, edge)
        if self._index[source] >= self._index[target]:
            self._backward = True

    def _add_references(self, target: str, references: Iterable[Reference], has_edges: bool) -> None:
        lenient: dict[str, bool] = {}
        for reference in references:
            lenient[reference.source] = lenient.get(reference.source, True) and reference.has_default

        for source, is_lenient in lenient.items():
            if not has_edges:
                self._add(Edge(source, target, SUCCESS, implied=True, lenient=is_lenient))
            elif (source, target) not in self.declared:
                _append(self.reads, target, source)
                _append(self.readers, source, target)
                if self._index[source] >= self._index[target]:
                    self._backward = True

    def _check_named(self) -> None:
        """A condition is decided when its edge's source ends: what it names must have ended by then."""
        for edge, place in self._named:
            assert edge.when is not None
            before = self._before(edge.source)
            for name in edge.when.nodes:
                if name not in before:
                    say = f"{shown(name)} need not have ended when {shown(edge.source)} has; name a node before it"
                    self._problems.add("E_EXPR_NODE", place, f"{say}, or make {shown(edge.source)} wait for it")

    def _before(self, name: str) -> set[str]:
        found, stack = {name}, [name]
        while stack:
            for source in self._sources(stack.pop()):
                if source not in found:
                    found.add(source)
                    stack.append(source)
        return found

    # Cycles.

    def _check_cycles(self) -> None:
        if not self._backward:
            return
        for number, cycle in enumerate(self._cycles()):
            if number == MOST_CYCLES:
                return
            first = min(range(len(cycle)), key=lambda at: self._index[cycle[at]])
            cycle = cycle[first:] + cycle[:first]
            say = f"these wait for each other: {_listed(cycle)}; remove one edge or reference"
            self._problems.add("E_CYCLE", ((self._base, "nodes"), self._index[cycle[0]]), say)

    def _cycles(self) -> Iterator[list[str]]:
        waits = {target: len(edges) for target, edges in self.incoming.items()}
        for target, sources in self.reads.items():
            waits[target] = waits.get(target, 0) + len(sources)
        free = [node_id for node_id in self._index if node_id not in waits]

        while True:
            self._set_free(free, waits)
            if not waits:
                return
            cycle = self._walk_back(waits)
            yield cycle
            for node_id in cycle:
                del waits[node_id]
            free = cycle

    def _set_free(self, free: list[str], waits: dict[str, int]) -> None:
        while free:
            for target in self._targets(free.pop()):
                if target in waits:
                    waits[target] -= 1
                    if waits[target] == 0:
                        del waits[target]
                        free.append(target)

    def _walk_back(self, waits: Mapping[str, int]) -> list[str]:
        # Every node that still waits has a source that still waits: going back, one must come again.
        node_id = next(iter(waits))
        steps: dict[str, int] = {}
        while node_id not in steps:
            steps[node_id] = len(steps)
            node_id = next(source for source in self._sources(node_id) if source in waits)
        path = list(steps)[steps[node_id] :]
        return path[::-1]

    def _targets(self, source: str) -> Iterator[str]:
        for edge in self.outgoing.get(source, ()):
            yield edge.target
        yield from self.readers.get(source, ())

    def _sources(self, target: str) -> Iterator[str]:
        for edge in self.incoming.get(target, ()):
            yield edge.source
        yield from self.reads.get(target, ())


def _append(some: Some, name: str, item: object) -> None:
    before = some.get(name)
    if before is None:
        some[name] = (item,)
    elif type(before) is tuple:
        some[name] = [*before, item]
    else:
        before.append(item)


def _listed(cycle: list[str]) -> str:
    names = [shown(name)[1:-1] for name in [*cycle, cycle[0]]]
    if len(names) > NAMED_IN_CYCLE:
        half = NAMED_IN_CYCLE // 2
        names = [*names[:half], f"({len(names) - 2 * half:,} more)", *names[-half:]]
    return " -> ".join(names)
