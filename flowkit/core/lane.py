"""Which workers may run a node, which one should, and how urgently: nodes that say the same share a lane."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from flowkit.core.immutable import immutable
from flowkit.core.labels import Wanted, wanted

KEYS: Final = frozenset({"priority", "worker_labels", "prefer_labels", "sticky"})
TASK: Final = "task"


@immutable
class Lane:
    """Ready nodes wait by lane. `key` names it: the role, and whatever else is said.

    `priority` is added to the task's. A worker must have `labels`, and had better have `prefers`. `follows` is whose
    worker it should be: a node's, or, if empty, the task's own; None if that does not matter. `patience_sec`: how long
    it waits for that worker; None for what the coordinator is set to.
    """

    key: str
    role: str
    priority: int = 0
    labels: Wanted = ()
    prefers: Wanted = ()
    follows: str | None = None
    patience_sec: float | None = None


def lane_of(fields: Mapping[str, Any]) -> Lane | None:
    """The lane of a node with these fields; None if it is that of its role."""
    priority = fields.get("priority", 0)
    labels, prefers = wanted(fields.get("worker_labels", {})), wanted(fields.get("prefer_labels", {}))
    sticky = fields.get("sticky")
    said = {} if sticky is None or sticky == TASK else sticky
    follows = None if sticky is None else said.get("node", "")
    more = (priority, labels, prefers, follows, said.get("patience_sec"))
    if more == (0, (), (), None, None):
        return None
    return Lane(f"{fields['type']} {json.dumps(more, separators=(',', ':'))}", fields["type"], *more)


def lanes(nodes: Iterable[Any]) -> tuple[Lane, ...]:
    """The different lanes of some nodes."""
    plain: dict[str, None] = {}
    others: dict[str, Lane] = {}
    for node in nodes:
        if node.lane is None:
            plain[node.type] = None
        else:
            others[node.lane.key] = node.lane
    return (*(Lane(role, role) for role in plain), *others.values())
