"""How much work a report or a fact is: what it reaches in its graph counts, not it alone."""

from __future__ import annotations

from flowkit.core.graph import Graph


def weight_of(graph: Graph, item: object) -> int:
    """One, and one for each node that hears of the end of the node that this report or fact is about."""
    name = getattr(item, "node", "")
    return 1 + len(graph.outgoing.get(name, ())) + len(graph.readers.get(name, ()))
