"""The book that a walker keeps of a task's nodes: how each stands, and what may start for it.

It knows the graph's rules by itself, and asks nothing of the fold.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from flowkit.core.derived import base_of, group_of
from flowkit.core.graph import END, FAILURE, SUCCESS, Edge, Graph

ENDS = frozenset({"done", "failed", "skipped", "cancelled"})


@dataclass(slots=True)
class Node:
    """A node as the walker has it, in this generation."""

    state: str = "open"
    attempt: int = 0
    token: str = ""
    cancelling: bool = False
    failures: int = 0
    wake: float | None = None
    next: tuple[str, ...] | None = None
    by_failure: bool = False
    streaming: bool = False
    routes: tuple[str, ...] | None = None
    members: int = 0
    child_of: int = 0


class Nodes(dict[str, Node]):
    """By id; a derived node begins to exist when something is said of it."""

    def __missing__(self, name: str) -> Node:
        if base_of(name) == name:
            raise KeyError(name)
        node = self[name] = Node()
        return node

    def cancel(self, name: str) -> None:
        """A node is told to stop, and of a group all that run."""
        self[name].cancelling = True
        if self[name].state != "group":
            return
        for member in [one for one in self if group_of(one) == name]:
            if self[member].token or self[member].state == "group":
                self.cancel(member)
            elif self[member].state not in ENDS:
                self[member].state = "cancelled"

    def cancel_all(self) -> None:
        """What runs is told to stop, what does not has ended."""
        for node in self.values():
            if node.token:
                node.cancelling = True
            elif node.state not in ENDS:
                node.state = "cancelled"

    def restart(self, graph: Graph, again: Set[str], within: Collection[str]) -> None:
        """Nodes run `again`, and what follows from them; attempts count on. Those `within` go on with their child."""
        for name in dict.fromkeys([*self, *graph.nodes]):
            owner, base = group_of(name), base_of(name)
            kept_group = any(group_of(one) == base for one in again)
            anew = name in again or owner in again or (base in again and not kept_group) or name.endswith("/compensate")
            if name in graph.nodes and (anew or name not in self):
                before = self.get(name, Node())
                state = "group" if kept_group and name == base else "open"
                self[name] = Node(state=state, attempt=before.attempt, members=before.members)
                self[name].child_of = _child_kept(before, name in within)
            elif anew:
                before = self[name]
                self[name] = Node(attempt=before.attempt, child_of=_child_kept(before, owner in within))
        for name in [name for name in self if base_of(name) not in graph.nodes]:
            del self[name]

    def may_start(self, graph: Graph, name: str) -> bool:
        """Whether the edges and references of a node of the graph let it start."""
        node = graph.nodes[name]
        edges = self._with_begun_streams(graph, name, [self._edge(graph, edge) for edge in graph.incoming[name]])
        if node.fan_in.need is not None:
            ready = edges.count("taken") >= node.fan_in.need
        else:
            good = edges.count("taken") + edges.count("carried on")
            ready = "open" not in edges and "broken" not in edges and (good > 0 or not edges)
        sources = [(ref.has_default, self[ref.source].state) for ref in node.references]
        return ready and all(state == "done" or (default and state in ENDS) for default, state in sources)

    def _with_begun_streams(self, graph: Graph, name: str, edges: list[str]) -> list[str]:
        """The same, where it is enough that a stream has begun whose source has not ended."""
        node = graph.nodes[name]
        if node.stream is None or not node.stream.first_batch:
            return edges
        some = any(self[source].streaming for source in node.stream.sources)
        for place, edge in enumerate(graph.incoming[name]):
            begun = self[edge.source].streaming or (some and node.fan_in.need is None)
            if edges[place] == "open" and edge.source in node.stream.sources and begun:
                edges[place] = "taken"
        return edges

    def _edge(self, graph: Graph, edge: Edge) -> str:
        """`open`, `taken`, `carried on` (taken, but for no quorum), `not taken` or `broken`."""
        source = self[edge.source]
        if source.state not in ENDS:
            return "open"
        if edge.lenient:
            return "taken"
        match source.state:
            case "done":
                chosen = source.next is None or edge.target in source.next
                return self._routed(edge) if chosen and edge.on in (SUCCESS, END) else "not taken"
            case "failed" if edge.on in (FAILURE, END):
                return self._routed(edge)
            case "failed" if graph.nodes[edge.source].continue_on_failure:
                routed = self._routed(edge)
                return "carried on" if routed == "taken" else routed
            case "skipped" if not source.by_failure:
                return "not taken"
        return "broken"

    def _routed(self, edge: Edge) -> str:
        """An edge that would be taken, but for its condition."""
        if not edge.conditional:
            return "taken"
        taken = self[edge.source].routes
        return "open" if taken is None else "taken" if edge.target in taken else "not taken"


def _child_kept(before: Node, within: bool) -> int:
    """The attempt with whose child a node goes on that runs again; 0: with none."""
    return before.child_of if within and before.state in ("failed", "cancelled") else 0
