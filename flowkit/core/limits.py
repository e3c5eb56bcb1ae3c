"""A node's `limits` as they are written: read, and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flowkit.core.functions import FUNCTIONS
from flowkit.core.graph import Graph, Limit, Node
from flowkit.core.permits import HOLE, need_of, value_in
from flowkit.core.problems import Place, Problems, shown

MOST_AT_ONCE: Final = 2000
NAMES_IN_CORE: Final = {"max": "most"}
WORKERLESS: Final = frozenset({"sleep", "signal", "end", "task"})
OF_RATES: Final = ("per_sec", "burst")


def of(entries: Sequence[dict[str, Any]]) -> tuple[Limit, ...]:
    """The limits that the entries describe."""
    return tuple(Limit(**{NAMES_IN_CORE.get(k, k): v for k, v in entry.items() if k[:2] != "x-"}) for entry in entries)


def limited(node: Node | None) -> bool:
    """Whether the node, its items, or what undoes it has limits."""
    return node is not None and (bool(node.limits) or limited(node.body) or limited(node.compensate))


def check(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """Report what a node's limits say against themselves and each other."""
    if "limits" not in fields:
        return
    kind = fields.get("type")
    if kind in WORKERLESS or (kind == "coordinator_fn" and fields.get("io", {}).get("fn") in FUNCTIONS):
        say = f"a node of type {shown(kind)} needs no worker, so nothing limits it; leave `limits` out"
        problems.add("E_LIMIT", (place, "limits"), say)
    seen: dict[tuple[str, bool], int] = {}
    for number, entry in enumerate(fields["limits"]):
        if isinstance(entry, dict) and "key" in entry:
            where: Place = ((place, "limits"), number)
            _check_key(entry["key"], (where, "key"), problems)
            _check_numbers(entry, where, problems)
            first = seen.setdefault((entry["key"], "rate" in entry), number)
            if first != number:
                problems.add("E_LIMIT", (where, "key"), f"limits[{first}] is of the same key; keep one of them")


def _check_key(key: str, place: Place, problems: Problems) -> None:
    rest = HOLE.sub("", key)
    if "{" in rest or "}" in rest:
        say = f"in {shown(key)}, braces hold `tenant` or `params.name`; write {{tenant}} or {{params.name}}"
        problems.add("E_LIMIT_KEY", place, say)
    elif not key:
        problems.add("E_LIMIT_KEY", place, "an empty key; give it the name of what is to be spared")


def _check_numbers(entry: dict[str, Any], place: Place, problems: Problems) -> None:
    weight = entry.get("weight", 1)
    if ("max" in entry) == ("rate" in entry):
        problems.add("E_LIMIT", place, "a limit has either `max` (at a time) or `rate` (per `per_sec` seconds)")
    elif "max" in entry:
        _check_most(entry["max"], weight, place, problems)
        for name in OF_RATES:
            if name in entry:
                problems.add("E_LIMIT", (place, name), f"`{name}` belongs to a `rate`; this limit has a `max`")
    elif weight > entry.get("burst", 1):
        say = f"{weight} at once, with a burst of {entry.get('burst', 1)}, are never given out; raise `burst`"
        problems.add("E_LIMIT", (place, "weight"), say)


def _check_most(most: int, weight: int, place: Place, problems: Problems) -> None:
    if weight > most:
        problems.add("E_LIMIT", (place, "weight"), f"{weight} of at most {most} are never given out")
    elif most // weight > MOST_AT_ONCE:
        say = f"that lets {most // weight:,} attempts run at once; a limit holds up to {MOST_AT_ONCE:,}"
        problems.add("E_LIMIT", (place, "max"), say)


def check_params(graph: Graph, params: Mapping[str, Any], problems: Problems) -> None:
    """Report the params that keys of limits name and that are not there or make no text, and keys that come to the same
    with these params."""
    for number, node in enumerate(graph.nodes.values()):
        place: Place = ("nodes", number)
        _check_keys(node, place, params, problems)
        if node.compensate is not None:
            _check_keys(node.compensate, (place, "compensate"), params, problems)


def _check_keys(node: Node, place: Place, params: Mapping[str, Any], problems: Problems) -> None:
    seen: dict[str, int] = {}
    for entry, limit in enumerate(node.limits):
        where: Place = (((place, "limits"), entry), "key")
        for hole in HOLE.finditer(limit.key):
            _check_param(hole[1], node.node_id, params, where, problems)
        first = seen.setdefault(need_of(limit, "", params).limit_id, entry)
        if first != entry:
            say = f"with these params it is the same key as limits[{first}]; keep one of them"
            problems.add("E_LIMIT", where, say)


def _check_param(hole: str, name: str, params: Mapping[str, Any], place: Place, problems: Problems) -> None:
    value = value_in(hole, "", params)
    if not isinstance(value, str | int | float):
        found = "is not there" if value is None else f"is {shown(value)}"
        say = f"node {shown(name)} needs `{hole}`, which {found}; give a string or a number"
        problems.add("E_LIMIT_PARAM", place, say)
