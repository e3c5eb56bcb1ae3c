"""A task's transitions as they were committed: replayed from the store, then live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from flowkit.coordinator.history import History
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.views import shown_state
from flowkit.core import facts as f
from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.errors import Corrupt, TaskNotFound
from flowkit.ports import Commit
from flowkit.wire.events import Event
from flowkit.wire.facts import decode_facts, row_of
from flowkit.wire.tombstone import is_tombstone

REREAD_SEC = 15.0
STREAMED = "streamed"
"""The type of an event that no commit made: how far a node has read another's batches."""


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One transition. `type` is the wire tag of the fact that made it (`leased`, `succeeded`, ...), `node_id` empty for
    the task as a whole; `from_state` and `to_state` are states of the node, or of the task. `at` is epoch seconds.

    `streamed` is no transition: it tells how far the node has read the batches of `data["source"]`, and is not there
    any more when the task is watched again; its `seq` is that of the last commit before it."""

    seq: int
    at: float
    type: str
    node_id: str
    attempt: int
    from_state: str
    to_state: str
    data: dict[str, Any] = field(default_factory=dict)


async def watch(hub: Hub, history: History, task_id: str, tenant: str, since: int) -> AsyncIterator[TaskEvent]:
    """Listens before it reads, so that nothing falls in between; a gap sends it back to the store."""
    listener = hub.listen(task_id)
    try:
        past = (await history.load([task_id], whole=True)).get(task_id)
        if past is None or past.head.tenant != tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")
        if past.task is None:
            raise Corrupt(f"task {task_id} is quarantined: {past.error}")
        assert past.first is not None
        replay, commits, seen = history.new_task(past.head, past.first), past.commits, 0
        news: Event | None = None
        told: dict[tuple[str, str], float] = {}
        while True:
            replay.editions = replay.editions | await history.editions(commits)
            for commit in commits:
                if is_tombstone(commit):
                    return
                for event in transitions(replay, commit):
                    if event.seq > since:
                        yield event
                seen = commit.seq
            if replay.ended:
                return
            if news is not None and seen >= since:
                for event in flowing(replay, seen, news, told):
                    yield event
            news = await listener.next(REREAD_SEC)
            listener.missed = False
            commits = [] if news is not None and news.seq <= seen else await history.since(task_id, seen)
    finally:
        listener.close()


def flowing(task: Task, seq: int, news: Event, told: dict[tuple[str, str], float]) -> Iterator[TaskEvent]:
    """How far streams are, one for each edge. Not recorded: only who watches meanwhile is told. `told` is how late the
    last news of each edge were: the same may come from this process and from the bus."""
    for edge in news.streams:
        key = edge.source, edge.reader
        if edge.reader in task.graph.nodes and told.get(key, 0.0) < news.at:
            told[key] = news.at
            state, lag = str(shown_state(task, edge.reader)), edge.produced - edge.consumed
            data = {"source": edge.source, "produced": edge.produced, "consumed": edge.consumed, "lag": lag}
            attempt = task.runs[edge.reader].attempt
            yield TaskEvent(seq, news.at, STREAMED, edge.reader, attempt, state, state, data)


def transitions(task: Task, commit: Commit) -> Iterator[TaskEvent]:
    """Fold one commit into the task, and tell what changed."""
    for fact in decode_facts(commit.body):
        node = getattr(fact, "node", "")
        before = shown_state(task, node) if node else task.status
        evolve(task, fact, commit.at)
        after = shown_state(task, node) if node else task.status
        tag, *_ = row_of(fact)
        yield TaskEvent(
            commit.seq,
            commit.at,
            tag,
            node,
            getattr(fact, "attempt", 0),
            str(before),
            str(after),
            _data(fact),
        )


def _data(fact: f.Fact) -> dict[str, Any]:
    match fact:
        case f.AttemptLeased(worker=worker):
            return {"worker": worker}
        case f.AttemptSucceeded(output=output, run_sec=run_sec):
            artifact = output.artifact
            value = {"artifact": artifact.ref, "size": artifact.size} if artifact is not None else output.value
            return {"output": value, "run_sec": run_sec} | _used(fact.usage)
        case f.AttemptFailed(error=error, retry_at=retry_at):
            return {"error": error, "retry_at": retry_at} | _used(fact.usage)
        case f.LeaseLost(why=why, retry_at=retry_at):
            return {"why": why, "retry_at": retry_at} | _used(fact.usage)
        case f.NodeFailed(error=error) | f.TaskEnded(error=error) if error is not None:
            return {"error": error}
        case f.NodeFinished(output=output, cached=cached):
            return {"output": output.value, "cached": cached}
        case f.NodeExpanded(count=count):
            return {"count": count}
        case f.NodeRepeated(n=n, at=start):
            return {"n": n, "at": start}
        case f.NodeWaiting(until=until, signal=signal):
            return {"until": until, "signal": signal}
        case f.SignalReceived(name=name, output=output):
            return {"name": name, "payload": output.value}
        case f.ChildStarted(child=child):
            return {"task_id": child}
        case f.FunctionApplied(operations=operations, output=output):
            return {"operations": operations, "output": output.value}
        case f.Routed(taken=taken):
            return {"taken": list(taken)}
        case f.UndoBegan(nodes=nodes, outcome=outcome):
            return {"nodes": list(nodes), "outcome": outcome}
        case f.NodeSkipped(reason=reason, cause=cause):
            return {"reason": reason, "cause": cause}
        case f.NodeCancelled(reason=reason):
            return {"reason": reason} | _used(fact.usage)
        case f.NodeCancelling(reason=reason) | f.TaskCancelling(reason=reason):
            return {"reason": reason}
        case f.RequestApplied(kind=kind, accepted=accepted, why=why, principal=principal):
            return {"kind": kind, "accepted": accepted, "why": why, "principal": principal}
        case f.TaskRestarted(generation=generation, nodes=nodes):
            return {"generation": generation, "nodes": list(nodes) if nodes is not None else None}
        case _:
            return {}


def _used(usage: f.Usage | None) -> dict[str, Any]:
    return {} if usage is None else {"usage": usage}
