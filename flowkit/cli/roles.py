"""Whether every node that is to run has somebody to run it, where nobody else will come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.cli.board import in_order
from flowkit.core.graph import BUILT_INS, Graph
from flowkit.core.selection import not_needed
from flowkit.errors import GraphError, Problem, did_you_mean

MOST = 20


def check_roles(graph: Graph, handlers: Mapping[str, Any], targets: Sequence[str]) -> None:
    """Raise `GraphError` for nodes that the targets need and that have no handler: they would wait for ever."""
    idle = set(not_needed(graph, [name for name in targets if name in graph.nodes]))
    places = {name: place for place, name in enumerate(graph.nodes)}
    problems = [
        Problem("E_NO_HANDLER", f"nodes[{places[name]}].type", _no_handler(graph.nodes[name].type, handlers))
        for name in in_order(graph)
        if name not in idle and graph.nodes[name].type not in BUILT_INS.union(handlers)
    ]
    if problems:
        raise GraphError(problems[:MOST])


def _no_handler(role: str, handlers: Mapping[str, Any]) -> str:
    if not handlers:
        return f"nobody serves {role!r}: name the module with the functions, --handlers MODULE"
    return f"no handler for {role!r}{did_you_mean(role, handlers)}; there are: {', '.join(sorted(handlers))}"
