"""Counts how much of each limit was in use, by what handlers say of their runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from flowkit.core.derived import base_of
from flowkit.core.graph import Graph
from flowkit.core.permits import need_of
from flowkit.ports import Head
from flowkit.wire.codec import loads

Use = tuple[Head, Graph, str, float, float]
"""A run: its task and graph, its node, when it began, and when it was over."""


def most_held(runs: Iterable[Use]) -> dict[str, tuple[int, int]]:
    """By key: how much was in use at the worst moment, and how much may be."""
    turns: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    most: dict[str, int] = {}
    for head, graph, node, began, over in runs:
        for limit in graph.nodes[base_of(node)].limits if graph.limited else ():
            if limit.most is not None:
                key = need_of(limit, head.tenant, loads(head.params)).key
                turns[key] += [(began, limit.weight), (over, -limit.weight)]
                most[key] = limit.most
    # Who begins at the moment at which another ends does not meet it.
    return {key: (max(accumulate(weight for _, weight in sorted(turns[key]))), most[key]) for key in sorted(turns)}
