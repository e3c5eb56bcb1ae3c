"""Which roles a graph needs, and whether every node that is to run has somebody to run it where nobody else will."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowkit.cli.board import in_order
from flowkit.core.code import CODE
from flowkit.core.derived import COMPENSATE, base_of
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import BUILT_INS, Graph, Node
from flowkit.core.selection import not_needed
from flowkit.errors import GraphError, Problem, did_you_mean

MOST = 20


def roles_needed(graph: Graph) -> set[str]:
    """The roles that workers must serve for a graph, those of the graphs in it included."""
    return {role for places in _places(graph).values() for _, role in places}


def node_of(graph: Graph, name: str) -> Node | None:
    """What says who serves a node, an item, a run, or what undoes one; None where the graph has no such node."""
    node = graph.nodes.get(base_of(name))
    return node.compensate if node is not None and name.endswith(COMPENSATE) else node


def check_roles(graph: Graph, handlers: Mapping[str, Any], targets: Sequence[str], *, code: bool = False) -> None:
    """Raise `GraphError` for nodes that the targets need and that have no handler: they would wait for ever. `code`:
    nodes that bring their own code can run."""
    idle = set(not_needed(graph, [name for name in targets if name in graph.nodes]))
    places = _places(graph)
    problems = [
        Problem("E_NO_HANDLER", place, _no_handler(role, handlers))
        for name in in_order(graph)
        if name not in idle
        for place, role in places[name]
        if role not in handlers and not (code and role == CODE)
    ]
    if problems:
        raise GraphError(problems[:MOST])


def _places(graph: Graph, above: str = "") -> dict[str, list[tuple[str, str]]]:
    """Where each node says which role serves it, or undoes what it did."""
    return {name: list(_of_node(graph, name, f"{above}nodes[{at}]")) for at, name in enumerate(graph.nodes)}


def _of_node(graph: Graph, name: str, place: str) -> Iterator[tuple[str, str]]:
    node = graph.nodes[name]
    if node.type not in BUILT_INS or node.type == CODE:
        yield f"{place}.type", node.type
    if node.compensate is not None and node.compensate.type not in BUILT_INS:
        yield f"{place}.compensate.type", node.compensate.type
    if node.child is not None:
        for inside in _places(parse_graph(dict(node.child)), f"{place}.graph.").values():
            yield from inside


def _no_handler(role: str, handlers: Mapping[str, Any]) -> str:
    if role == CODE:
        return "this process runs no code: see flowkit doctor, or, if you trust the code, set FLOWKIT_CODE_TRUSTED=1"
    if not handlers:
        return f"nobody serves {role!r}: name the module with the functions, --handlers MODULE"
    return f"no handler for {role!r}{did_you_mean(role, handlers)}; there are: {', '.join(sorted(handlers))}"
