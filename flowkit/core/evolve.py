"""The fold: what each recorded fact does to a task's state. Total, deterministic, O(1) per fact and edge touched.

Readiness is not recorded: it follows here, from the counters. What needs a decision (a skip, an end) is put on the
task's agenda and decided by `settle`, which records it.
"""

from __future__ import annotations

from flowkit.core import facts as f
from flowkit.core.model import ENDED_NODE, NOT_NEEDED, Lease, NodeRun, NodeState, Task, TaskStatus, Timer
from flowkit.core.readiness import Start, count, verdict
from flowkit.core.selection import losers

BEGUN = frozenset({"expired", "released"})
"""Why a lease was lost whose attempt had begun."""


def evolve(task: Task, fact: f.Fact, at: float) -> None:
    """Fold one recorded fact, committed at `at` (epoch seconds), into the task, in place."""
    match fact:
        case f.AttemptSucceeded(node=name, output=output, next=chosen, run_sec=run_sec):
            run = task.runs[name]
            run.output, run.next, run.run_sec = output, chosen, run_sec
            _end(task, name, run, NodeState.FINISHED, at)
        case f.AttemptLeased():
            _leased(task, fact, at)
        case f.AttemptStarted(node=name):
            lease = task.runs[name].lease
            if lease is not None:
                lease.started = True
        case f.AttemptFailed():
            _failed(task, fact, at)
        case f.LeaseLost():
            _lost(task, fact, at)
        case f.RetryDue(node=name):
            _ready(task, name, task.runs[name], at)
        case f.NodeFailed(node=name, error=error):
            run = task.runs[name]
            run.error = error
            _end(task, name, run, NodeState.FAILED, at)
        case f.NodeSkipped(node=name, reason=reason, by_failure=by_failure):
            run = task.runs[name]
            run.reason, run.by_failure = reason, by_failure
            _end(task, name, run, NodeState.SKIPPED, at)
        case f.NodeCancelling(node=name, reason=reason, until=until, loser=loser):
            task.runs[name].loser = loser
            _cancelling(task, name, reason, until)
        case f.NodeCancelled(node=name, reason=reason, loser=loser):
            run = task.runs[name]
            run.reason, run.loser = reason, loser
            _end(task, name, run, NodeState.CANCELLED, at)
        case _:
            _evolve_task(task, fact, at)


def _evolve_task(task: Task, fact: f.Fact, at: float) -> None:
    match fact:
        case f.TaskCreated(not_needed=not_needed):
            _created(task, not_needed, at)
        case f.RequestApplied(n=n, accepted=accepted, why=why):
            task.applied = n
            if not accepted:
                task.refusals[n] = why
        case f.TaskPaused(reason=reason):
            task.paused, task.reason = True, reason
            task.status = TaskStatus.PAUSED
        case f.TaskResumed():
            task.paused, task.reason = False, ""
            task.status = TaskStatus.RUNNING
        case f.TaskCancelling():
            _cancel_all(task, fact, at)
        case f.TaskRestarted(generation=generation, nodes=nodes):
            _restart(task, generation, nodes, at)
        case f.StreamBegun(node=name):
            task.runs[name].streaming = True
            for target in task.graph.starters.get(name, ()):
                _reconsider(task, target, task.runs[target], at)
        case f.TaskEnded(status=status, error=error):
            task.status, task.error, task.ended_at = TaskStatus(status), error, at
            task.paused = False
            task.ready.clear()
            task.agenda.clear()
            task.joined.clear()
            task.timers.clear()
        case _:
            raise AssertionError(f"evolve does not know {fact!r}")


# ---------------------------------------------------------------------------------------------- one node


def _leased(task: Task, fact: f.AttemptLeased, at: float) -> None:
    run = task.runs[fact.node]
    task.unset_ready(fact.node)
    task.leased[fact.node] = None
    run.state = NodeState.RUNNING
    run.attempt = fact.attempt
    run.lease = Lease(fact.token, fact.worker, fact.incarnation, fact.accept_by, at)
    if run.started_at is None:
        run.started_at = at


def _failed(task: Task, fact: f.AttemptFailed, at: float) -> None:
    run = task.runs[fact.node]
    run.error, run.run_sec, run.ready_at = fact.error, fact.run_sec, None
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
        run.ready_at = None
    if fact.error is not None:
        run.error = fact.error
    _again_or_failed(task, fact.node, run, fact.retry_at, at)


def _again_or_failed(task: Task, name: str, run: NodeRun, retry_at: float | None, at: float) -> None:
    if retry_at is None:
        _end(task, name, run, NodeState.FAILED, at)
    elif retry_at <= at:
        _unlease(task, name, run)
        _ready(task, name, run, at)
    else:
        _unlease(task, name, run)
        run.state, run.wake = NodeState.WAITING, retry_at
        task.arm(retry_at, Timer.RETRY, name)


def _ready(task: Task, name: str, run: NodeRun, at: float) -> None:
    timeouts = task.graph.nodes[name].timeouts
    if run.started_at is None and timeouts.total_sec is not None:
        task.arm(at + timeouts.total_sec, Timer.TOTAL, name)
    if run.ready_at is None:  # else its attempt never began, and it has waited since then
        run.ready_at = at
    run.state, run.wake = NodeState.READY, None
    task.set_ready(name)
    if timeouts.queued_sec is not None:
        task.arm(run.ready_at + timeouts.queued_sec, Timer.QUEUED, name)


def _cancelling(task: Task, name: str, reason: str, until: float) -> None:
    run = task.runs[name]
    run.reason = reason
    if run.lease is not None:
        run.lease.cancelling = True
        task.arm(until, Timer.GRACE, name)


def _unlease(task: Task, name: str, run: NodeRun) -> None:
    run.lease = None
    task.leased.pop(name, None)
    task.unset_ready(name)


def _end(task: Task, name: str, run: NodeRun, state: NodeState, at: float) -> None:
    _unlease(task, name, run)
    run.state, run.ended_at, run.wake = state, at, None
    task.open -= 1
    if state is NodeState.FAILED:
        task.failed[name] = None
        task.agenda.append(name)
    elif state is NodeState.FINISHED and run.error is not None:
        run.error = None
    elif state is NodeState.CANCELLED and task.failed and task.graph.fail_fast:
        task.agenda.append(name)
    _tell_successors(task, name, at)
    if not task.open:
        task.agenda.append(name)


def _tell_successors(task: Task, name: str, at: float) -> None:
    for edge in task.graph.outgoing[name]:
        run = task.runs[edge.target]
        count(task, edge, run)
        _reconsider(task, edge.target, run, at)
    for reader in task.graph.readers[name]:
        run = task.runs[reader]
        run.unread -= 1
        _reconsider(task, reader, run, at)


def _reconsider(task: Task, name: str, run: NodeRun, at: float) -> None:
    node = task.graph.nodes[name]
    if run.state is not NodeState.PENDING:
        if node.stream is not None and run.broken:
            task.agenda.append(name)  # it has begun with a first batch, of a stream that is broken now
        return
    match verdict(task, node, run):
        case Start.START:
            if node.fan_in.cancel_losers and run.undecided:
                # Found here, so that a replay, which knows how all went on, finds the same.
                task.joined.append((name, losers(task, name)))
                task.agenda.append(name)
            _ready(task, name, run, at)
        case Start.SKIP:
            task.agenda.append(name)


# ---------------------------------------------------------------------------------------------- the whole task


def _created(task: Task, not_needed: tuple[str, ...], at: float) -> None:
    task.status, task.created_at = TaskStatus.RUNNING, at
    if task.timeout_sec is not None:
        task.arm(at + task.timeout_sec, Timer.TASK)
    for name in not_needed:  # nobody needs to be told: what follows from them is not needed either
        run = task.runs[name]
        run.state, run.reason, run.ended_at = NodeState.SKIPPED, NOT_NEEDED, at
        task.open -= 1
    for name in task.graph.roots:
        _reconsider(task, name, task.runs[name], at)
    if not task.open:
        task.agenda.append("")


def _cancel_all(task: Task, fact: f.TaskCancelling, at: float) -> None:
    task.status, task.paused = TaskStatus.CANCELLING, False
    task.reason, task.cancel_outcome, task.cancel_error = fact.reason, fact.outcome, fact.error
    task.ready.clear()
    for name, run in task.runs.items():
        if run.state in ENDED_NODE:
            continue
        if run.lease is not None:
            _cancelling(task, name, fact.reason, fact.until)
        else:
            run.state, run.reason, run.ended_at, run.wake = NodeState.CANCELLED, fact.reason, at, None
            task.open -= 1
    task.agenda.clear()
    task.agenda.append("")


def _restart(task: Task, generation: int, nodes: tuple[str, ...] | None, at: float) -> None:
    graph = task.graph
    again = set(graph.nodes) if nodes is None else set(nodes)

    task.generation, task.status, task.ended_at = generation, TaskStatus.RUNNING, None
    task.error, task.reason, task.cancel_outcome, task.cancel_error = None, "", "", None
    task.ready.clear()
    task.leased.clear()
    task.agenda.clear()
    task.joined.clear()
    task.timers.clear()
    task.open = len(again)
    for name in again:
        task.runs[name].reset(len(graph.incoming[name]), len(graph.reads[name]))
        task.runs[name].born = generation
        task.failed.pop(name, None)
    if task.timeout_sec is not None:
        task.arm(at + task.timeout_sec, Timer.TASK)
    for name in graph.nodes:
        if name in again:
            _recount(task, name, again, at)
    if not task.open:
        task.agenda.append("")


def _recount(task: Task, name: str, again: set[str], at: float) -> None:
    graph, run = task.graph, task.runs[name]
    for edge in graph.incoming[name]:
        if edge.source not in again:
            count(task, edge, run)
    run.unread -= sum(source not in again for source in graph.reads[name])
    _reconsider(task, name, run, at)
