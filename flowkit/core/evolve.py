"""The fold: what each recorded fact does to a task's state. Total, deterministic, O(1) per fact and edge touched.

Readiness is not recorded: it follows here, from the counters. What needs a decision (a skip, a condition, the start of
a node that no worker runs, an end) is put on the task's agenda, or among what is due, and decided by `settle`, which
records it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core import lifecycle
from flowkit.core.derived import base_of, repetition_of
from flowkit.core.lifecycle import end, ready, reconsider, unlease
from flowkit.core.model import NOT_NEEDED, Task, TaskStatus, Timer
from flowkit.core.node_run import ENDED_NODE, Lease, NodeRun, NodeState
from flowkit.core.payload import Payload
from flowkit.core.restart import restart
from flowkit.core.vars import apply

STATUS = {str(status): status for status in TaskStatus}
BEGUN = frozenset({"expired", "released", "child_gone"})
"""Why a lease was lost whose attempt had begun."""


def evolve(task: Task, fact: f.Fact, at: float) -> None:
    """Fold one recorded fact, committed at `at` (epoch seconds), into the task, in place."""
    often = _OFTEN.get(type(fact))
    if often is not None:
        often(task, fact, at)
        return
    match fact:
        case f.AttemptStarted(node=name):
            lease = task.runs[name].lease
            if lease is not None:
                lease.started = True
        case f.AttemptFailed():
            _failed(task, fact, at)
        case f.LeaseLost():
            _lost(task, fact, at)
        case f.RetryDue(node=name):
            ready(task, name, task.runs[name], at)
        case f.NodeFailed(node=name, error=error):
            run = task.runs[name]
            run.error = error
            end(task, name, run, NodeState.FAILED, at)
        case f.NodeSkipped(node=name, reason=reason, by_failure=by_failure):
            run = task.runs[name]
            run.reason, run.by_failure = reason, by_failure
            end(task, name, run, NodeState.SKIPPED, at)
        case f.NodeCancelling(node=name, reason=reason, until=until, loser=loser):
            run = task.runs[name]
            run.loser = loser
            lifecycle.stop(task, name, run, reason, at, until)
        case f.NodeCancelled(node=name, reason=reason, loser=loser):
            run = task.runs[name]
            run.reason, run.loser, run.usage = reason, loser, fact.usage
            end(task, name, run, NodeState.CANCELLED, at)
        case _:
            _evolve_start(task, fact, at)


def _evolve_start(task: Task, fact: f.Fact, at: float) -> None:
    match fact:
        case f.Routed(node=name, taken=taken):
            lifecycle.routed(task, name, taken, at)
        case f.NodeOpened(node=name):
            run = task.runs[name]
            run.opened, run.due = True, False
            if task.due:
                task.due.pop(name, None)
            ready(task, name, run, at)
        case f.NodeExpanded(node=name, count=count, items=items):
            lifecycle.expand(task, name, count, items, at)
        case f.NodeRepeated(node=name, n=n, at=start):
            lifecycle.repeat(task, name, n, start, at)
        case f.NodeGathered(node=name):
            _gathered(task, name, at)
        case f.NodeWaiting(node=name, until=until, signal=signal):
            _waiting(task, name, until, signal, at)
        case f.NodeFinished(node=name, output=output):
            _finished(task, name, at, output)
        case f.SignalReceived():
            _signalled(task, fact, at)
        case f.ChildStarted(node=name, attempt=attempt, child=child):
            task.runs[name].child_of = attempt
            _child_runs(task, name, attempt, child, at)
        case f.ChildContinued(node=name, attempt=attempt, child=child):
            _child_runs(task, name, attempt, child, at)
        case f.FunctionApplied(node=name, operations=operations, output=output):
            apply(task.vars, operations)
            _finished(task, name, at, output)
        case f.NodeHeld(node=name):
            for one in lifecycle.all_of(task, name):
                task.unset_ready(one)
            task.held = task.held or {}
            task.held[name] = None
        case f.NodeReleased(node=name):
            if task.held:
                task.held.pop(name, None)
            for one in lifecycle.all_of(task, name):
                if task.runs[one].state is NodeState.READY:
                    task.set_ready(one)
        case f.PermitsReturned(node=name):
            task.unset_ready(name)
            task.runs[name].turn += 1
            task.set_ready(name)
        case _:
            _evolve_task(task, fact, at)


def _evolve_task(task: Task, fact: f.Fact, at: float) -> None:
    match fact:
        case f.RequestApplied(n=n, accepted=accepted, why=why):
            task.applied = n
            if not accepted:
                task.refusals = task.refusals or {}
                task.refusals[n] = why
        case f.TaskPaused(reason=reason):
            task.paused, task.reason = True, reason
            task.status = TaskStatus.PAUSED
        case f.TaskResumed():
            task.paused, task.reason = False, ""
            task.status = TaskStatus.RUNNING
        case f.TaskCancelling():
            _cancel_all(task, fact, at)
        case f.StreamBegun(node=name):
            task.runs[name].streaming = True
            for target in task.graph.starters.get(name, ()):
                lifecycle.reconsider(task, target, task.runs[target], at)
        case f.UndoBegan():
            _undo(task, fact, at)
        case f.TaskRestarted():
            restart(task, fact, at)
        case f.DeadlineSet(node=name, at=when):
            task.deadlines = task.deadlines or {}
            task.deadlines[name] = when
            task.arm(when, Timer.DEADLINE, name)
        case f.ParentWaits(attempt=attempt, again=again):
            task.for_attempt, task.again = attempt, again
        case _:
            raise AssertionError(f"evolve does not know {fact!r}")


# ---------------------------------------------------------------------------------------------- attempts


def _succeeded(task: Task, fact: f.AttemptSucceeded, at: float) -> None:
    run = task.runs[fact.node]
    run.output, run.next, run.run_sec, run.usage = fact.output, fact.next, fact.run_sec, fact.usage
    task.spent_sec += fact.run_sec
    end(task, fact.node, run, NodeState.FINISHED, at)


def _leased(task: Task, fact: f.AttemptLeased, at: float) -> None:
    run = task.runs[fact.node]
    task.unset_ready(fact.node)
    task.leased[fact.node] = None
    run.state = NodeState.RUNNING
    run.lease = Lease(fact.token, fact.worker, fact.incarnation, fact.accept_by, at)
    _attempted(task, fact.node, run, fact.attempt, at)
    if task.graph.anchors:
        _remember(task, fact.node, fact.worker)


def _remember(task: Task, name: str, worker: str) -> None:
    base = name if name in task.graph.nodes else base_of(name)
    task.ran_on = task.ran_on or {}
    if base in task.graph.anchors:
        task.ran_on[base] = worker
    lane = task.node(name).lane
    if lane is not None and lane.follows == "":
        task.ran_on.setdefault("", worker)


def _attempted(task: Task, name: str, run: NodeRun, attempt: int, at: float) -> None:
    run.attempt = attempt
    task.attempts += 1
    if name not in task.graph.nodes:
        base = task.runs[base_of(name)]
        base.peak = max(base.peak, attempt)
    lifecycle.begin(task, name, run, at)


def _failed(task: Task, fact: f.AttemptFailed, at: float) -> None:
    run = task.runs[fact.node]
    run.error, run.run_sec, run.ready_at, run.usage = fact.error, fact.run_sec, None, fact.usage
    task.spent_sec += fact.run_sec
    if fact.budget:
        run.budgets = {**(run.budgets or {}), fact.budget: (run.budgets or {}).get(fact.budget, 0) + 1}
    else:
        run.failures += 1
    _again_or_failed(task, fact.node, run, fact.retry_at, at)


def _lost(task: Task, fact: f.LeaseLost, at: float) -> None:
    run = task.runs[fact.node]
    if fact.costs:
        run.losses += 1
    elif fact.why == "declined":
        run.declines += 1
    if fact.why in BEGUN:
        run.ready_at, run.usage = None, fact.usage
    if fact.error is not None:
        run.error = fact.error
    _again_or_failed(task, fact.node, run, fact.retry_at, at)


def _again_or_failed(task: Task, name: str, run: NodeRun, retry_at: float | None, at: float) -> None:
    if retry_at is None:
        end(task, name, run, NodeState.FAILED, at)
    elif retry_at <= at:
        unlease(task, name, run)
        ready(task, name, run, at)
    else:
        unlease(task, name, run)
        run.state, run.wake = NodeState.WAITING, retry_at
        task.arm(retry_at, Timer.RETRY, name)


# ---------------------------------------------------------------------------------------------- without a worker


def _waiting(task: Task, name: str, until: float | None, signal: str, at: float) -> None:
    run = task.runs[name]
    run.state = NodeState.WAITING
    lifecycle.begin(task, name, run, at)
    if until is not None:
        run.wake = until
        task.arm(until, Timer.SLEEP, name)
    if signal:
        run.signal = signal
        task.waiting = task.waiting or {}
        task.waiting.setdefault(signal, {})[name] = None


def _signalled(task: Task, fact: f.SignalReceived, at: float) -> None:
    kept = task.signals.get(fact.name)
    if not fact.node:
        task.signals = task.signals or {}
        task.signals.setdefault(fact.name, deque()).append(fact.output)
        return
    if kept and task.runs[fact.node].signal != fact.name:  # it came before the node that takes it now
        kept.popleft()
        if not kept:
            del task.signals[fact.name]
    _finished(task, fact.node, at, fact.output)


def _child_runs(task: Task, name: str, attempt: int, child: str, at: float) -> None:
    run = task.runs[name]
    run.state, run.child = NodeState.RUNNING, child
    task.children = task.children or {}
    task.children[name] = child
    _attempted(task, name, run, attempt, at)


def _finished(task: Task, name: str, at: float, output: Payload) -> None:
    run = task.runs[name]
    lifecycle.begin(task, name, run, at)
    run.output = output
    end(task, name, run, NodeState.FINISHED, at)


def _gathered(task: Task, name: str, at: float) -> None:
    run = task.runs[name]
    if (foreach := task.node(name).foreach) is None:
        if run.group is not None:
            run.output = run.group.last
            run.next = task.runs[repetition_of(name, run.group.next)].next
    elif foreach.need is not None:
        lifecycle.fill_up(task, name, foreach.need)
    end(task, name, run, NodeState.FINISHED, at)


# ---------------------------------------------------------------------------------------------- the whole task


def _created(task: Task, fact: f.TaskCreated, at: float) -> None:
    task.status, task.created_at = TaskStatus.RUNNING, at
    if task.timeout_sec is not None:
        task.arm(at + task.timeout_sec, Timer.TASK)
    if task.deadline is not None:
        task.arm(task.deadline, Timer.DEADLINE)
    for name in fact.not_needed:  # nobody needs to be told: what follows from them is not needed either
        run = task.runs[name]
        run.state, run.reason, run.ended_at = NodeState.SKIPPED, NOT_NEEDED, at
        task.open -= 1
    for name in task.graph.roots:
        reconsider(task, name, task.runs[name], at)


def _ended(task: Task, fact: f.TaskEnded, at: float) -> None:
    task.status, task.error, task.ended_at = STATUS[fact.status], fact.error, at
    task.paused = False
    for gone in (
        task.ready, task.gated, task.due, task.agenda, task.joined, task.timers, task.signals, task.memo,
    ):  # fmt: skip
        if gone:
            gone.clear()


def _cancel_all(task: Task, fact: f.TaskCancelling, at: float) -> None:
    task.status, task.paused = TaskStatus.CANCELLING, False
    task.reason, task.cancel_outcome, task.cancel_error = fact.reason, fact.outcome, fact.error
    task.ended_by = fact.by
    for gone in (task.ready, task.gated, task.due, task.waiting):
        if gone:
            gone.clear()
    for name, run in task.runs.items():
        if run.group is not None:  # also one that has ended, and whose other items go on
            lifecycle.shut(task, run.group)
        if run.state in ENDED_NODE:
            continue
        if run.lease is not None or run.child:
            if not lifecycle.told_to_end(run):
                lifecycle.stop(task, name, run, fact.reason, at, fact.until)
        else:
            run.state, run.reason, run.ended_at, run.wake = NodeState.CANCELLED, fact.reason, at, None
            run.due, run.signal, run.stopping = False, "", False
            task.open -= 1
    task.agenda = deque(("",))


def _undo(task: Task, fact: f.UndoBegan, at: float) -> None:
    task.status, task.paused = TaskStatus.CANCELLING, False
    task.cancel_outcome, task.cancel_error = fact.outcome, fact.error
    task.undo = list(fact.nodes)
    task.open += len(fact.nodes)
    lifecycle.undo_next(task, at)


_OFTEN: Final[dict[type[f.Fact], Callable[[Task, Any, float], None]]] = {
    f.TaskCreated: _created,
    f.AttemptLeased: _leased,
    f.AttemptSucceeded: _succeeded,
    f.TaskEnded: _ended,
}
"""The facts of every task: those of a thousand a second."""
