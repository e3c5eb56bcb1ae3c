"""Which workers may run a node, which one should, and how urgently: nodes that say the same share a lane."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from flowkit.core.immutable import immutable
from flowkit.core.labels import Wanted, wanted

KEYS: Final = frozenset({"priority", "worker_labels", "prefer_labels", "sticky"})
TASK: Final = "task"


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
    role, labels = fields["type"], wanted(fields.get("worker_labels", {}))
    sticky = fields.get("sticky")
    said = {} if sticky is None or sticky == TASK else sticky
    follows = None if sticky is None else said.get("node", "")
    more = (fields.get("priority", 0), wanted(fields.get("prefer_labels", {})), follows, said.get("patience_sec"))
    if not labels and more == (0, (), None, None):
        return None
    return Lane(f"{role} {json.dumps((labels, *more), separators=(',', ':'))}", Demand(role, labels), *more)


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
