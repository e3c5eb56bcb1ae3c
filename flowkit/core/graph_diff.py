"""What differs between two graphs, by node, by edge and by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.graph import SUCCESS

PARTS: Final = frozenset({"nodes", "edges"})

EdgeName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs. `key` is the path to it (`inputs.url`), `kind` is `added`, `removed` or `changed`; what was
    added has no `old`, what was removed has no `new`."""

    key: str
    kind: str
    old: Any = None
    new: Any = None


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node that both graphs have, and what differs in it."""

    node_id: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """An edge that both graphs have, and what differs in it."""

    source: str
    target: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class GraphDiff:
    """What became of the graph called `old` in the one called `new`. Nodes are ids, edges are (source, target);
    `changes` are those of the graph's other keys. `same`: there is no difference, not even in the order of things."""

    old: str
    new: str
    same: bool
    nodes_added: tuple[str, ...] = ()
    nodes_removed: tuple[str, ...] = ()
    nodes_changed: tuple[NodeChange, ...] = ()
    edges_added: tuple[EdgeName, ...] = ()
    edges_removed: tuple[EdgeName, ...] = ()
    edges_changed: tuple[EdgeChange, ...] = ()
    changes: tuple[Change, ...] = ()


def diff_graphs(
    old: Mapping[str, Any], new: Mapping[str, Any], *, names: tuple[str, str] = ("old", "new")
) -> GraphDiff:
    """Compare two graphs as they are stored (normalised)."""
    old_nodes, new_nodes = _nodes(old), _nodes(new)
    old_edges, new_edges = _edges(old), _edges(new)
    return GraphDiff(
        *names,
        same=_written(old) == _written(new),
        nodes_added=tuple(name for name in new_nodes if name not in old_nodes),
        nodes_removed=tuple(name for name in old_nodes if name not in new_nodes),
        nodes_changed=tuple(
            NodeChange(name, changes)
            for name, node in new_nodes.items()
            if name in old_nodes and (changes := _changes(old_nodes[name], node))
        ),
        edges_added=tuple(ends for ends in new_edges if ends not in old_edges),
        edges_removed=tuple(ends for ends in old_edges if ends not in new_edges),
        edges_changed=tuple(
            EdgeChange(*ends, changes)
            for ends, edge in new_edges.items()
            if ends in old_edges and (changes := _changes(old_edges[ends], edge))
        ),
        changes=_changes(_rest(old), _rest(new)),
    )


def _nodes(graph: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["node_id"]: node for node in graph["nodes"]}


def _edges(graph: Mapping[str, Any]) -> dict[EdgeName, dict[str, Any]]:
    edges: dict[EdgeName, dict[str, Any]] = {}
    for edge in graph["edges"]:
        if isinstance(edge, Mapping):
            said = {key: value for key, value in edge.items() if key not in ("from", "to")}
            edges[edge["from"], edge["to"]] = said
        else:
            edges[edge[0], edge[1]] = {"on": SUCCESS}
    return edges


def _rest(graph: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in graph.items() if key not in PARTS}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    return tuple(_walk(old, new, ""))


def _walk(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> Iterator[Change]:
    for name in [*old, *(name for name in new if name not in old)]:
        key = f"{place}{name}"
        if name not in new:
            yield Change(key, "removed", old=old[name])
        elif name not in old:
            yield Change(key, "added", new=new[name])
        elif _has_keys(old[name]) and _has_keys(new[name]):
            yield from _walk(old[name], new[name], f"{key}.")
        elif _written(old[name]) != _written(new[name]):
            yield Change(key, "changed", old[name], new[name])


def _has_keys(value: object) -> bool:
    # A reference, such as {"$from": "load"}, is one value.
    return isinstance(value, dict) and not any(key.startswith("$") for key in value)


def _written(value: object) -> str:
    # Of equal things in Python not all are the same in JSON: true is not 1. The order of keys means nothing in a node.
    return json.dumps(value, sort_keys=True)
