"""The decider: what a report means for a task, as facts to record and effects to carry out after the commit.

`decide` folds each fact it records into the task at once, so the caller holds the state after the decision; if the
commit is not acknowledged, the state is thrown away and loaded again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from flowkit.core import deadlines, selection, streams
from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.asked import Asked
from flowkit.core.attempts import Attempts
from flowkit.core.desk import CANCEL_GRACE_SEC, Decision, Desk
from flowkit.core.model import Task, Timer
from flowkit.core.moments import show_moment
from flowkit.core.opening import Detector
from flowkit.core.payload import Payload
from flowkit.core.problems import shown
from flowkit.core.sensitive import looks_secret
from flowkit.core.settling import Settling


def decide(task: Task, reports: Iterable[r.Report], now: float, detector: Detector = looks_secret) -> Decision:
    """Answer reports in order, then settle what follows in the graph. `now` is epoch seconds; `detector` says whether a
    variable that a coordinator function sets holds a secret."""
    return Deciding(task, now, detector).hear(reports)


class Deciding:
    """One decision in the making, for what is known only once a part of it is decided: reports are heard in rounds, and
    each is settled before the next. Arguments as in `decide`."""

    __slots__ = ("attempts", "desk", "now", "settling", "task")

    def __init__(self, task: Task, now: float, detector: Detector = looks_secret) -> None:
        self.task = task
        self.now = now
        self.desk = Desk(task, now, detector)
        self.attempts = Attempts(self.desk)
        self.settling = Settling(self.desk)

    def hear(self, reports: Iterable[r.Report]) -> Decision:
        """Answer these reports in order, and settle what follows; the decision with all rounds so far in it."""
        decision = self.desk.decision
        streaming = bool(self.task.graph.stream_readers)
        before = len(decision.recorded) if streaming else 0
        for report in reports:
            self._answer(report)
        self.settling.settle()
        if streaming:
            decision.effects += streams.news(self.task, decision.recorded[before:])
        return decision

    def _answer(self, report: r.Report) -> None:
        match report:
            case r.Succeeded() | r.Started():
                self.attempts.attempt(report)
            case r.Placed():
                self.attempts.placed(report)
            case r.Accepted(targets=targets):
                if not self.task.created:
                    self.desk.put(f.TaskCreated(selection.not_needed(self.task.graph, targets)))
            case r.TimeReached():
                self._timers()
            case r.PermitsUnused(node=name, claim=claim):
                self.attempts.permits_unused(name, claim)
            case r.ChildEnded():
                self.attempts.child_ended(report)
            case r.ChildGone():
                self.attempts.child_gone(report)
            case r.Fetched(ref=ref, value=value, error=error):
                self.task.fetched("values")[ref] = (value, error)
            case r.Looked(node=name, key=key, output=output):
                self.task.fetched("looked")[name, key] = output
            case r.Requested():
                if report.n > self.task.applied:
                    Asked(self.desk).requested(report)
            case _:
                self.attempts.attempt(report)

    def _timers(self) -> None:
        task = self.task
        while (at := task.next_wake()) is not None and at <= self.now:
            _, _, kind, name = heapq.heappop(task.timers)
            match kind:
                case Timer.RETRY:
                    self.desk.put(f.RetryDue(name))
                case Timer.SLEEP:
                    self.desk.put(f.NodeFinished(name, Payload(None)))
                case Timer.GRACE:
                    run = task.runs[name]
                    self.desk.put(f.NodeCancelled(name, run.reason, run.loser))
                case Timer.QUEUED:
                    limit = task.node(name).timeouts.queued_sec
                    lacked = "its limits gave it no permit, or " if task.is_limited(name) else ""
                    self._out_of_time(name, "queue_timeout", f"{lacked}no worker took it within {limit:g} s")
                case Timer.TOTAL:
                    limit = task.node(name).timeouts.total_sec
                    self._out_of_time(name, "total_timeout", f"{self._what_took(name)} longer than {limit:g} s")
                case Timer.DEADLINE if name:
                    error = deadlines.missed(task, name)
                    self._out_of_time(name, error["code"], error["message"])
                case Timer.DEADLINE:
                    message = f"the task had not ended by its deadline, {show_moment(at)}"
                    error = {"code": deadlines.CODE, "message": message}
                    self.desk.cancel_all(message, "failed", CANCEL_GRACE_SEC, error)
                case Timer.TASK:
                    message = f"the task did not end within {task.timeout_sec:g} s"
                    self.desk.cancel_all(message, "failed", CANCEL_GRACE_SEC, {"code": "timeout", "message": message})

    def _what_took(self, name: str) -> str:
        """What of a node took too long."""
        node, run = self.task.node(name), self.task.runs[name]
        if run.signal:
            return f"no signal {shown(run.signal)} came, and it waited"
        if node.foreach is not None and run.group is not None:
            return "all its items together took"
        if node.repeat is not None and run.group is not None:
            return "all its repetitions together took"
        if node.type == "sleep":
            return "it was to sleep"
        return "all its attempts together took"

    def _out_of_time(self, name: str, code: str, message: str) -> None:
        self.desk.revoke(name, message, 0.0)
        self.desk.put(f.NodeFailed(name, {"code": code, "message": message}))
