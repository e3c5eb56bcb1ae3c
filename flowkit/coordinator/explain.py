"""Says why nodes do not run (I10): what their state tells, and what the owner of the task knows of the fleet."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.streams import StreamView
from flowkit.coordinator.views import Progress, Reason, limited, slices, waits_for
from flowkit.core.model import ENDED_NODE, Task
from flowkit.errors import did_you_mean
from flowkit.ports import Head


async def explain(head: Head, task: Task, engine: Engine | None) -> list[Reason]:
    """A reason for each node that has not ended, those nearest to running first; of a large task in slices, so that the
    loop goes on."""
    reasons: list[Reason] = []
    async for names in slices(list(task.runs)):
        found = [waits_for(task, name) for name in names if name in task.runs]
        some = [reason for reason in found if reason is not None]
        if not task.created:
            some = [_as_ready(task, reason) for reason in some]
        if engine is not None and head.partition in engine.owned:
            some = [_placed(task, reason, engine) for reason in some]
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
    return next((why for one in ready if (why := _placed(task, one, engine)).code == "no_worker"), None)


MOST_ROOTS = 100
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
    if task.node(name).limits:
        return limited(task, name)
    return Reason(name, "ready", f"node {name!r} is ready for a worker of role {task.node(name).type!r}")


def progress_of(engine: Engine, task: Task, name: str) -> Progress | None:
    """What a running attempt last said of itself, where its leases are watched here."""
    lease = task.runs[name].lease
    said = engine.leases.progress.get(lease.token) if lease is not None else None
    return None if said is None else Progress(*said)


def _placed(task: Task, reason: Reason, engine: Engine) -> Reason:
    if reason.code == "leased":
        said = str(progress_of(engine, task, reason.node_id) or "")
        return Reason(reason.node_id, reason.code, f"{reason.message}: {said}") if said else reason
    if reason.code not in ("ready", "limit"):
        return reason
    role = task.node(reason.node_id).type
    if not engine.dispatcher.serves(role):
        near = did_you_mean(role, engine.dispatcher.roles)
        message = f"node {reason.node_id!r} waits: no live worker serves {role!r}{near}"
        return Reason(reason.node_id, "no_worker", message)
    cell = engine.cells.get(task.task_id)
    if reason.code == "limit" and cell is not None and (what := engine.gate.waits_for(cell, reason.node_id)):
        return Reason(reason.node_id, "limit", f"node {reason.node_id!r} waits for {what}")
    waiting = engine.dispatcher.waiting_for(role)
    return Reason(
        reason.node_id,
        "no_room",
        f"node {reason.node_id!r} waits for room at role {role!r}; {waiting} tasks wait for it",
    )
