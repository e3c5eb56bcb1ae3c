"""The decider: what a report means for a task, as facts to record and effects to carry out after the commit.

`decide` folds each fact it records into the task at once, so the caller holds the state after the decision; if the
commit is not acknowledged, the state is thrown away and loaded again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core import selection
from flowkit.core.derived import base_of, repetition_of
from flowkit.core.effects import Dispatch, Effect, Keep, Question, Revoke, Spawn, Steer
from flowkit.core.evolve import evolve
from flowkit.core.graph import SUCCESS, Graph
from flowkit.core.inputs import node_inputs
from flowkit.core.lifecycle import group_decided, members, told_to_end
from flowkit.core.model import ENDED_NODE, NodeRun, NodeState, Task, TaskStatus, Timer
from flowkit.core.opening import Detector, cache_key, child_params, ending, holds, opening
from flowkit.core.outcome import ended, handled, may_yet_be_handled, node_error
from flowkit.core.payload import Payload
from flowkit.core.problems import Problems, shown
from flowkit.core.readiness import Start, skip_reason, verdict
from flowkit.core.replan import RestartPlan, plan_restart
from flowkit.core.retry import LONGEST_WAIT_SEC, declined_wait, handlers_policy, retry_at
from flowkit.core.routing import routes
from flowkit.core.scope import Scope, Unanswered
from flowkit.core.sensitive import looks_secret
from flowkit.core.transitions import TABLE, AttemptState, Verdict
from flowkit.errors import ExprError, FunctionError, InputError

CANCEL_GRACE_SEC: Final = 30.0
MOST_REASON: Final = 1000
MOST_STARTS: Final = 500
"""So many nodes are started without a worker in one decision; the others in the next, so that nobody waits for long."""
MOST_SIGNALS: Final = 1000

UNFIT: Final = (InputError, ExprError, FunctionError)
"""What is wrong with what a node was given, and fails it."""


@dataclass(slots=True)
class Decision:
    """`recorded` facts in order; `effects` for after the acknowledgement; `ahead`: reports about attempts that this
    state does not know yet (it is behind: load again); `unused`: placements that led to no lease;
    `stale`: how many reports changed nothing; `questions`: what the store must be asked before more can be decided;
    `more`: there is more to be decided, now."""

    recorded: list[f.Fact] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    ahead: list[r.Report] = field(default_factory=list)
    unused: list[r.Placed] = field(default_factory=list)
    stale: int = 0
    questions: dict[Question, None] = field(default_factory=dict)
    more: bool = False


def decide(task: Task, reports: Iterable[r.Report], now: float, detector: Detector = looks_secret) -> Decision:
    """Answer reports in order, then settle what follows in the graph. `now` is epoch seconds; `detector` says whether a
    variable that a coordinator function sets holds a secret."""
    decider = _Decider(task, now, detector)
    for report in reports:
        decider.hear(report)
    decider.settle()
    return decider.decision


class _Decider:
    def __init__(self, task: Task, now: float, detector: Detector = looks_secret) -> None:
        self.task = task
        self.detector = detector
        self.now = now
        self.decision = Decision()
        self.started = 0

    def put(self, fact: f.Fact) -> None:
        self.decision.recorded.append(fact)
        evolve(self.task, fact, self.now)

    def hear(self, report: r.Report) -> None:
        match report:
            case r.Succeeded() | r.Started():
                self.attempt(report)
            case r.Placed():
                self.placed(report)
            case r.Accepted(targets=targets):
                if not self.task.created:
                    self.put(f.TaskCreated(selection.not_needed(self.task.graph, targets)))
            case r.TimeReached():
                self.timers()
            case r.ChildEnded():
                self.child_ended(report)
            case r.Fetched(ref=ref, value=value, error=error):
                self.task.memo.setdefault("values", {})[ref] = (value, error)
            case r.Looked(node=name, key=key, output=output):
                self.task.memo.setdefault("looked", {})[name, key] = output
            case r.Requested():
                if report.n > self.task.applied:
                    self.requested(report)
            case _:
                self.attempt(report)

    # ------------------------------------------------------------------------------------------ attempts

    def attempt(self, report: r.AttemptReport) -> None:
        run = self.task.runs.get(report.node)
        known = self.task.last_attempt(report.node)
        if report.attempt < known or (run is None and report.attempt == known):
            self.decision.stale += 1
            return
        if run is None or report.attempt > run.attempt:
            self.decision.ahead.append(report)
            return

        match TABLE[attempt_state(run, report.token)][type(report)]:
            case Verdict.STALE:
                self.decision.stale += 1
            case Verdict.RUNS:
                self.put(f.AttemptStarted(report.node, report.attempt, report.token))
            case Verdict.SUCCEEDS:
                assert isinstance(report, r.Succeeded)
                self.succeeded(run, report)
            case Verdict.FAILS:
                assert isinstance(report, r.Failed)
                self.failed(run, report)
            case Verdict.IS_LOST:
                self.lost(run, report)
            case Verdict.IS_CANCELLED:
                self.put(f.NodeCancelled(report.node, run.reason, run.loser))

    def succeeded(self, run: NodeRun, report: r.Succeeded) -> None:
        if report.next and (wrong := self.no_successor(report.node, report.next)):
            error = {"code": "bad_output", "message": wrong}
            failed = r.Failed(report.node, report.attempt, report.token, error, True, run_sec=report.run_sec)
            self.failed(run, failed)
            return
        self.keep(report.node, report.output)
        self.put(f.AttemptSucceeded(report.node, report.attempt, report.token, report.output, report.next,
                                    report.run_sec))  # fmt: skip

    def keep(self, name: str, output: Payload) -> None:
        """Keep an output for those that come with the same key."""
        cache = self.task.node(name).cache
        if cache is None:
            return
        try:
            key = cache_key(self.task, name, cache.key)
        except (*UNFIT, Unanswered):
            return  # what the key was made of has changed meanwhile
        self.decision.effects.append(Keep(key, output, cache.ttl_sec))

    def no_successor(self, name: str, chosen: Iterable[str]) -> str:
        """What is wrong with the successors that a handler chose; empty where nothing is."""
        if name not in self.task.graph.nodes and not name.startswith(f"{base_of(name)}#"):
            return f"Next names {shown(next(iter(chosen)))}, but {shown(name)} is one of many and chooses nothing"
        name = base_of(name)
        successors = {edge.target: None for edge in self.task.graph.outgoing[name]}
        wrong = next((one for one in chosen if one not in successors), None)
        if wrong is None:
            return ""
        hint = Problems().suggest(wrong, successors)
        known = ", ".join(map(shown, list(successors)[:10])) + (", ..." if len(successors) > 10 else "")
        return f"Next names {shown(wrong)}, which is no successor of {shown(name)}{hint}; they are: {known or 'none'}"

    def failed(self, run: NodeRun, report: r.Failed) -> None:
        node = self.task.node(report.node)
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
                limit = self.task.node(name).retry.lost_max
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
        if run.state is not NodeState.READY or not task.placing or placed.node in task.held or self.out_of_budget():
            self.decision.unused.append(placed)
            return
        node = task.node(placed.node)
        try:
            inputs = node_inputs(task, placed.node)
        except Unanswered as unanswered:
            self.decision.unused.append(placed)
            self.decision.questions[unanswered.question] = None
            return
        except UNFIT as error:
            self.decision.unused.append(placed)
            self.put(f.NodeFailed(placed.node, {"code": error.code, "message": str(error)}))
            return

        attempt = run.attempt + 1
        self.put(
            f.AttemptLeased(placed.node, attempt, placed.token, placed.worker, placed.incarnation, placed.accept_by)
        )
        self.decision.effects.append(
            Dispatch(
                placed.node, node, attempt, placed.token, placed.worker, placed.incarnation, placed.accept_by, inputs
            )
        )

    # ------------------------------------------------------------------------------------------ children

    def child_ended(self, report: r.ChildEnded) -> None:
        run = self.task.runs.get(report.node)
        if run is None or run.child != report.token:
            self.decision.stale += 1
        elif run.stopping:
            self.put(f.NodeCancelled(report.node, run.reason, run.loser))
        elif report.status == TaskStatus.FINISHED:
            self.keep(report.node, report.output)
            self.put(f.AttemptSucceeded(report.node, report.attempt, report.token, report.output))
        else:
            error = {**(report.error or {}), "task_id": report.token}
            error.setdefault("code", f"child_{report.status}")
            error.setdefault("message", f"task {report.token} is {report.status}")
            permanent = report.status == TaskStatus.CANCELLED or not self.task.node(report.node).retry_given
            self.failed(run, r.Failed(report.node, report.attempt, report.token, error, permanent))

    def revoke(self, name: str, reason: str, grace_sec: float) -> None:
        """Tell whoever works at a node, or at one of its group, to stop."""
        run = self.task.runs[name]
        if run.group is not None and run.group.live:
            for member in members(self.task, name):
                if self.task.runs[member].state not in ENDED_NODE and not told_to_end(self.task.runs[member]):
                    self.revoke(member, reason, grace_sec)
        if run.child:
            self.decision.effects.append(Steer(run.child, "cancel", reason, grace_sec))
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
                case Timer.SLEEP:
                    self.put(f.NodeFinished(name, Payload(None)))
                case Timer.GRACE:
                    run = task.runs[name]
                    self.put(f.NodeCancelled(name, run.reason, run.loser))
                case Timer.QUEUED:
                    limit = task.node(name).timeouts.queued_sec
                    self.out_of_time(name, "queue_timeout", f"no worker took it within {limit:g} s")
                case Timer.TOTAL:
                    limit = task.node(name).timeouts.total_sec
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
            case "pause" if request.args.get("node_id") is not None:
                why = self.refuse_hold(request.args["node_id"])
            case "resume" if request.args.get("node_id") is not None:
                name = request.args["node_id"]
                why = "" if name in task.held else f"node {shown(name)} is not paused"
            case "pause":
                why = "" if task.status is TaskStatus.RUNNING else f"it is {task.status}, not running"
            case "resume":
                why = "" if task.status is TaskStatus.PAUSED else f"it is {task.status}, not paused"
            case "signal":
                why = self.refuse_signal(request.args)
            case "restart":
                plan = self.plan(request.args)
                why = plan.refused
            case _:
                why = f"nobody knows a request {request.kind!r}"

        self.put(f.RequestApplied(request.n, request.id, request.kind, not why, why, request.principal))
        if why:
            return
        match request.kind:
            case "cancel":
                self.cancel(request.args)
            case "pause" | "resume":
                self.pause_or_resume(request)
            case "signal":
                self.signal(request.args)
            case "restart":
                self.restart(plan, request.args)

    def pause_or_resume(self, request: r.Requested) -> None:
        name, reason = request.args.get("node_id"), _text(request.args.get("reason"))
        if name is not None:
            self.put(f.NodeHeld(name, reason) if request.kind == "pause" else f.NodeReleased(name))
            return
        self.put(f.TaskPaused(reason) if request.kind == "pause" else f.TaskResumed())
        self.decision.effects += [Steer(child, request.kind, reason) for child in self.task.children.values()]

    def refuse_hold(self, name: Any) -> str:
        run = self.run_of(name)
        if run is None:
            return self.no_node(name)
        if run.state in ENDED_NODE:
            return f"node {name!r} is {run.state} already"
        return f"node {name!r} is paused already" if name in self.task.held else ""

    def refuse_signal(self, args: dict[str, Any]) -> str:
        task, name = self.task, args.get("name")
        if task.ended:
            return "it has ended already"
        if not isinstance(name, str):
            return f"{shown(name)} is no name of a signal"
        if task.waiting.get(name):
            return ""
        able = [*task.graph.signals.get(name, ()), *task.graph.signals.get("", ())]
        if not able:
            known = ", ".join(map(shown, filter(None, task.graph.signals))) or "none"
            hint = Problems().suggest(name, task.graph.signals)
            return f"none of its nodes waits for a signal {shown(name)}{hint}; they wait for: {known}"
        if all(task.runs[node].state in ENDED_NODE for node in able):
            return f"no node waits for a signal {shown(name)} any more"
        if len(task.signals.get(name, ())) >= MOST_SIGNALS:
            return f"{MOST_SIGNALS:,} signals {shown(name)} wait to be taken already"
        return ""

    def signal(self, args: dict[str, Any]) -> None:
        taker = next(iter(self.task.waiting.get(args["name"], ())), "")
        self.put(f.SignalReceived(args["name"], Payload(args.get("payload")), taker))

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
        if run.lease is None and not run.child and not (run.group is not None and run.group.live):
            self.put(f.NodeCancelled(name, reason, loser))
        elif not told_to_end(run):
            self.revoke(name, reason, grace)
            self.put(f.NodeCancelling(name, reason, self.now + grace, loser))

    def cancel_all(self, reason: str, outcome: str, grace: float, error: f.ErrorInfo | None, by: str = "") -> None:
        if self.task.status is TaskStatus.CANCELLING:
            return
        for name in (*self.task.leased, *self.task.children):
            if not told_to_end(self.task.runs[name]):
                self.revoke(name, reason, grace)
        self.put(f.TaskCancelling(reason, outcome, self.now + grace, error, by))

    def out_of_budget(self) -> bool:
        """Whether the task has used up what it may; if so, it is cancelled."""
        task, budget = self.task, self.task.graph.budget
        if not budget.limited or task.undo is not None or task.status is TaskStatus.CANCELLING:
            return False
        if budget.attempts is not None and task.attempts >= budget.attempts and (task.ready or task.due):
            say = f"its budget of {budget.attempts:,} attempts is used up"
        elif budget.run_sec is not None and task.spent_sec >= budget.run_sec and task.open:
            say = f"its budget of {budget.run_sec:g} s of run time is used up"
        else:
            return False
        self.cancel_all(say, "failed", CANCEL_GRACE_SEC, {"code": "budget_exceeded", "message": say})
        return True

    def plan(self, args: dict[str, Any]) -> RestartPlan:
        """What a restart would do. The edited graph, if there is one, was read by whoever handed the request over."""
        if not args.get("graph_ref"):
            return plan_restart(self.task, args)
        graph = args.get("graph")
        if not isinstance(graph, Graph):
            return RestartPlan(refused="its edited graph cannot be read")
        return plan_restart(self.task, args, graph)

    def restart(self, plan: RestartPlan, args: dict[str, Any]) -> None:
        ref, params = args.get("graph_ref") or "", args.get("params")
        if ref:
            self.task.editions[ref] = args["graph"]
        nodes = None if plan.whole else tuple(sorted(plan.again))
        self.put(f.TaskRestarted(self.task.generation + 1, nodes, ref, params))

    def run_of(self, name: Any) -> NodeRun | None:
        return self.task.runs.get(name) if isinstance(name, str) else None

    def no_node(self, name: Any) -> str:
        hint = Problems().suggest(name, self.task.runs) if isinstance(name, str) else ""
        return f"it has no node {shown(name)}{hint}"

    # ------------------------------------------------------------------------------------------ consequences

    def settle(self) -> None:
        """What follows in the graph, to a fixed point: conditions, starts, groups, skips, cancelled losers, fail-fast,
        what is to be undone, the end."""
        task = self.task
        if task.open and not (task.agenda or task.due or "values" in task.memo or task.graph.budget.limited):
            return  # most reports: nothing follows
        waiting: list[str] = []
        while True:
            self.look(waiting)
            if self.start_due():
                continue
            if not self.end():
                break
        task.agenda.extend(waiting)
        if "values" in task.memo and not (self.decision.questions or waiting or task.ready or task.due):
            del task.memo["values"]

    def look(self, waiting: list[str]) -> None:
        """Decide about all that is on the agenda. What must ask the store first goes to `waiting`."""
        task = self.task
        while task.agenda:
            name = task.agenda.popleft()
            while task.joined:
                self.cancel_losers(*task.joined.pop())
            run = task.runs.get(name)
            if run is None:
                continue
            try:
                if name in task.graph.choices and run.state in ENDED_NODE:
                    self.route(name, run)
                if run.group is not None and run.state is NodeState.RUNNING:
                    self.gather(name, run)
            except Unanswered as unanswered:
                self.decision.questions[unanswered.question] = None
                waiting.append(name)
                continue
            stuck = run.state is NodeState.PENDING and not run.due and name in task.graph.nodes
            hopeless = stuck and self.skip_if_stuck(name, run)
            if task.graph.fail_fast and task.status is not TaskStatus.CANCELLING:
                if run.state is NodeState.FAILED:
                    self.fail_fast([name])
                elif hopeless or run.state is NodeState.CANCELLED:
                    self.fail_fast(task.failed)

    def route(self, name: str, run: NodeRun) -> None:
        """Decide the conditional edges of a node that has ended."""
        if run.routes is not None:
            return
        taken, broken = routes(self.task, name)
        if taken is None:
            return
        for target, error in broken:
            if self.task.runs[target].state is NodeState.PENDING:
                self.put(f.NodeFailed(target, {"code": error.code, "message": f"edge {name} -> {target}: {error}"}))
        self.put(f.Routed(name, taken))

    def start_due(self) -> bool:
        """Start what waits for no worker; whether anything was."""
        task, before = self.task, self.started
        if not task.due or not task.placing or self.out_of_budget():
            return False
        for name in list(task.due):
            if name in task.held or name not in task.due:
                continue
            if self.started - before >= MOST_STARTS or self.started >= MOST_STARTS:
                self.decision.more = True
                return False
            self.start(name)
        return self.started > before

    def start(self, name: str) -> None:
        task = self.task
        try:
            facts = opening(task, name, self.now, self.detector)
        except Unanswered as unanswered:
            self.decision.questions[unanswered.question] = None
            return
        except UNFIT as error:
            facts = [f.NodeFailed(name, {"code": error.code, "message": str(error)})]
        self.started += 1
        for fact in facts:
            self.put(fact)
            if isinstance(fact, f.ChildStarted):
                self.decision.effects.append(spawn_of(task, name))
            elif isinstance(fact, f.NodeFinished) and task.node(name).type == "end":
                self.end_by(name)

    def end_by(self, name: str) -> None:
        """An `end` node ends the task."""
        said = node_inputs(self.task, name) if not self.task.node(name).constant else self.task.node(name).inputs
        outcome = ending(said) if isinstance(said, dict) else "finished"
        reason = f"node {name!r} ended the task"
        error = None if outcome == "finished" else {"code": outcome, "message": reason, "node_id": name}
        self.cancel_all(reason, outcome, CANCEL_GRACE_SEC, error, name)

    def gather(self, name: str, run: NodeRun) -> None:
        """Decide about a group."""
        group = run.group
        assert group is not None
        if run.stopping:
            if not group.live:
                self.put(f.NodeCancelled(name, run.reason, run.loser))
        elif self.task.node(name).foreach is None:
            self.repeat(name, group.next, live=bool(group.live))
        else:
            how = group_decided(self.task, name)
            if how is NodeState.FINISHED:
                foreach = self.task.node(name).foreach
                if foreach is not None and foreach.cancel_losers:
                    self.revoke(name, f"group {name!r} has what it needs", CANCEL_GRACE_SEC)
                self.put(f.NodeGathered(name))
            elif how is NodeState.FAILED:
                self.revoke(name, f"group {name!r} has failed", CANCEL_GRACE_SEC)
                self.put(f.NodeFailed(name, group_error(self.task, name)))

    def repeat(self, name: str, number: int, *, live: bool) -> None:
        """Decide whether a node runs once more."""
        task, repeat = self.task, self.task.node(name).repeat
        assert repeat is not None
        if live:
            return
        last = task.runs[repetition_of(name, number)]
        if last.state is not NodeState.FINISHED:
            error = last.error or {"code": "cancelled", "message": last.reason}
            self.put(f.NodeFailed(name, error))
            return
        output = None if last.output is None else last.output.get()
        try:
            done = holds(Scope(task, repetition_of(name, number), output=output), repeat.until)
        except UNFIT as error:
            self.put(f.NodeFailed(name, {"code": error.code, "message": f"repeat.until: {error}"}))
            return
        if done:
            self.put(f.NodeGathered(name))
        elif number >= repeat.most:
            say = f"it ran {number} times, and {repeat.until.text!r} did not come true"
            self.put(f.NodeFailed(name, {"code": "repeat_exhausted", "message": say}))
        else:
            self.put(f.NodeRepeated(name, number + 1, self.now + repeat.every_sec))

    def end(self) -> bool:
        """End the task if all its nodes have; whether something is to be undone first."""
        task = self.task
        if self.out_of_budget():
            return True
        if task.open or not task.created or task.ended:
            return False
        try:
            fact = ended(task)
        except Unanswered as unanswered:
            self.decision.questions[unanswered.question] = None
            return False
        if fact.status != "finished" and task.undo is None and task.done:
            self.put(f.UndoBegan(tuple(task.done), fact.status, fact.error))
            return True
        self.put(fact)
        return False

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


def spawn_of(task: Task, name: str) -> Spawn:
    """What makes sure that the task of a sub-graph's attempt exists."""
    run = task.runs[name]
    return Spawn(name, task.node(name), run.attempt, run.child, child_params(task, name))


def group_error(task: Task, name: str) -> f.ErrorInfo:
    """Why a group failed: how many of its items did, and the first of them."""
    group = task.runs[name].group
    assert group is not None
    first = next((m for m in members(task, name) if task.runs[m].state in (NodeState.FAILED, NodeState.CANCELLED)), "")
    if not first:
        return {"code": "too_few_items", "message": f"it has {group.count} items, fewer than it needs"}
    error = task.runs[first].error or {"code": "cancelled", "message": task.runs[first].reason}
    say = f"{group.failed} of {group.count} items failed, first {first}: {error.get('code')}: {error.get('message')}"
    return {**error, "code": "item_failed", "message": say[:MOST_REASON], "item": first}


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
