"""Tells observers what acknowledged facts mean for attempts, nodes and tasks. Where nobody observes, there is none.

It keeps nothing of its own: when a lease began, its watch knows, as the commits say it, whoever granted it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowkit.coordinator.cell import Cell, Since
from flowkit.coordinator.leases import Leases, Watch
from flowkit.core import facts as f
from flowkit.core.model import Task
from flowkit.observations import AttemptEnded, NodeEnded, TaskEnded, WorkSent
from flowkit.ports import Clock
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Job, WorkItem
from flowkit.wire.topics import Topics

ENDS = f.AttemptSucceeded | f.AttemptFailed | f.LeaseLost


class Narrator:
    def __init__(self, clock: Clock, telemetry: Telemetry, leases: Leases, topics: Topics) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._leases = leases
        self._topics = topics

    # ------------------------------------------------------------------------------------------ what was decided

    def tell(self, cell: Cell, facts: Sequence[f.Fact], at: float) -> None:
        """These facts, decided at `at`, are acknowledged, and the cell's watches are not yet up to date with them."""
        task = cell.task
        if task is None or cell.head is None:
            return
        try:
            for fact in facts:
                self._tell(cell, task, fact, at)
        except Exception as error:  # a fault here must not cost the task anything
            self._telemetry.failed_to_observe(error)

    def _tell(self, cell: Cell, task: Task, fact: f.Fact, at: float) -> None:
        match fact:
            case f.ChildStarted() | f.ChildContinued():
                _note(cell, fact.node, Since(at, fact.attempt, fact.child))
            case f.TaskRestarted(generation=generation):
                _note(cell, "", Since(at, generation))
            case f.AttemptSucceeded() | f.AttemptFailed() | f.LeaseLost():
                self._ended(cell, task, fact, at)
            case f.NodeCancelled(node=node, reason=reason):
                self._gone(cell, task, node, "cancelled", reason, at)
            case f.NodeFailed(node=node, error=error):
                self._gone(cell, task, node, "failed", _code(error), at)
            case f.NodeFinished(node=node) | f.SignalReceived(node=node) | f.FunctionApplied(node=node) if node:
                self._finished(cell, task, node, at)
            case f.TaskEnded():
                self._over(cell, task, fact, at)

    def _ended(self, cell: Cell, task: Task, fact: ENDS, at: float) -> None:
        run_sec = 0.0
        match fact:
            case f.AttemptSucceeded():
                outcome, code, run_sec = "succeeded", "", fact.run_sec
            case f.AttemptFailed():
                outcome, code, run_sec = "failed", _code(fact.error), fact.run_sec
            case _:
                outcome, code = "lost", fact.why
        watch = self._leases.watches.get(fact.token)
        since = None if watch is not None else _forget(cell, fact.node)
        if watch is None and since is None:  # a child that another process has seen begin: its token is its id
            since = Since(task.runs[fact.node].started_at or at, fact.attempt, fact.token)
        self._attempt(cell, task, fact.node, watch, since, (outcome, code, run_sec), at)

    def _gone(self, cell: Cell, task: Task, node: str, outcome: str, code: str, at: float) -> None:
        """A node ended without a report of its attempt, if it had one."""
        watch, since = self._leases.watches.get(cell.watches.get(node, "")), _forget(cell, node)
        if watch is not None or since is not None:
            self._attempt(cell, task, node, watch, since, (outcome, code, 0.0), at)

    def _attempt(self, cell: Cell, task: Task, node: str, watch: Watch | None, since: Since | None,
                 end: tuple[str, str, float], at: float) -> None:  # fmt: skip
        assert cell.head is not None
        outcome, code, run_sec = end
        if watch is not None:
            attempt, worker, child, began = watch.attempt, watch.worker, "", (watch.ready_at, watch.leased_at)
        else:
            assert since is not None
            attempt, worker, child, began = since.attempt, "", since.child, (since.at, since.at)
            run_sec = run_sec or max(0.0, at - since.at)
        self._telemetry.told(
            AttemptEnded(
                cell.head, task, self._topics.facts, node, task.node(node).type, attempt, outcome, code, worker, child,
                *began, at, self._clock.wall(), run_sec,
            )
        )  # fmt: skip

    def _finished(self, cell: Cell, task: Task, node: str, at: float) -> None:
        assert cell.head is not None
        began = task.runs[node].started_at
        self._telemetry.told(
            NodeEnded(cell.head, node, task.node(node).type, task.generation, at if began is None else began, at)
        )

    def _over(self, cell: Cell, task: Task, fact: f.TaskEnded, at: float) -> None:
        assert cell.head is not None
        since = _forget(cell, "")
        if task.generation == 0:
            began = cell.head.created_at
        elif since is not None:
            began = since.at
        else:  # another process has seen the restart: its first node began soon after
            starts = (run.started_at for run in task.runs.values() if run.born == task.generation)
            began = min((start for start in starts if start is not None), default=at)
        self._telemetry.told(TaskEnded(cell.head, task.generation, fact.status, _code(fact.error or {}), began, at))

    # ------------------------------------------------------------------------------------------ what was sent

    def packed(self, items: Sequence[WorkItem]) -> Callable[[], None]:
        """A message with these is about to be sent; the answer is to be called once it is acknowledged."""
        began = self._clock.wall()
        jobs = [(item, self._leases.watches.get(item.token)) for item in items if isinstance(item, Job)]

        def sent() -> None:
            now = self._clock.wall()
            for job, watch in jobs:
                since = (began, began) if watch is None else (watch.ready_at, watch.leased_at)
                self._telemetry.told(WorkSent(job, self._topics.work, *since, began, now, len(items)))

        return sent


def _note(cell: Cell, name: str, since: Since) -> None:
    if cell.since is None:
        cell.since = {}
    cell.since[name] = since


def _forget(cell: Cell, name: str) -> Since | None:
    return cell.since.pop(name, None) if cell.since else None


def _code(error: f.ErrorInfo) -> str:
    return str(error.get("code", ""))
