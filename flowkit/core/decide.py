"""The decider: what a report means for a task, as facts to record and effects to carry out after the commit.

`decide` folds each fact it records into the task at once, so the caller holds the state after the decision; if the
commit is not acknowledged, the state is thrown away and loaded again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core import selection, streams
from flowkit.core.effects import Dispatch, Effect, Revoke
from flowkit.core.evolve import evolve
from flowkit.core.graph import SUCCESS
from flowkit.core.inputs import node_inputs
from flowkit.core.model import ENDED_NODE, NodeRun, NodeState, Task, TaskStatus, Timer
from flowkit.core.outcome import ended, handled, may_yet_be_handled, node_error
from flowkit.core.problems import Problems, shown
from flowkit.core.readiness import Start, skip_reason, verdict
from flowkit.core.retry import LONGEST_WAIT_SEC, declined_wait, handlers_policy, retry_at
from flowkit.core.transitions import TABLE, AttemptState, Verdict
from flowkit.errors import InputError

CANCEL_GRACE_SEC = 30.0
MOST_REASON = 1000


@dataclass(slots=True)
class Decision:
    """`recorded` facts in order; `effects` for after the acknowledgement; `ahead`: reports about attempts that this
    state does not know yet (it is behind: load again); `unused`: placements that led to no lease;
    `stale`: how many reports changed nothing."""

    recorded: list[f.Fact] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    ahead: list[r.Report] = field(default_factory=list)
    unused: list[r.Placed] = field(default_factory=list)
    stale: int = 0


def decide(task: Task, reports: Iterable[r.Report], now: float) -> Decision:
    """Answer reports in order, then settle what follows in the graph. `now` is epoch seconds."""
    decider = _Decider(task, now)
    for report in reports:
        decider.hear(report)
    decider.settle()
    decider.decision.effects += streams.news(task, decider.decision.recorded)
    return decider.decision


class _Decider:
    def __init__(self, task: Task, now: float) -> None:
        self.task = task
        self.now = now
        self.decision = Decision()

    def put(self, fact: f.Fact) -> None:
        self.decision.recorded.append(fact)
        evolve(self.task, fact, self.now)

    def hear(self, report: r.Report) -> None:
        match report:
            case r.Placed():
                self.placed(report)
            case r.Accepted(targets=targets):
                if not self.task.created:
                    self.put(f.TaskCreated(selection.not_needed(self.task.graph, targets)))
            case r.TimeReached():
                self.timers()
            case r.Requested():
                if report.n > self.task.applied:
                    self.requested(report)
            case _:
                self.attempt(report)

    # ------------------------------------------------------------------------------------------ attempts

    def attempt(self, report: r.AttemptReport) -> None:
        run = self.task.runs.get(report.node)
        if run is None or report.attempt < run.attempt:
            self.decision.stale += 1
            return
        if report.attempt > run.attempt:
            self.decision.ahead.append(report)
            return

        match TABLE[attempt_state(run, report.token)][type(report)]:
            case Verdict.STALE:
                self.decision.stale += 1
            case Verdict.RUNS:
                self.put(f.AttemptStarted(report.node, report.attempt, report.token))
            case Verdict.STREAMS:
                assert isinstance(report, r.Streams)
                told = list(streams.tell(self.task, report.node))
                self.decision.effects += told
                if report.begun and not run.streaming:
                    self.put(f.StreamBegun(report.node))
                elif not told:
                    self.decision.stale += 1
            case Verdict.SUCCEEDS:
                assert isinstance(report, r.Succeeded)
                if report.next and (wrong := self.no_successor(report.node, report.next)):
                    error = {"code": "bad_output", "message": wrong}
                    self.failed(run, r.Failed(report.node, report.attempt, report.token, error, True,
                                              run_sec=report.run_sec))  # fmt: skip
                    return
                self.put(f.AttemptSucceeded(report.node, report.attempt, report.token, report.output,
                                            report.next, report.run_sec))  # fmt: skip
            case Verdict.FAILS:
                assert isinstance(report, r.Failed)
                self.failed(run, report)
            case Verdict.IS_LOST:
                self.lost(run, report)
            case Verdict.IS_CANCELLED:
                self.put(f.NodeCancelled(report.node, run.reason, run.loser))

    def no_successor(self, name: str, chosen: Iterable[str]) -> str:
        """What is wrong with the successors that a handler chose; empty where nothing is."""
        successors = {edge.target: None for edge in self.task.graph.outgoing[name]}
        wrong = next((one for one in chosen if one not in successors), None)
        if wrong is None:
            return ""
        hint = Problems().suggest(wrong, successors)
        known = ", ".join(map(shown, list(successors)[:10])) + (", ..." if len(successors) > 10 else "")
        return f"Next names {shown(wrong)}, which is no successor of {shown(name)}{hint}; they are: {known or 'none'}"

    def failed(self, run: NodeRun, report: r.Failed) -> None:
        node = self.task.graph.nodes[report.node]
        theirs = None if node.retry_given or report.policy is None else handlers_policy(report.policy)
        again, budget = retry_at(
            node.retry if theirs is None else theirs,
            run,
            code=str(report.error.get("code", "")),
            permanent=report.permanent,
            final=report.final,
            retry_after=report.retry_after,
            name=f"{self.task.task_id}/{report.node}/{report.attempt}",
            now=self.now,
        )
        self.put(
            f.AttemptFailed(report.node, report.attempt, report.token, report.error, again, budget, report.run_sec)
        )

    def lost(self, run: NodeRun, report: r.AttemptReport) -> None:
        name, attempt, token = report.node, report.attempt, report.token
        match report:
            case r.Declined():
                self.put(f.LeaseLost(name, attempt, token, "declined", self.now + declined_wait(run.declines), False))
            case r.Expired(unaccepted=False):
                limit = self.task.graph.nodes[name].retry.lost_max
                if run.losses + 1 >= limit:
                    error = {
                        "code": "worker_lost",
                        "message": f"{run.losses + 1} workers were lost while they ran it",
                    }
                    self.put(f.LeaseLost(name, attempt, token, "expired", None, True, error))
                else:
                    self.put(f.LeaseLost(name, attempt, token, "expired", self.now, True))
            case _:
                why = "unaccepted" if isinstance(report, r.Expired) else "released"
                self.put(f.LeaseLost(name, attempt, token, why, self.now, False))

    def placed(self, placed: r.Placed) -> None:
        task = self.task
        run = task.runs[placed.node]
        if run.state is not NodeState.READY or task.status is not TaskStatus.RUNNING:
            self.decision.unused.append(placed)
            return
        node = task.graph.nodes[placed.node]
        try:
            inputs = node_inputs(task, node)
        except InputError as error:
            self.decision.unused.append(placed)
            self.put(f.NodeFailed(placed.node, {"code": error.code, "message": str(error)}))
            return

        attempt = run.attempt + 1
        self.put(
            f.AttemptLeased(placed.node, attempt, placed.token, placed.worker, placed.incarnation, placed.accept_by)
        )
        self.decision.effects.append(
            Dispatch(node, attempt, placed.token, placed.worker, placed.incarnation, placed.accept_by, inputs)
        )

    def revoke(self, name: str, reason: str, grace_sec: float) -> None:
        run = self.task.runs[name]
        if run.lease is not None:
            self.decision.effects.append(
                Revoke(
                    name,
                    run.attempt,
                    run.lease.token,
                    run.lease.worker,
                    run.lease.incarnation,
                    reason,
                    grace_sec,
                )
            )

    # ------------------------------------------------------------------------------------------ time

    def timers(self) -> None:
        task = self.task
        while (at := task.next_wake()) is not None and at <= self.now:
            _, _, kind, name = heapq.heappop(task.timers)
            match kind:
                case Timer.RETRY:
                    self.put(f.RetryDue(name))
                case Timer.GRACE:
                    run = task.runs[name]
                    self.put(f.NodeCancelled(name, run.reason, run.loser))
                case Timer.QUEUED:
                    limit = task.graph.nodes[name].timeouts.queued_sec
                    self.out_of_time(name, "queue_timeout", f"no worker took it within {limit:g} s")
                case Timer.TOTAL:
                    limit = task.graph.nodes[name].timeouts.total_sec
                    self.out_of_time(name, "total_timeout", f"all its attempts together took longer than {limit:g} s")
                case Timer.TASK:
                    message = f"the task did not end within {task.timeout_sec:g} s"
                    self.cancel_all(message, "failed", CANCEL_GRACE_SEC, {"code": "timeout", "message": message})

    def out_of_time(self, name: str, code: str, message: str) -> None:
        self.revoke(name, message, 0.0)
        self.put(f.NodeFailed(name, {"code": code, "message": message}))

    # ------------------------------------------------------------------------------------------ requests

    def requested(self, request: r.Requested) -> None:
        task = self.task
        match request.kind:
            case "cancel" if "node_id" in request.args and request.args["node_id"] is not None:
                why = self.refuse_cancel_node(request.args["node_id"])
            case "cancel":
                why = "it has ended already" if task.ended else ""
            case "pause":
                why = "" if task.status is TaskStatus.RUNNING else f"it is {task.status}, not running"
            case "resume":
                why = "" if task.status is TaskStatus.PAUSED else f"it is {task.status}, not paused"
            case "restart":
                again, why = self.to_restart(request.args)
            case _:
                why = f"nobody knows a request {request.kind!r}"

        self.put(f.RequestApplied(request.n, request.id, request.kind, not why, why, request.principal))
        if why:
            return
        match request.kind:
            case "cancel":
                self.cancel(request.args)
            case "pause":
                self.put(f.TaskPaused(_text(request.args.get("reason"))))
            case "resume":
                self.put(f.TaskResumed())
            case "restart":
                self.put(f.TaskRestarted(task.generation + 1, None if again is None else tuple(sorted(again))))

    def refuse_cancel_node(self, name: Any) -> str:
        run = self.run_of(name)
        if run is None:
            return self.no_node(name)
        return f"node {name!r} is {run.state} already" if run.state in ENDED_NODE else ""

    def cancel(self, args: dict[str, Any]) -> None:
        reason = _text(args.get("reason")) or "user_request"
        grace = _grace(args.get("grace_sec"))
        if args.get("node_id") is not None:
            self.cancel_node(args["node_id"], reason, grace)
        else:
            self.cancel_all(reason, "cancelled", grace, None)

    def cancel_node(self, name: str, reason: str, grace: float, *, loser: bool = False) -> None:
        run = self.task.runs[name]
        if run.lease is None:
            self.put(f.NodeCancelled(name, reason, loser))
        elif not run.lease.cancelling:
            self.revoke(name, reason, grace)
            self.put(f.NodeCancelling(name, reason, self.now + grace, loser))

    def cancel_all(self, reason: str, outcome: str, grace: float, error: f.ErrorInfo | None) -> None:
        if self.task.status is TaskStatus.CANCELLING:
            return
        for name in self.task.leased:
            self.revoke(name, reason, grace)
        self.put(f.TaskCancelling(reason, outcome, self.now + grace, error))

    def to_restart(self, args: dict[str, Any]) -> tuple[set[str] | None, str]:
        """The nodes that run again (None: all of them), or why none does."""
        task, name = self.task, args.get("from_node")
        if not task.ended:
            return None, f"it is {task.status}: only a task that has ended can be restarted; cancel it first"
        out = selection.left_out(task)
        if name is not None:
            if self.run_of(name) is None:
                return None, self.no_node(name)
            if why := selection.why_not_again(task, name):
                return None, f"node {name!r} could not start, {why}"
            return selection.descendants(task.graph, [name]) - out, ""
        if args.get("failed_only"):
            again = selection.unfinished_business(task) - out
            return again, "" if again else "nothing in it failed"
        return (task.runs.keys() - out) if out else None, ""

    def run_of(self, name: Any) -> NodeRun | None:
        return self.task.runs.get(name) if isinstance(name, str) else None

    def no_node(self, name: Any) -> str:
        hint = Problems().suggest(name, self.task.runs) if isinstance(name, str) else ""
        return f"it has no node {shown(name)}{hint}"

    # ------------------------------------------------------------------------------------------ consequences

    def settle(self) -> None:
        """What follows in the graph, to a fixed point: skips, cancelled losers, fail-fast, the end."""
        task = self.task
        while task.agenda:
            name = task.agenda.popleft()
            while task.joined:
                self.cancel_losers(*task.joined.pop())
            run = task.runs.get(name)
            if run is None:
                continue
            if streams.lost_source(task, task.graph.nodes[name], run):
                self.revoke(name, "a stream that it reads is broken", CANCEL_GRACE_SEC)
                hopeless = self.skip_if_stuck(name, run)
            else:
                hopeless = run.state is NodeState.PENDING and self.skip_if_stuck(name, run)
            if task.graph.fail_fast and task.status is not TaskStatus.CANCELLING:
                if run.state is NodeState.FAILED:
                    self.fail_fast([name])
                elif hopeless or run.state is NodeState.CANCELLED:
                    self.fail_fast(task.failed)
        if task.open == 0 and task.created and not task.ended:
            self.put(ended(task))

    def skip_if_stuck(self, name: str, run: NodeRun) -> bool:
        """Skip a node that can no longer run; whether a failure may have lost thereby what would have answered it: its
        last join, or its handler."""
        node = self.task.graph.nodes[name]
        if verdict(self.task, node, run) is not Start.SKIP:
            return False
        reason, by_failure, cause = skip_reason(self.task, node, run)
        self.put(f.NodeSkipped(name, reason, by_failure, cause))
        if by_failure and node.fan_in.need is not None:
            return True
        return any(edge.on != SUCCESS for edge in self.task.graph.incoming[name])

    def cancel_losers(self, join: str, losers: Iterable[str]) -> None:
        for name in losers:
            if self.task.runs[name].state in ENDED_NODE:
                continue
            self.cancel_node(name, f"node {join!r} went on without it", CANCEL_GRACE_SEC, loser=True)

    def fail_fast(self, suspects: Iterable[str]) -> None:
        task = self.task
        for name in suspects:
            if not handled(task, name) and not may_yet_be_handled(task, name):
                reason = f"fail_fast: node {name!r} failed"
                self.cancel_all(reason, "failed", CANCEL_GRACE_SEC, node_error(task, name))
                return


def attempt_state(run: NodeRun, token: str) -> AttemptState:
    """Where the attempt of this token stands in the table."""
    lease = run.lease
    if lease is None or lease.token != token:
        return AttemptState.NONE
    if lease.cancelling:
        return AttemptState.CANCELLING
    return AttemptState.RUNNING if lease.started else AttemptState.LEASED


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MOST_REASON]


def _grace(value: Any) -> float:
    """What a caller gave as seconds, made sensible."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return CANCEL_GRACE_SEC
    return min(max(0.0, value), LONGEST_WAIT_SEC)
