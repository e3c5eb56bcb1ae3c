"""What users see of a task: plain values, built from its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from flowkit.coordinator.streams import StreamView
from flowkit.core.derived import group_of
from flowkit.core.graph import MISSING
from flowkit.core.inputs import output_of
from flowkit.core.model import Task, TaskStatus
from flowkit.core.node_run import Group, NodeRun, NodeState
from flowkit.core.payload import PLAIN
from flowkit.core.permits import needs_of
from flowkit.ports import Head

SLICE = 2000


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running attempt last said of itself by `ctx.progress`, as the last heartbeat had it."""

    done: float | None = None
    total: float | None = None
    message: str = ""

    def __str__(self) -> str:
        count = "" if self.done is None else f"{self.done:g}"
        count += "" if self.total is None else f" of {self.total:g}"
        if count and self.message.startswith(f"{count} "):
            return self.message  # it says so itself, as that of a node with streams does
        return ": ".join(part for part in (count.strip(), self.message) if part)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, an item or a repetition included. Times are epoch seconds. `reason` says why it is skipped, cancelled,
    or does not run. `progress` is known in the process that coordinates the task; `child` is the task that a
    sub-graph's running attempt is; `size` how many items a map has, or how many runs a repetition had so far; `usage`
    what the program of the last attempt used, and its verdict, where a program ran it."""

    node_id: str
    type: str
    state: str
    reason: str = ""
    attempts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    retry_at: float | None = None
    worker: str | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    progress: Progress | None = None
    child: str | None = None
    size: int | None = None
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as its commits say, at `seq`. `graph` is the hash of the graph that it runs, which a restart may have
    edited; `flow` the version of a flow that it began as (`name@3`), or empty. `streams` are the edges that batches
    flow along. `deadline` (epoch seconds) is when it must have ended."""

    task_id: str
    status: str
    tenant: str
    principal: str
    name: str
    output: Any
    error: dict[str, Any] | None
    reason: str
    params: Any
    labels: dict[str, str]
    priority: int
    generation: int
    created_at: float
    ended_at: float | None
    seq: int
    graph: str
    nodes: dict[str, NodeView]
    flow: str = ""
    streams: tuple[StreamView, ...] = ()
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How a task ended. `output` is the graph's output, `outputs` every finished node's, `seconds` from creation to
    end."""

    task_id: str
    status: str
    output: Any = None
    outputs: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    created_at: float = 0.0
    ended_at: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it finished."""
        return self.status == TaskStatus.FINISHED

    @property
    def seconds(self) -> float:
        """How long it took, from its creation on."""
        return (self.ended_at or self.created_at) - self.created_at


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a node does not run (I10). `code`: `waiting_for`, `no_worker`, `no_room`, `limit`, `retry_at`, `paused`,
    `leased`, `cancelling`, `signal`, `sleeping`, `child` (a task of its own), `items` (a group), `deciding`, or `ready`
    where nobody in this process knows the workers; `message` says it in a sentence."""

    node_id: str
    code: str
    message: str


def node_view(task: Task, name: str, run: NodeRun) -> NodeView:
    output = output_of(task, name)
    return NodeView(
        node_id=name,
        type=task.node(name).type,
        state=shown_state(task, name),
        reason="limit" if name in task.gated else run.reason,
        attempts=run.attempt,
        started_at=run.started_at,
        finished_at=run.ended_at,
        retry_at=run.wake,
        worker=run.lease.worker if run.lease is not None else None,
        output=None if output is MISSING else _own(output),
        error=run.error,
        child=run.child or None,
        size=run.group.count if run.group is not None else None,
        usage=_own(run.usage),
    )


def shown_state(task: Task, name: str) -> NodeState:
    """A node's state as users see it: what is ready but for its limits waits."""
    return NodeState.WAITING if name in task.gated else task.runs[name].state


async def task_view(head: Head, task: Task, seq: int, output: Any) -> TaskView:
    """The view of a task whose output is `output`; of a large one in slices, so that the loop goes on."""
    nodes: dict[str, NodeView] = {}
    async for names in slices(list(task.runs)):
        nodes.update((name, node_view(task, name, task.runs[name])) for name in names)
    return TaskView(
        task_id=head.task_id,
        status=task.status,
        tenant=head.tenant,
        principal=head.principal,
        name=head.name,
        output=_own(output),
        error=task.error,
        reason=task.reason,
        params=task.params,
        labels=dict(head.labels),
        priority=head.priority,
        generation=task.generation,
        created_at=head.created_at,
        ended_at=task.ended_at,
        seq=seq,
        graph=task.edition or head.graph_ref,
        nodes=nodes,
        flow=head.flow,
        deadline=task.deadline,
    )


async def task_result(head: Head, task: Task, output: Any) -> TaskResult:
    """The result of a task that has ended with `output`; of a large one in slices, so that the loop goes on."""
    outputs: dict[str, Any] = {}
    for place, name in enumerate(task.graph.nodes):
        if place and place % SLICE == 0:
            await asyncio.sleep(0)
        value = output_of(task, name)
        if value is not MISSING:
            outputs[name] = _own(value)
    return TaskResult(head.task_id, task.status, _own(output), outputs, task.error, head.created_at, task.ended_at)


async def slices(names: list[str]) -> AsyncIterator[Iterable[str]]:
    """Some names after the others; others get their turn in between."""
    for start in range(0, len(names), SLICE):
        yield names[start : start + SLICE]
        if start + SLICE < len(names):
            await asyncio.sleep(0)


def _own(value: Any) -> Any:
    """A copy for the caller: what users do to a result must not reach the state that the coordinator decides with."""
    if isinstance(value, dict):
        return {key: item if type(item) in PLAIN else _own(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) in PLAIN else _own(item) for item in value]
    return value


def waits_for(task: Task, name: str) -> Reason | None:
    """Why a node that has not started does not start, as far as the task's own state tells."""
    run, node = task.runs[name], task.node(name)
    match run.state:
        case NodeState.PENDING | NodeState.READY if held := task.held_by(name):
            it = "it" if held == name else repr(name)
            say = f"node {held!r} is paused; resume_task(..., node_id={held!r}) lets {it} start"
            return Reason(name, "paused", say)
        case NodeState.PENDING if run.due and task.paused:
            return Reason(name, "paused", f"node {name!r} may start; the task is paused")
        case NodeState.PENDING if run.due:
            return Reason(name, "deciding", f"node {name!r} may start; what it needs is being read")
        case NodeState.PENDING if name not in task.graph.nodes:
            say = f"node {name!r} waits for others of {group_of(name)!r} to end: {_most(task, name)} may run at a time"
            return Reason(name, "waiting_for", say)
        case NodeState.PENDING:
            open_sources = [e.source for e in task.graph.incoming[name] if task.runs[e.source].ended_at is None]
            open_sources += [s for s in task.graph.reads[name] if task.runs[s].ended_at is None]
            shown = ", ".join(map(repr, open_sources[:5])) + (", ..." if len(open_sources) > 5 else "")
            return Reason(name, "waiting_for", f"node {name!r} waits for {shown or 'its sources'}")
        case NodeState.WAITING if run.signal:
            return Reason(name, "signal", f"node {name!r} waits for the signal {run.signal!r}")
        case NodeState.WAITING if node.type == "sleep":
            return Reason(name, "sleeping", f"node {name!r} sleeps until {run.wake:.3f} (epoch seconds)")
        case NodeState.WAITING:
            return Reason(name, "retry_at", f"node {name!r} is tried again at {run.wake:.3f} (epoch seconds)")
        case NodeState.READY if task.paused:
            return Reason(name, "paused", f"node {name!r} is ready; the task is paused")
        case NodeState.READY if task.is_limited(name):
            return limited(task, name)
        case NodeState.READY:
            return Reason(name, "ready", f"node {name!r} is ready for a worker of role {node.type!r}")
        case NodeState.RUNNING if run.stopping or (run.lease is not None and run.lease.cancelling):
            return Reason(name, "cancelling", f"node {name!r} was told to stop: {run.reason}")
        case NodeState.RUNNING if run.lease is not None:
            state = "runs on" if run.lease.started else "is leased to"
            return Reason(name, "leased", f"node {name!r} {state} worker {run.lease.worker}, attempt {run.attempt}")
        case NodeState.RUNNING if run.child and (held := task.held_by(name)):
            say = (
                f"node {name!r} is task {run.child}, which is paused; resume_task(..., node_id={held!r}) lets it go on"
            )
            return Reason(name, "paused", say)
        case NodeState.RUNNING if run.group is not None and (held := task.held_by(name)):
            say = f"node {held!r} is paused; resume_task(..., node_id={held!r}) lets it go on"
            return Reason(name, "paused", f"{_group(name, run.group, items=node.foreach is not None)}; {say}")
        case NodeState.RUNNING if run.child:
            return Reason(name, "child", f"node {name!r} is task {run.child}, attempt {run.attempt}")
        case NodeState.RUNNING if run.group is not None:
            return Reason(name, "items", _group(name, run.group, items=node.foreach is not None))
        case _:
            return None


def limited(task: Task, name: str) -> Reason:
    """What is ready but for its limits, as whoever does not know their lines sees it."""
    keys = ", ".join(repr(need.key) for need in needs_of(task, name))
    return Reason(name, "limit", f"node {name!r} waits for limit {keys}")


def _most(task: Task, item: str) -> str:
    foreach = task.node(group_of(item)).foreach
    return f"{foreach.most:,}" if foreach is not None and foreach.most is not None else "so many"


def _group(name: str, group: Group, *, items: bool) -> str:
    if not items:
        return f"node {name!r} repeats, {group.next} times so far"
    failed = f", {group.failed} failed" if group.failed else ""
    return f"node {name!r} has {group.count} items: {group.done} done{failed}, {group.live} begun"
