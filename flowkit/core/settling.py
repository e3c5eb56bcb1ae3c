"""What follows in the graph, to a fixed point: conditions, starts, groups, skips, losers, fail-fast, the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowkit.core import deadlines, streams
from flowkit.core import facts as f
from flowkit.core.derived import repetition_of
from flowkit.core.desk import CANCEL_GRACE_SEC, UNFIT, Desk
from flowkit.core.effects import Continue, Spawn
from flowkit.core.graph import SUCCESS
from flowkit.core.lifecycle import group_decided, members
from flowkit.core.model import Task, TaskStatus
from flowkit.core.node_run import ENDED_NODE, NodeRun, NodeState
from flowkit.core.opening import child_params, continued_params, ending, holds, opening
from flowkit.core.outcome import ended, handled, may_yet_be_handled, node_error
from flowkit.core.readiness import Start, skip_reason, verdict
from flowkit.core.replan import going_on
from flowkit.core.routing import routes
from flowkit.core.scope import Scope, Unanswered

MOST_REASON: Final = 1000
MOST_STARTS: Final = 500
"""So many nodes are started without a worker in one decision; the others in the next, so that nobody waits for long."""


class Settling:
    __slots__ = ("decision", "desk", "now", "started", "task")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.task = desk.task
        self.now = desk.now
        self.decision = desk.decision
        self.started = 0

    def settle(self) -> None:
        """What follows in the graph, to a fixed point: conditions, starts, groups, skips, cancelled losers, fail-fast,
        what is to be undone, the end."""
        task = self.task
        if task.graph.deadlines and task.created and not task.ended:
            self.set_deadlines()
        if task.open and not (task.agenda or task.due or "values" in task.memo or task.graph.budget is not None):
            return  # most reports: nothing follows
        waiting: list[str] = []
        while True:
            self.look(waiting)
            if self.start_due():
                continue
            if not self.end():
                break
        for name in waiting:
            task.consider(name)
        if "values" in task.memo and not (self.decision.questions or waiting or task.ready or task.due):
            del task.memo["values"]

    def set_deadlines(self) -> None:
        """Tell when nodes must have ended, once that can be told. Whatever of it a crash cut off is told then."""
        for fact in deadlines.unset(self.task):
            self.desk.put(fact)
        self.decision.more |= len(self.task.deadlines) < len(self.task.graph.deadlines)

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
            if task.graph.stream_readers and streams.lost_source(task, name, run):
                self.desk.revoke(name, "a stream that it reads is broken", CANCEL_GRACE_SEC)
                stuck = True
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
                self.desk.put(
                    f.NodeFailed(target, {"code": error.code, "message": f"edge {name} -> {target}: {error}"})
                )
        self.desk.put(f.Routed(name, taken))

    def start_due(self) -> bool:
        """Start what waits for no worker; whether anything was."""
        task, before = self.task, self.started
        if not task.due or not task.placing or self.desk.out_of_budget():
            return False
        for name in list(task.due):
            if name not in task.due or (task.held and task.held_by(name)):
                continue
            if self.started - before >= MOST_STARTS or self.started >= MOST_STARTS:
                self.decision.more = True
                return False
            self.start(name)
        return self.started > before

    def start(self, name: str) -> None:
        task = self.task
        try:
            facts = opening(task, name, self.now, self.desk.detector)
        except Unanswered as unanswered:
            self.decision.questions[unanswered.question] = None
            return
        except UNFIT as error:
            facts = [f.NodeFailed(name, {"code": error.code, "message": str(error)})]
        self.started += 1
        attempt = isinstance(facts[0], f.ChildStarted | f.ChildContinued)
        if attempt and self.desk.out_of_budget(one_more=True):
            return
        for fact in facts:
            self.desk.put(fact)
            if isinstance(fact, f.ChildStarted):
                self.decision.effects.append(spawn_of(task, name))
            elif isinstance(fact, f.ChildContinued):
                self.decision.effects.append(continue_of(task, name))
            elif isinstance(fact, f.NodeFinished) and task.node(name).type == "end":
                self.end_by(name)

    def end_by(self, name: str) -> None:
        """An `end` node ends the task."""
        outcome = ending(self.task, name)
        reason = f"node {name!r} ended the task"
        error = None if outcome == "finished" else {"code": outcome, "message": reason, "node_id": name}
        self.desk.cancel_all(reason, outcome, CANCEL_GRACE_SEC, error, name)

    def gather(self, name: str, run: NodeRun) -> None:
        """Decide about a group."""
        group = run.group
        assert group is not None
        if run.stopping:
            if not group.live:
                self.desk.put(f.NodeCancelled(name, run.reason, run.loser))
        elif self.task.node(name).foreach is None:
            self.repeat(name, group.next, live=bool(group.live))
        else:
            how = group_decided(self.task, name)
            if how is NodeState.FINISHED:
                foreach = self.task.node(name).foreach
                if foreach is not None and foreach.cancel_losers:
                    self.desk.revoke(name, f"group {name!r} has what it needs", CANCEL_GRACE_SEC)
                self.desk.put(f.NodeGathered(name))
            elif how is NodeState.FAILED:
                self.desk.revoke(name, f"group {name!r} has failed", CANCEL_GRACE_SEC)
                self.desk.put(f.NodeFailed(name, group_error(self.task, name)))

    def repeat(self, name: str, number: int, *, live: bool) -> None:
        """Decide whether a node runs once more."""
        task, repeat = self.task, self.task.node(name).repeat
        assert repeat is not None
        if live:
            return
        last = task.runs[repetition_of(name, number)]
        if last.state is not NodeState.FINISHED:
            error = last.error or {"code": "cancelled", "message": last.reason}
            self.desk.put(f.NodeFailed(name, error))
            return
        output = None if last.output is None else last.output.get()
        try:
            done = holds(Scope(task, repetition_of(name, number), output=output), repeat.until)
        except UNFIT as error:
            self.desk.put(f.NodeFailed(name, {"code": error.code, "message": f"repeat.until: {error}"}))
            return
        if done:
            self.desk.put(f.NodeGathered(name))
        elif number >= repeat.most:
            say = f"it ran {number} times, and {repeat.until.text!r} did not come true"
            self.desk.put(f.NodeFailed(name, {"code": "repeat_exhausted", "message": say}))
        else:
            self.desk.put(f.NodeRepeated(name, number + 1, self.now + repeat.every_sec))

    def end(self) -> bool:
        """End the task if all its nodes have; whether something is to be undone first."""
        task = self.task
        if task.graph.budget is not None and self.desk.out_of_budget():
            return True
        if task.ended:
            return self.begin_again()
        if task.open or not task.created:
            return False
        try:
            fact = ended(task)
        except Unanswered as unanswered:
            self.decision.questions[unanswered.question] = None
            return False
        if fact.status != "finished" and task.undo is None and task.done:
            self.desk.put(f.UndoBegan(tuple(task.done), fact.status, fact.error))
            return True
        self.desk.put(fact)
        return self.begin_again()

    def begin_again(self) -> bool:
        """Restart a task that had to be cancelled first, if somebody waits for that; whether it was."""
        task = self.task
        if task.again is None:
            return False
        self.desk.put(going_on(task, task.again, task.for_attempt, self.now))
        return True

    def skip_if_stuck(self, name: str, run: NodeRun) -> bool:
        """Skip a node that can no longer run; whether a failure may have lost thereby what would have answered it: its
        last join, or its handler."""
        node = self.task.graph.nodes[name]
        if verdict(self.task, node, run) is not Start.SKIP:
            return False
        reason, by_failure, cause = skip_reason(self.task, node, run)
        self.desk.put(f.NodeSkipped(name, reason, by_failure, cause))
        if by_failure and node.fan_in.need is not None:
            return True
        return any(edge.on != SUCCESS for edge in self.task.graph.incoming[name])

    def cancel_losers(self, join: str, losers: Iterable[str]) -> None:
        for name in losers:
            if self.task.runs[name].state in ENDED_NODE:
                continue
            self.desk.cancel_node(name, f"node {join!r} went on without it", CANCEL_GRACE_SEC, loser=True)

    def fail_fast(self, suspects: Iterable[str]) -> None:
        task = self.task
        for name in suspects:
            if not handled(task, name) and not may_yet_be_handled(task, name):
                reason = f"fail_fast: node {name!r} failed"
                self.desk.cancel_all(reason, "failed", CANCEL_GRACE_SEC, node_error(task, name))
                return


def spawn_of(task: Task, name: str) -> Spawn:
    """What makes sure that the task of a sub-graph's attempt exists."""
    run = task.runs[name]
    params = child_params(task, name)
    return Spawn(name, task.node(name), run.attempt, run.child, params, task.deadline_of(name))


def continue_of(task: Task, name: str) -> Continue:
    """What makes sure that the task of an earlier attempt of a sub-graph goes on."""
    run = task.runs[name]
    return Continue(name, run.attempt, run.child, continued_params(task, name), task.deadline_of(name))


def group_error(task: Task, name: str) -> f.ErrorInfo:
    """Why a group failed: how many of its items did, and the first of them."""
    group = task.runs[name].group
    assert group is not None
    first = next((m for m in members(task, name) if task.runs[m].state in (NodeState.FAILED, NodeState.CANCELLED)), "")
    if not first:
        return {"code": "too_few_items", "message": f"it has {_items(group.count)}, fewer than it needs"}
    error = task.runs[first].error or {"code": "cancelled", "message": task.runs[first].reason}
    say = f"{group.failed} of {_items(group.count)} failed, first {first}: {error.get('code')}: {error.get('message')}"
    return {**error, "code": "item_failed", "message": say[:MOST_REASON], "item": first}


def _items(count: int) -> str:
    return f"{count:,} item{'' if count == 1 else 's'}"
