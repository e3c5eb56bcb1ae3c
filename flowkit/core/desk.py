"""What a decision is made at: the task, the time, what was decided so far, and what several kinds of decisions do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.effects import Effect, Question, Revoke, Steer
from flowkit.core.evolve import evolve
from flowkit.core.lifecycle import members, told_to_end
from flowkit.core.model import Task, TaskStatus
from flowkit.core.node_run import ENDED_NODE, NodeRun
from flowkit.core.opening import Detector
from flowkit.core.problems import Problems, shown
from flowkit.errors import ExprError, FunctionError, InputError

CANCEL_GRACE_SEC: Final = 30.0
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


class Desk:
    """`now` is epoch seconds. What is put down is folded into the task at once."""

    __slots__ = ("decision", "detector", "now", "task")

    def __init__(self, task: Task, now: float, detector: Detector) -> None:
        self.task = task
        self.now = now
        self.detector = detector
        self.decision = Decision()

    def put(self, fact: f.Fact) -> None:
        self.decision.recorded.append(fact)
        evolve(self.task, fact, self.now)

    def revoke(self, name: str, reason: str, grace_sec: float) -> None:
        """Tell whoever works at a node, or at one of its group, to stop."""
        run = self.task.runs[name]
        if run.group is not None and run.group.live:
            for member in members(self.task, name):
                if self.task.runs[member].state not in ENDED_NODE and not told_to_end(self.task.runs[member]):
                    self.revoke(member, reason, grace_sec)
        if run.child:
            self.decision.effects.append(Steer(name, run.attempt, run.child, "cancel", reason, grace_sec))
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

    def out_of_budget(self, *, one_more: bool = False) -> bool:
        """Whether the task needs more than it may use up; if so, it is cancelled. `one_more`: a sub-graph is to start,
        which is an attempt. What starts without one, such as an `end` or a node that its condition skips, is free."""
        task, budget = self.task, self.task.graph.budget
        if budget is None or task.undo is not None or task.status is TaskStatus.CANCELLING:
            return False
        wanted = one_more or task.ready or task.gated
        if budget.attempts is not None and task.attempts >= budget.attempts and wanted:
            say = f"its budget of {budget.attempts:,} attempts is used up"
        elif budget.run_sec is not None and task.spent_sec >= budget.run_sec and task.open:
            say = f"its budget of {budget.run_sec:g} s of run time is used up"
        else:
            return False
        self.cancel_all(say, "failed", CANCEL_GRACE_SEC, {"code": "budget_exceeded", "message": say})
        return True

    def run_of(self, name: Any) -> NodeRun | None:
        return self.task.runs.get(name) if isinstance(name, str) else None

    def no_node(self, name: Any) -> str:
        hint = Problems().suggest(name, self.task.runs) if isinstance(name, str) else ""
        return f"it has no node {shown(name)}{hint}"
