"""Which workers may run a node, which one should, and how urgently: nodes that say the same share a lane."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from flowkit.core.code import labels_of
from flowkit.core.immutable import immutable
from flowkit.core.labels import Wanted, wanted
from flowkit.core.problems import Place, Problems

KEYS: Final = frozenset({"priority", "worker_labels", "prefer_labels", "sticky"})
TASK: Final = "task"
WORKERLESS: Final = frozenset({"sleep", "signal", "task", "end"})


class Demand(NamedTuple):
    """What a worker must be: of a role, with labels; and this very one, if `worker` is not empty."""

    role: str
    labels: Wanted = ()
    worker: str = ""


@immutable
class Lane:
    """Ready nodes wait by lane. `key` names it: the role, and whatever else is said.

    `priority` is added to the task's. A worker must meet the `demand`, and had better have the labels that it
    `prefers`. `follows` is whose worker it should be: a node's, or, if empty, the task's own; None if that does not
    matter. `patience_sec`: how long it waits for that worker; None for what the coordinator is set to.
    """

    key: str
    demand: Demand
    priority: int = 0
    prefers: Wanted = ()
    follows: str | None = None
    patience_sec: float | None = None

    @property
    def role(self) -> str:
        return self.demand.role


def plain(role: str) -> Lane:
    """The lane of nodes that say nothing but their role."""
    return Lane(role, Demand(role))


def lane_of(fields: Mapping[str, Any]) -> Lane | None:
    """The lane of a node with these fields; None if it is that of its role."""
    role, labels = fields["type"], wanted({**fields.get("worker_labels", {}), **labels_of(fields)})
    sticky = fields.get("sticky")
    said = {} if sticky is None or sticky == TASK else sticky
    follows = None if sticky is None else said.get("node", "")
    more = (fields.get("priority", 0), wanted(fields.get("prefer_labels", {})), follows, said.get("patience_sec"))
    return None if not labels and more == (0, (), None, None) else _named(role, labels, more)


def of_role(lane: Lane | None, role: str) -> Lane | None:
    """The same lane of another role."""
    if lane is None:
        return None
    return _named(role, lane.demand.labels, (lane.priority, lane.prefers, lane.follows, lane.patience_sec))


def _named(role: str, labels: Wanted, more: tuple[int, Wanted, str | None, float | None]) -> Lane:
    return Lane(f"{role} {json.dumps((labels, *more), separators=(',', ':'))}", Demand(role, labels), *more)


def anchors(nodes: Iterable[Any]) -> frozenset[str]:
    """Whom some nodes, or what undoes them, follow to their workers."""
    found = {one.lane.follows for node in nodes for one in (node, node.compensate) if one is not None and one.lane}
    return frozenset(found - {None})


def check(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    """Report what is said of a worker's labels where no worker runs the node."""
    if fields.get("type") in WORKERLESS:
        for name in sorted(KEYS & fields.keys()):
            say = f"`{name}` is about the worker, and no worker runs a node of type {fields['type']!r}; leave it out"
            problems.add("E_KEY_CONFLICT", (place, name), say)


def lanes(nodes: Iterable[Any]) -> tuple[Lane, ...]:
    """The different lanes of some nodes."""
    roles: dict[str, None] = {}
    others: dict[str, Lane] = {}
    for node in nodes:
        if node.lane is None:
            roles[node.type] = None
        else:
            others[node.lane.key] = node.lane
    return (*map(plain, roles), *others.values())
