"""Says why nodes do not run (I10): what their state tells, and what the owner of the task knows of the fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.streams import StreamView
from flowkit.coordinator.views import Progress, Reason, limited, slices, waits_for
from flowkit.core.code import CODE, SECRETS_LABEL
from flowkit.core.code_policy import Rules, stricter_lane, who_asks
from flowkit.core.labels import Wanted, in_words, lacking
from flowkit.core.lane import Lane, plain
from flowkit.core.model import Task
from flowkit.core.node_run import ENDED_NODE
from flowkit.errors import did_you_mean
from flowkit.ports import Head


async def explain(head: Head, task: Task, engine: Engine | None) -> list[Reason]:
    """A reason for each node that has not ended, those nearest to running first; of a large task in slices, so that the
    loop goes on."""
    reasons: list[Reason] = []
    watcher = _Watcher(task, engine) if engine is not None and head.partition in engine.owned else None
    async for names in slices(list(task.runs)):
        found = [waits_for(task, name) for name in names if name in task.runs]
        some = [reason for reason in found if reason is not None]
        if not task.created:
            some = [_as_ready(task, reason) for reason in some]
        if watcher is not None:
            some = [watcher.look(reason) for reason in some]
        reasons += some
    if task.paused:
        reasons.append(Reason("", "paused", f"the task is paused{': ' + task.reason if task.reason else ''}"))
    return sorted(reasons, key=lambda reason: _ORDER.get(reason.code, 5))


def explain_streams(task: Task, views: Iterable[StreamView]) -> list[Reason]:
    """How far those streams are whose readers have begun and not ended."""
    return [
        Reason(view.reader, "stream", f"node {view.reader!r} {view}")
        for view in views
        if task.runs[view.reader].state not in ENDED_NODE and (view.produced or view.consumed)
    ]


def unserved(head: Head, task: Task, engine: Engine) -> Reason | None:
    """The first node that is ready for a role that nobody serves; looks at roles, and so costs nothing."""
    if head.partition not in engine.owned or task.paused:
        return None
    if task.created:
        first = [next(iter(names)) for names in task.ready.values()]
    else:
        first = [name for name in task.graph.roots if task.node(name).plain][:MOST_ROOTS]
    ready = [Reason(name, "ready", "") for name in first]
    watcher = _Watcher(task, engine)
    return next((why for one in ready if (why := watcher.look(one)).code == "no_worker"), None)


MOST_ROOTS = 100
NO_CODE = "; start one (flowkit worker --role code), or see `flowkit doctor` for why this process runs none"
NO_SECRETS = "; it has that label where secrets_address (FLOWKIT_SECRETS_ADDRESS) says where its secrets come from"
_ORDER = {
    "no_worker": 0,
    "paused": 1,
    "no_room": 2,
    "limit": 2,
    "ready": 3,
    "cancelling": 3,
    "retry_at": 4,
    "leased": 5,
    "waiting_for": 6,
}


def _as_ready(task: Task, reason: Reason) -> Reason:
    """In a task that has not begun, the nodes that wait for nothing are as good as ready."""
    name = reason.node_id
    if task.graph.incoming[name] or task.graph.reads[name]:
        return reason
    if task.node(name).limits or (task.node(name).plain and task.is_limited(name)):
        return limited(task, name)
    return Reason(name, "ready", f"node {name!r} is ready for a worker of role {task.node(name).type!r}")


def progress_of(engine: Engine, task: Task, name: str) -> Progress | None:
    """What a running attempt last said of itself, where its leases are watched here."""
    lease = task.runs[name].lease
    said = engine.leases.progress.get(lease.token) if lease is not None else None
    return None if said is None else Progress(*said)


def nobody(name: str, lane: Lane, workers: Mapping[str, Mapping[str, str]], roles: Iterable[str],
           rules: Rules = ()) -> Reason | None:  # fmt: skip
    """Says that no worker can run a node of this lane, if none can. `workers` are the labels of those that serve its
    role, by id; `roles` are all that anybody serves; `rules` are the policies that the lane is held to."""
    role, labels = lane.role, lane.demand.labels
    if not workers:
        hint = NO_CODE if role == CODE else did_you_mean(role, roles)
        say = f"no live worker serves {role!r}{hint}"
    elif short := lacking(labels, workers):
        say = f"no live worker that serves {role!r} has the labels {in_words(labels)}; {short}"
        say += f" ({asks})" if (asks := who_asks(rules)) else ""
        say += NO_SECRETS if lacking(_secrets_among(labels), workers) else ""
    else:
        return None
    return Reason(name, "no_worker", f"node {name!r} waits: {say}")


def _secrets_among(labels: Wanted) -> Wanted:
    return tuple(label for label in labels if label[0] == SECRETS_LABEL)


def lane_of(task: Task, name: str) -> Lane:
    node = task.node(name)
    return node.lane if node.lane is not None else plain(node.type)


class _Watcher:
    """Explains by what the coordinator sees; looks at the fleet once for all nodes of a role."""

    def __init__(self, task: Task, engine: Engine) -> None:
        self._task = task
        self._engine = engine
        self._cell = engine.cells.get(task.task_id)
        self._workers = cache(engine.dispatcher.workers)

    def look(self, reason: Reason) -> Reason:
        name = reason.node_id
        match reason.code:
            case "leased":
                said = str(progress_of(self._engine, self._task, name) or "")
                return Reason(name, reason.code, f"{reason.message}: {said}") if said else reason
            case "ready" | "limit":
                lane = lane_of(self._task, name)
                dispatcher = self._engine.dispatcher
                rules = dispatcher.rules_for(self._cell) if self._cell is not None and lane.role == CODE else ()
                lane = stricter_lane(lane, rules)
                lonely = nobody(name, lane, self._workers(lane.role), dispatcher.roles, rules)
                return lonely or (self._limited(name) if reason.code == "limit" else None) or self._no_room(name, lane)
        return reason

    def _limited(self, name: str) -> Reason | None:
        what = "" if self._cell is None else self._engine.gate.waits_for(self._cell, name)
        return Reason(name, "limit", f"node {name!r} waits for {what}") if what else None

    def _no_room(self, name: str, lane: Lane) -> Reason:
        dispatcher = self._engine.dispatcher
        if self._cell is not None and (bound := dispatcher.bound_to(self._cell, lane)) is not None:
            worker, seconds = bound
            say = f"at worker {worker!r}, which it follows; in {seconds:.1f} s any other will do"
            return Reason(name, "no_room", f"node {name!r} waits for room {say}")
        where = f"role {lane.role!r}"
        if lane.demand.labels:
            where += f" with the labels {in_words(lane.demand.labels)}"
        waiting = dispatcher.waiting_for(lane.role, lane.demand.labels)
        return Reason(name, "no_room", f"node {name!r} waits for room at {where}; {waiting} tasks wait for it")
