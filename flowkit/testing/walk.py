"""Walks through the commits of one task, fact by fact, and notes each that should not be there.

It keeps its own book of the nodes and believes neither the coordinator nor the fold, which it carries along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowkit.core import facts as f
from flowkit.core.derived import base_of, compensation_of, group_of, item_of, repetition_of
from flowkit.core.evolve import evolve
from flowkit.core.inputs import node_inputs
from flowkit.core.model import Task
from flowkit.core.opening import child_id
from flowkit.core.outcome import handled
from flowkit.core.payload import lift_artifacts
from flowkit.core.routing import routes
from flowkit.core.scope import Unanswered
from flowkit.core.selection import sources
from flowkit.errors import ExprError, InputError
from flowkit.ports import Commit, Head
from flowkit.testing.book import ENDS, Node, Nodes
from flowkit.testing.evidence import UNKNOWN, Evidence, Start
from flowkit.wire.facts import decode_facts

EFFECTS: dict[str, tuple[type, ...]] = {
    "pause": (f.TaskPaused,),
    "resume": (f.TaskResumed,),
    "restart": (f.TaskRestarted,),
    "cancel": (f.TaskCancelling, f.NodeCancelled, f.NodeCancelling),
    "signal": (f.SignalReceived,),
    "continue": (f.ParentWaits, f.TaskRestarted),
}
Say = Callable[[str, str, str], None]


@dataclass(slots=True)
class Walk:
    """`began` is when this generation did; `stopped` names the node that ended the task. `leases` are all that were
    committed, by node and attempt, and `over` says when those ended; `requests` are the numbers of those applied.
    `ended_for` are the attempts of the parent's node for which the task came to an end, and `children` the (node,
    attempt, task) whose ends were taken."""

    task: Task
    head: Head
    evidence: Evidence
    starts: Mapping[tuple[str, int], Start]
    say_of: Say
    seq: int = 0
    at: float = 0.0
    began: float = 0.0
    status: str = "queued"
    cancelled: bool = False
    applied: int = 0
    undoing: bool = False
    stopped: str = ""
    nodes: Nodes = field(default_factory=Nodes)
    leases: dict[tuple[str, int], f.AttemptLeased] = field(default_factory=dict)
    over: dict[tuple[str, int], float] = field(default_factory=dict)
    owed: f.RequestApplied | None = None
    requests: dict[str, int] = field(default_factory=dict)
    ended_for: set[int] = field(default_factory=set)
    children: list[tuple[str, int, str]] = field(default_factory=list)

    def say(self, kind: str, detail: object) -> None:
        self.say_of(kind, self.task.task_id, f"commit {self.seq}: {detail}")

    def follow(self, commits: Sequence[Commit]) -> None:
        self.nodes = Nodes((name, Node()) for name in self.task.graph.nodes)
        self.task.editions = dict(self.evidence.graphs)
        for commit in commits:
            self.seq, self.at = commit.seq, commit.at
            for fact in decode_facts(commit.body):
                self.look(fact)
                evolve(self.task, fact, commit.at)

    def finish(self) -> None:
        """The fold must have come to where the walker has."""
        if self.owed is not None and self.evidence.settled:
            self.say("request_without_effect", f"number {self.owed.n} ({self.owed.kind}) was applied, and nothing came")
        if self.task.status != self.status:
            self.say("fold_differs", f"the fold says {self.task.status}, the walker {self.status}")

    # ---- every fact

    def look(self, fact: f.Fact) -> None:
        if self.status in ("finished", "failed", "cancelled") and not isinstance(
            fact, (f.RequestApplied, f.TaskRestarted, f.ParentWaits)
        ):
            self.say("after_terminal", fact)
        if (self.status == "queued") != isinstance(fact, f.TaskCreated):
            self.say("not_created_first", fact)

        self.settle_request(fact)
        match fact:
            case f.AttemptLeased():
                self.leased(fact)
            case f.AttemptStarted() | f.AttemptSucceeded() | f.AttemptFailed() | f.LeaseLost():
                self.attempt(fact)
            case f.RetryDue(node=name):
                self.due(name)
            case f.NodeFailed(node=name, error=error):
                # That of a repetition, which is not tried again beyond it, fails the node at once.
                at = 0.0 if self.nodes[name].state == "group" else self.task.deadlines.get(name, 0.0)
                if error.get("code") == "deadline" and self.at < at - self.evidence.skew_sec:
                    self.say("timer_early", f"{name} had until {at:.3f}, not {self.at:.3f}")
                self.end(name, "failed")
            case f.NodeSkipped(node=name, by_failure=by_failure):
                self.nodes[name].by_failure = by_failure
                self.end(name, "skipped")
            case f.NodeCancelled(node=name):
                self.end(name, "cancelled")
            case f.NodeCancelling(node=name):
                self.nodes.cancel(name)
            case f.StreamBegun(node=name):
                self.nodes[name].streaming = True
            case _:
                self.start(fact)

    def start(self, fact: f.Fact) -> None:
        """What happens to nodes without a worker."""
        match fact:
            case f.Routed(node=name, taken=taken):
                self.routed(name, taken)
            case f.NodeOpened(node=name):
                self.opened(name)
            case f.NodeExpanded(node=name, count=count):
                self.opened(name)
                self.nodes[name].state, self.nodes[name].members = "group", count
                for index in range(count):
                    self.nodes[item_of(name, index)].state = "open"
            case f.NodeRepeated(node=name, n=n, at=begin):
                self.repeated(name, n, begin)
            case f.NodeGathered(node=name):
                if self.nodes[name].state != "group":
                    self.say("gathered_early", f"{name} is {self.nodes[name].state}")
                self.end(name, "done")
            case f.NodeWaiting(node=name, until=until):
                self.opened(name)
                self.nodes[name].state, self.nodes[name].wake = "waiting", until
            case f.NodeFinished(node=name):
                self.slept(name)
                self.compare_kept(fact)
                self.end(name, "done")
            case f.SignalReceived(node=name) if name:
                self.end(name, "done")
            case f.FunctionApplied(node=name):
                self.opened(name)
                self.end(name, "done")
            case f.ChildStarted(node=name, attempt=attempt, child=child):
                self.child(name, attempt, child)
                self.nodes[name].child_of = attempt
            case f.ChildContinued(node=name, attempt=attempt, child=child):
                self.continued(name, child)
                self.child(name, attempt, child)
            case _:
                self.whole(fact)

    def repeated(self, name: str, n: int, begin: float) -> None:
        if n == 1:
            self.opened(name)
        self.nodes[name].state, self.nodes[name].members = "group", n
        member = self.nodes[repetition_of(name, n)]
        member.state, member.wake = ("waiting", begin) if begin > self.at else ("open", None)

    def opened(self, name: str) -> None:
        """A node starts: everything that it waits for is there, and the task lets it."""
        node = self.nodes[name]
        if node.state != "open" or not self.placing:
            self.say("bad_start", f"{name} is {node.state}, the task {self.status}")
        if not self.may_start(name):
            self.say("too_early", f"{name} started before what it waits for")

    def slept(self, name: str) -> None:
        node = self.nodes[name]
        if node.state == "waiting" and self.at < (node.wake or 0.0) - self.evidence.skew_sec:
            self.say("timer_early", f"{name} slept until {node.wake:.3f}, not {self.at:.3f}")
        if node.state == "open":
            self.opened(name)

    def child(self, name: str, attempt: int, child: str) -> None:
        self.opened(name)
        node = self.nodes[name]
        if attempt <= node.attempt:
            self.say("bad_lease", f"{name} is task {child} as attempt {attempt}, the last was {node.attempt}")
        node.attempt, node.token, node.wake = attempt, child, None

    def continued(self, name: str, child: str) -> None:
        """Only the child of the last attempt goes on, which did not finish, and only where the restart said so."""
        node = self.nodes[name]
        if not node.child_of or child != child_id(self.task.task_id, name, node.child_of):
            self.say("bad_continuation", f"{name} goes on with task {child}; its last was that of {node.child_of}")

    def waits(self, fact: f.ParentWaits) -> None:
        """An attempt of the parent's node waits: a later one than before, unless it waits no more for another start."""
        known = self.task.for_attempt
        if self.status in ("finished", "failed", "cancelled"):
            self.ended_for.add(fact.attempt)
        if not self.head.parent or (fact.attempt < known or (fact.attempt == known and self.task.again is None)):
            self.say("bad_waiting", f"{fact}; its parent waited for attempt {known}")

    def routed(self, name: str, taken: tuple[str, ...]) -> None:
        """Conditions are decided once, and as they are."""
        node = self.nodes[name]
        if node.state not in ENDS or node.routes is not None:
            self.say("routed_twice", f"{name} is {node.state}, and went to {node.routes}")
        try:
            expected, broken = routes(self.task, name)
        except Unanswered:
            expected, broken = taken, []
        if expected != taken and not broken:
            self.say("wrong_route", f"{name} goes to {taken}, not to {expected}")
        node.routes = taken

    @property
    def placing(self) -> bool:
        return self.status == "running" or self.undoing

    def whole(self, fact: f.Fact) -> None:
        match fact:
            case f.TaskCreated(not_needed=not_needed):
                self.status, self.began = "running", self.at
                for name in not_needed:
                    self.nodes[name].state = "skipped"
            case f.RequestApplied():
                self.request(fact)
            case f.TaskPaused():
                self.status = "paused"
            case f.TaskResumed():
                self.status = "running"
            case f.TaskCancelling():
                self.cancelling(fact)
            case f.TaskRestarted():
                self.restarted(fact)
            case f.ParentWaits():
                self.waits(fact)
            case f.UndoBegan(nodes=nodes):
                self.status, self.undoing = "cancelling", True
                for name in nodes:
                    self.nodes[compensation_of(name)].state = "open"
            case f.TaskEnded():
                self.ended(fact)

    # ---- attempts

    def leased(self, fact: f.AttemptLeased) -> None:
        name, node = fact.node, self.nodes[fact.node]
        self.leases[name, fact.attempt] = fact
        if node.token:
            self.say("two_leases", fact)
        if node.state != "open" or not self.placing or fact.attempt <= node.attempt:
            self.say(
                "bad_lease",
                f"{fact}; the node is {node.state}, the task {self.status}, the last {node.attempt}",
            )
        if not self.may_start(name):
            self.say("too_early", f"{name} was leased before what it waits for")
        self.compare_inputs(fact)
        node.attempt, node.token, node.wake = fact.attempt, fact.token, None

    def attempt(self, fact: f.AttemptStarted | f.AttemptSucceeded | f.AttemptFailed | f.LeaseLost) -> None:
        node = self.nodes[fact.node]
        if node.state in ENDS:
            self.say("applied_twice", fact)
        if node.token != fact.token or node.attempt != fact.attempt:
            self.say("stale_applied", f"{fact}; current is {node.token or 'none'}, attempt {node.attempt}")
        if isinstance(fact, f.AttemptSucceeded | f.AttemptFailed) and (fact.node, fact.attempt) not in self.leases:
            self.children.append((fact.node, fact.attempt, fact.token))
        match fact:
            case f.AttemptSucceeded(next=chosen, output=output):
                node.next = chosen
                self.compare_output(fact, output.get())
                self.end(fact.node, "done")
            case f.AttemptFailed(retry_at=retry_at):
                self.failed(fact, node, retry_at)
            case f.LeaseLost(retry_at=retry_at):
                self.lost(fact)
                self.again(fact.node, retry_at)

    def failed(self, fact: f.AttemptFailed, node: Node, retry_at: float | None) -> None:
        if not fact.budget:
            node.failures += 1
            if retry_at is not None and node.failures >= self.task.node(fact.node).retry.max_attempts:
                self.say("over_budget", f"{fact.node} is tried again after {node.failures} failures")
        may_fail = self.evidence.may_fail
        if fact.error.get("code") == "deadline" and self.task.deadline_of(fact.node) is not None:
            may_fail = None
        if may_fail is not None and retry_at is None and not may_fail(self.task.task_id, fact.node):
            self.say("wrong_failure", f"{fact.node} cannot fail for good, and did")
        self.again(fact.node, retry_at)

    def again(self, name: str, retry_at: float | None) -> None:
        node = self.nodes[name]
        self.over[name, node.attempt] = self.at
        node.token, node.cancelling = "", False
        if retry_at is None:
            self.end(name, "failed")
        elif retry_at > self.at:
            node.wake = retry_at
            node.state = "waiting"

    def lost(self, fact: f.LeaseLost) -> None:
        place = (self.task.task_id, fact.node, fact.attempt)
        if fact.why in ("expired", "unaccepted") and (unjust := self.evidence.unjust.get(place)) is not None:
            self.say(unjust, fact)
        if self.evidence.strict and (fact.node, fact.attempt) in self.starts and fact.why != "released":
            self.say("rerun_of_running", f"{fact.node} attempt {fact.attempt} was begun, then lost: {fact.why}")

    def due(self, name: str) -> None:
        node = self.nodes[name]
        if node.state != "waiting":
            self.say("timer_stale", f"{name} is {node.state}")
        elif self.at < (node.wake or 0.0) - self.evidence.skew_sec:
            self.say("timer_early", f"{name} was due at {node.wake:.3f}, not {self.at:.3f}")
        if node.state not in ENDS:
            node.state = "open"

    def end(self, name: str, state: str) -> None:
        node = self.nodes[name]
        if node.state in ENDS:
            self.say("ended_twice", f"{name} is {node.state}, and then {state}")
        self.over.setdefault((name, node.attempt), self.at)
        node.state, node.token = state, ""

    # ---- the task

    def request(self, fact: f.RequestApplied) -> None:
        if fact.id in self.requests or fact.n <= self.applied:
            self.say("request_twice", f"number {fact.n} ({fact.kind}) after {self.applied}")
        self.requests[fact.id] = fact.n
        self.applied = max(self.applied, fact.n)
        if fact.accepted and fact.kind == "cancel":
            self.cancelled = True

        stopping = self.status == "cancelling" or any(node.cancelling for node in self.nodes.values())
        if fact.accepted and not (fact.kind == "cancel" and stopping):
            self.owed = fact

    def settle_request(self, fact: f.Fact) -> None:
        """An accepted request is followed by what it asked for, or it never will be."""
        owed, self.owed = self.owed, None
        if owed is not None and not isinstance(fact, EFFECTS.get(owed.kind, ())):
            self.say("request_without_effect", f"number {owed.n} ({owed.kind}) was applied, then came {fact}")

    def cancelling(self, fact: f.TaskCancelling) -> None:
        self.stopped = fact.by
        if fact.outcome == "cancelled" and not self.cancelled and not fact.by:
            self.say("cancel_wrong", "nobody asked for it")
        limit, over = self.task.timeout_sec, self.at - self.began
        timed_out = fact.error == {"code": "timeout", "message": fact.reason}
        latest = self.task.deadline
        missed = fact.error is not None and fact.error.get("code") == "deadline" and "node_id" not in fact.error
        if missed and (latest is None or self.at < latest - self.evidence.skew_sec):
            self.say("timer_early", f"the task had until {latest}, and it was {self.at:.3f}")
        if timed_out and limit is not None and over < limit - self.evidence.skew_sec:
            self.say("timer_early", f"the task had {limit:g} s, and {over:.3f} s were over")
        self.status = "cancelling"
        self.nodes.cancel_all()

    def restarted(self, fact: f.TaskRestarted) -> None:
        if self.status not in ("finished", "failed", "cancelled"):
            self.say("restart_of_running", f"the task is {self.status}")
        if fact.generation != self.task.generation + 1:
            self.say("generation_wrong", f"{fact.generation} after {self.task.generation}")
        self.status, self.cancelled, self.began, self.undoing = "running", False, self.at, False
        self.stopped = ""
        graph = self.task.editions[fact.graph] if fact.graph else self.task.graph
        again = set(graph.nodes if fact.nodes is None else fact.nodes)
        self.nodes.restart(graph, again, fact.within)
        for name in fact.within:
            if name not in graph.nodes or not again.isdisjoint(sources(graph, name)):
                self.say("bad_within", f"{name} goes on with a child, though what it follows runs again")

    def ended(self, fact: f.TaskEnded) -> None:
        still = [
            name
            for name, node in self.nodes.items()
            if node.state not in ENDS and (node.token or name == base_of(name))
        ]
        if still:
            self.say("ended_early", f"{fact.status}, while {still} have not ended")
        failed = [name for name, node in self.nodes.items() if node.state == "failed" and name in self.task.graph.nodes]
        match fact.status:
            case "finished" if not self.stopped and any(not handled(self.task, name) for name in failed):
                self.say("wrong_end", f"finished, with failures that nobody handled among {failed}")
            case "failed" if not failed and fact.error is None:
                self.say("wrong_end", "failed, without a failure")
            case "cancelled" if not self.cancelled and not self.stopped:
                self.say("wrong_end", "cancelled, and nobody asked for it")
        self.status = fact.status
        self.ended_for.add(self.task.for_attempt)

    # ---- what attempts were given and gave

    def may_start(self, name: str) -> bool:
        """Whether what a node waits for is there (I7)."""
        if name not in self.task.graph.nodes:
            owner = group_of(name)
            return self.undoing if not owner else self.nodes[owner].state in ("group", "done")
        return self.nodes.may_start(self.task.graph, name)

    def compare_inputs(self, fact: f.AttemptLeased) -> None:
        start = self.starts.get((fact.node, fact.attempt))
        if start is None or start.inputs is UNKNOWN:
            return
        try:
            expected, artifacts = lift_artifacts(node_inputs(self.task, fact.node))
        except Unanswered:
            return  # it hangs on an artifact, which the commits do not hold
        except (InputError, ExprError) as error:
            self.say("wrong_inputs", f"{fact.node} has none: {error}")
            return
        if not artifacts and expected != start.inputs:
            self.say("wrong_inputs", f"{fact.node} attempt {fact.attempt} got {start.inputs!r}, not {expected!r}")

    def compare_kept(self, fact: f.NodeFinished) -> None:
        """An output that was kept is as good as one that the node would give."""
        if not fact.cached or self.evidence.fits is None:
            return
        try:
            inputs, artifacts = lift_artifacts(node_inputs(self.task, fact.node))
        except Unanswered:
            return  # it hangs on an artifact, which the commits do not hold
        output = fact.output.get()
        if not artifacts and not self.evidence.fits(self.task.task_id, fact.node, inputs, output):
            self.say("wrong_value", f"{fact.node} took {output!r} for {inputs!r}, which was kept")

    def compare_output(self, fact: f.AttemptSucceeded, output: Any) -> None:
        start = self.starts.get((fact.node, fact.attempt))
        if start is None:
            return
        if start.output is not UNKNOWN and start.output != output:
            self.say("wrong_result", f"{fact.node} attempt {fact.attempt} gave {start.output!r}; applied is {output!r}")
        if start.inputs is UNKNOWN or self.evidence.fits is None:
            return
        if not self.evidence.fits(self.task.task_id, fact.node, start.inputs, output):
            self.say("wrong_value", f"{fact.node} attempt {fact.attempt} gave {output!r} for {start.inputs!r}")
