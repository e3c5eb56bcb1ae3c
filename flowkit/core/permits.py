"""What a node needs beside a worker: permits of its limits, which are asked for by claims.

A claim names one permit for ever: (generation, attempt, turn) of a node. Attempt numbers never repeat, and a permit
that was not used is given back by a recorded fact that raises the turn. So whether a claim is over is told by the
task's own history, and what is over stays over: a late word about it can do no harm.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from flowkit.core.bounds import UNBOUNDED, Need
from flowkit.core.graph import Limit
from flowkit.core.immutable import immutable
from flowkit.core.model import Task
from flowkit.core.node_run import ENDED_NODE, NodeRun

Claim = tuple[int, int, int]
"""Generation, attempt, turn."""

MOST_PRIORITY: Final = 2**63

TENANT: Final = "{tenant}"
HOLE: Final = re.compile(r"\{(tenant|params\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\}")


# ---------------------------------------------------------------------------------------------- what is needed


def needs_of(task: Task, name: str) -> tuple[Need, ...]:
    """The permits that a node needs, in the order in which all nodes of all tasks ask for them: so none waits for
    another in a circle. Rates come last: what they give is used at once, or lost."""
    node = task.node(name)
    if not (node.limits or task.bounds is not UNBOUNDED):
        return ()
    own = (need_of(limit, task.tenant, task.params) for limit in node.limits)
    return tuple(sorted((*own, *task.bounds.of(node.type)), key=_place))


def need_of(limit: Limit, tenant: str, params: Mapping[str, Any]) -> Need:
    """A limit with the holes of its key filled; a param that is not there reads as null. One with `{tenant}` in its key
    is of that tenant alone, though another may write a key that reads the same."""
    key = HOLE.sub(lambda hole: _text(value_in(hole[1], tenant, params)), limit.key)
    kind = "rate" if limit.most is None else "limit"
    own = TENANT in limit.key
    said = json.dumps([tenant, key]) if own else key
    digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
    return Need(f"{kind}:{'of-' if own else ''}{digest[:32]}", key, limit)


def value_in(hole: str, tenant: str, params: Mapping[str, Any]) -> Any:
    """What a hole of a key stands for; None where there is no such param."""
    if hole == "tenant":
        return tenant
    value: Any = params
    for step in hole.split(".")[1:]:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _place(need: Need) -> tuple[bool, str]:
    return need.limit.most is None, need.limit_id


def is_rate(limit_id: str) -> bool:
    """Whether its permits are used up by the lease that they are for, not held as long as it lasts."""
    return limit_id.startswith("rate:")


# ---------------------------------------------------------------------------------------------- claims


def claim_of(task: Task, run: NodeRun) -> Claim:
    """The claim that the node's lease was given for; without one, that of its next attempt."""
    return task.generation, run.attempt + (run.lease is None), run.turn


def over(task: Task, name: str, claim: Claim, limit_id: str) -> bool:
    """Whether the permit of this claim will never be used (again). What is true once stays true."""
    generation, attempt, turn = claim
    if generation != task.generation:
        return generation < task.generation
    run = task.runs.get(name)
    if run is None:  # one that this state has yet to hear of, unless no more will come to exist
        return task.ended
    if run.state in ENDED_NODE or task.ended:
        return True
    now = claim_of(task, run)
    if (attempt, turn) == now[1:]:
        return run.lease is not None and is_rate(limit_id)
    return (attempt, turn) < now[1:]


# ---------------------------------------------------------------------------------------------- letters


@immutable
class PermitWanted:
    """To a limit: this claim wants a permit, or still does. `partition` is the task's; `waited` for how many seconds
    the node has been ready."""

    task_id: str
    partition: int
    node: str
    claim: Claim
    most: int | None
    weight: int
    rate: float
    per_sec: float
    burst: int
    priority: int
    waited: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether it can ever be granted: who cannot would hold up everybody behind."""
        if not (abs(self.priority) < MOST_PRIORITY and abs(self.waited) < math.inf):
            return False
        if self.most is not None:
            return 1 <= self.weight <= self.most
        return 1 <= self.weight <= self.burst and 0 < self.rate < math.inf and 0 < self.per_sec < math.inf


@immutable
class PermitOver:
    """To a limit: this claim is over."""

    task_id: str
    node: str
    claim: Claim


@immutable
class PermitGranted:
    """To a task: the permit is this claim's until the claim is over."""

    limit_id: str
    node: str
    claim: Claim


@immutable
class PermitDelayed:
    """To a task: so many claims come before this one, while permits of weight `held` are held."""

    limit_id: str
    node: str
    claim: Claim
    place: int
    held: int


@immutable
class PermitAsked:
    """To a task: is this claim over?"""

    limit_id: str
    node: str
    claim: Claim


ToLimit = PermitWanted | PermitOver
ToTask = PermitGranted | PermitDelayed | PermitAsked
Letter = ToLimit | ToTask

LETTERS: Final = (PermitWanted, PermitOver, PermitGranted, PermitDelayed, PermitAsked)

TAGS: dict[str, type[Letter]] = {
    "permit_wanted": PermitWanted,
    "permit_over": PermitOver,
    "permit_granted": PermitGranted,
    "permit_delayed": PermitDelayed,
    "permit_asked": PermitAsked,
}
"""The letters between tasks and limits, by wire tag."""
