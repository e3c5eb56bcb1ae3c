"""Says why nodes do not run (I10): what their state tells, and what the owner of the task knows of the fleet."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.streams import StreamView
from flowkit.coordinator.views import Progress, Reason, limited, waits_for
from flowkit.core.model import ENDED_NODE, Task
from flowkit.errors import did_you_mean
from flowkit.ports import Head


def explain(head: Head, task: Task, engine: Engine | None) -> list[Reason]:
    """A reason for each node that has not ended, those nearest to running first."""
    reasons = [reason for name in task.runs if (reason := waits_for(task, name)) is not None]
    if not task.created:
        reasons = [_as_ready(task, reason) for reason in reasons]
    if engine is not None and head.partition in engine.owned:
        reasons = [_placed(task, reason, engine) for reason in reasons]
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
