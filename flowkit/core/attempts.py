"""What a report about an attempt means for its node, whoever the attempt was: a worker's, or a child task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowkit.core import deadlines, streams
from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.code import OOM, Code
from flowkit.core.derived import base_of
from flowkit.core.desk import UNFIT, Desk
from flowkit.core.effects import Dispatch, Keep
from flowkit.core.graph import Node
from flowkit.core.inputs import node_inputs
from flowkit.core.model import TaskStatus
from flowkit.core.node_run import NodeRun, NodeState
from flowkit.core.opening import cache_key
from flowkit.core.payload import Payload
from flowkit.core.permits import Claim, claim_of, needs_of
from flowkit.core.problems import Problems, shown
from flowkit.core.retry import declined_wait, handlers_policy, retry_at
from flowkit.core.scope import Unanswered
from flowkit.core.transitions import TABLE, AttemptState, Verdict


class Attempts:
    __slots__ = ("decision", "desk", "now", "task")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.task = desk.task
        self.now = desk.now
        self.decision = desk.decision

    def attempt(self, report: r.AttemptReport) -> None:
        run = self.task.runs.get(report.node)
        known = self.task.last_attempt(report.node) if run is None else run.attempt
        if report.attempt < known or (run is None and report.attempt == known):
            self.decision.stale += 1
            return
        if run is None or report.attempt > run.attempt:
            self.decision.ahead.append(report)
            return

        match TABLE[attempt_state(run, report.token)][type(report)]:
            case Verdict.SUCCEEDS:
                assert isinstance(report, r.Succeeded)
                self.succeeded(run, report)
            case Verdict.STALE:
                self.decision.stale += 1
            case Verdict.RUNS:
                self.desk.put(f.AttemptStarted(report.node, report.attempt, report.token))
            case Verdict.STREAMS:
                assert isinstance(report, r.Streams)
                told = list(streams.tell(self.task, report.node))
                self.decision.effects += told
                if report.begun and not run.streaming:
                    self.desk.put(f.StreamBegun(report.node))
                elif not told:
                    self.decision.stale += 1
            case Verdict.FAILS:
                assert isinstance(report, r.Failed)
                self.failed(run, report)
            case Verdict.IS_LOST:
                self.lost(run, report)
            case Verdict.IS_CANCELLED:
                self.desk.put(f.NodeCancelled(report.node, run.reason, run.loser, getattr(report, "usage", None)))

    def succeeded(self, run: NodeRun, report: r.Succeeded) -> None:
        if report.next and (wrong := self.no_successor(report.node, report.next)):
            error = {"code": "bad_output", "message": wrong}
            failed = r.Failed(report.node, report.attempt, report.token, error, True, run_sec=report.run_sec,
                              usage=report.usage)  # fmt: skip
            self.failed(run, failed)
            return
        if report.next is None:  # only the output is kept: without the choice, all successors would run
            self.keep(report.node, report.output)
        self.desk.put(f.AttemptSucceeded(report.node, report.attempt, report.token, report.output, report.next,
                                    report.run_sec, report.usage))  # fmt: skip

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
        if node.code is not None and node.code.times and report.error.get("code") == OOM and not report.final:
            again, budget = self.with_more_memory(node.code, run), OOM
        else:
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
        error, latest = report.error, self.task.deadline_of(report.node)
        if again is not None and latest is not None and again >= latest:
            error, again = deadlines.too_late(error, latest), None
        self.desk.put(
            f.AttemptFailed(
                report.node, report.attempt, report.token, error, again, budget, report.run_sec, report.usage
            )
        )

    def with_more_memory(self, code: Code, run: NodeRun) -> float | None:
        """When code that ran out of memory is tried again: at once, while there is more to be had."""
        ooms = self.ooms(run)
        return self.now if code.memory_after(ooms + 1) > code.memory_after(ooms) else None

    def ooms(self, run: NodeRun) -> int:
        """How many attempts of a node whose memory grows have run out of it."""
        return (run.budgets or {}).get(OOM, 0)

    def lost(self, run: NodeRun, report: r.AttemptReport) -> None:
        name, attempt, token = report.node, report.attempt, report.token
        match report:
            case r.Declined():
                self.desk.put(
                    f.LeaseLost(name, attempt, token, "declined", self.now + declined_wait(run.declines), False)
                )
            case r.Expired(unaccepted=False):
                limit = self.task.node(name).retry.lost_max
                if run.losses + 1 >= limit:
                    error = {
                        "code": "worker_lost",
                        "message": f"{run.losses + 1} workers were lost while they ran it",
                    }
                    self.desk.put(f.LeaseLost(name, attempt, token, "expired", None, True, error))
                else:
                    self.desk.put(f.LeaseLost(name, attempt, token, "expired", self.now, True))
            case _:
                why = "unaccepted" if isinstance(report, r.Expired) else "released"
                usage = report.usage if isinstance(report, r.Released) else None
                self.desk.put(f.LeaseLost(name, attempt, token, why, self.now, False, usage=usage))

    def placed(self, placed: r.Placed) -> None:
        task = self.task
        run = task.runs[placed.node]
        node = task.node(placed.node)
        needs = needs_of(task, placed.node) if task.limited else ()
        permitted = not needs or placed.permits == tuple(need.limit_id for need in needs)
        startable = run.state is NodeState.READY and task.placing and not (task.held and task.held_by(placed.node))
        if not (startable and permitted) or (task.graph.budget is not None and self.desk.out_of_budget()):
            self.decision.unused.append(placed)
            return
        try:
            inputs = node_inputs(task, placed.node)
        except Unanswered as unanswered:
            self.decision.unused.append(placed)
            self.decision.questions[unanswered.question] = None
            return
        except UNFIT as error:
            self.decision.unused.append(placed)
            self.desk.put(f.NodeFailed(placed.node, {"code": error.code, "message": str(error)}))
            return

        attempt = run.attempt + 1
        self.desk.put(f.AttemptLeased(placed.node, attempt, placed.token, placed.worker, placed.incarnation,
                                 placed.accept_by, placed.permits))  # fmt: skip
        self.decision.effects.append(
            Dispatch(
                placed.node,
                node,
                attempt,
                placed.token,
                placed.worker,
                placed.incarnation,
                placed.accept_by,
                inputs,
                self.told(node, run),
            )
        )

    def told(self, node: Node, run: NodeRun) -> dict[str, Any] | None:
        """What its worker is told beside its inputs: its code, or which secrets stand in its handler's inputs."""
        if node.code is not None:
            return node.code.job(self.ooms(run))
        if not node.secrets:
            return None
        return {"secrets": list(node.secrets)} | ({"on_leak": node.on_leak} if node.on_leak else {})

    def permits_unused(self, name: str, claim: Claim) -> None:
        run = self.task.runs.get(name)
        if run is not None and run.state is NodeState.READY and claim == claim_of(self.task, run):
            self.desk.put(f.PermitsReturned(name))

    def child_ended(self, report: r.ChildEnded) -> None:
        run = self.task.runs.get(report.node)
        if run is None or run.child != report.token or run.attempt != report.attempt:
            self.decision.stale += 1
        elif run.stopping:
            self.desk.put(f.NodeCancelled(report.node, run.reason, run.loser))
        elif report.status == TaskStatus.FINISHED:
            self.keep(report.node, report.output)
            self.desk.put(f.AttemptSucceeded(report.node, report.attempt, report.token, report.output))
        else:
            error = {**(report.error or {}), "task_id": report.token}
            error.setdefault("code", f"child_{report.status}")
            error.setdefault("message", f"task {report.token} is {report.status}")
            permanent = report.status == TaskStatus.CANCELLED or not self.task.node(report.node).retry_given
            self.failed(run, r.Failed(report.node, report.attempt, report.token, error, permanent))

    def child_gone(self, report: r.ChildGone) -> None:
        run = self.task.runs.get(report.node)
        if run is None or run.child != report.token or run.attempt != report.attempt:
            self.decision.stale += 1
        elif run.stopping:
            self.desk.put(f.NodeCancelled(report.node, run.reason, run.loser))
        else:
            error = {"code": "child_gone", "message": f"task {report.token} cannot go on: {report.why}"}
            self.desk.put(f.LeaseLost(report.node, report.attempt, report.token, "child_gone", self.now, False, error))


def attempt_state(run: NodeRun, token: str) -> AttemptState:
    """Where the attempt of this token stands in the table."""
    lease = run.lease
    if lease is None or lease.token != token:
        return AttemptState.NONE
    if lease.cancelling:
        return AttemptState.CANCELLING
    return AttemptState.RUNNING if lease.started else AttemptState.LEASED
