"""What happened to one task, attempt by attempt: read from its commits, which are the history already.

Nothing is written for it. A history is folded as its owner folded it, and each fact looked at on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core.derived import base_of, group_of
from flowkit.core.ending import Ending, ending_of
from flowkit.core.evolve import evolve
from flowkit.core.graph import MISSING, Graph
from flowkit.core.inputs import node_inputs, output_of
from flowkit.core.model import Task
from flowkit.core.node_run import NodeRun
from flowkit.core.payload import Payload, lift_artifacts, put_at
from flowkit.monitor_ports import AttemptRecord
from flowkit.ports import Commit, Head, flow_name
from flowkit.wire.codec import loads
from flowkit.wire.facts import decode_facts
from flowkit.wire.tombstone import is_tombstone

Wanted = Callable[[str, int], bool]

SLICE: Final = 100
RUNNING: Final = "running"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A task as the store has it: its head, the graph that it began with, those that restarts brought, by reference,
    and all of its commits."""

    head: Head
    graph: Graph
    editions: Mapping[str, Graph]
    commits: Sequence[Commit]

    @property
    def steps(self) -> Iterator[tuple[Commit, Sequence[f.Fact]]]:
        """Its commits up to where it was deleted, each read when it is its turn."""
        for commit in self.commits:
            if is_tombstone(commit):
                return
            yield commit, decode_facts(commit.body)

    @property
    def seq(self) -> int:
        return self.commits[-1].seq if self.commits else 0


@dataclass(frozen=True, slots=True)
class AttemptTrace:
    """One attempt. As `AttemptRecord`, which it becomes when it has ended; `outcome` is `running` until then, and
    `ended_at` None. `started_at` is known of attempts that ran for half a second. `next` are the successors that the
    handler chose, None for all; `retry_at` when it was tried again; `child` the task that it was."""

    record: AttemptRecord
    ended: bool = False
    started_at: float | None = None
    error: dict[str, Any] | None = None
    retry_at: float | None = None
    next: tuple[str, ...] | None = None
    child: str = ""

    @property
    def node(self) -> str:
        return self.record.node

    @property
    def attempt(self) -> int:
        return self.record.attempt


@dataclass(frozen=True, slots=True)
class Values:
    """What an attempt was given and what it gave. An artifact stands as `{"artifact": ref, "size": bytes}`. `note` says
    why the inputs are not known, where they are not."""

    inputs: Any = None
    output: Any = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class NodeTrace:
    """One node, an item or a run included, as it stands in the last generation. `because` is the node whose end let it
    begin, or empty; `taken` the targets of its conditional edges that were taken, None where it has none."""

    node: str
    base: str
    type: str
    state: str
    reason: str = ""
    ready_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    because: str = ""
    taken: tuple[str, ...] | None = None
    limits: tuple[str, ...] = ()
    attempts: tuple[AttemptTrace, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskTrace:
    """A task's path: its nodes in the order in which they began, then those that did not; and all attempts, those of
    earlier generations too, in the order of their leases. `accepted_at` is when it was created, `begun_at` when a
    coordinator took it up. `seq` is the last commit."""

    task_id: str
    name: str
    flow: str
    graph: str
    status: str
    params: Any
    accepted_at: float
    begun_at: float | None
    ended_at: float | None
    generation: int
    seq: int
    error: dict[str, Any] | None
    nodes: dict[str, NodeTrace]
    attempts: tuple[AttemptTrace, ...]

    @property
    def path(self) -> list[str]:
        """The nodes that did something, in the order in which they began."""
        return [name for name, node in self.nodes.items() if node.started_at is not None]

    @property
    def last_at(self) -> float:
        """When the last thing happened that is known of."""
        times = [self.accepted_at, self.begun_at, self.ended_at]
        times += [node.ended_at or node.started_at for node in self.nodes.values()]
        return max(time for time in times if time is not None)


@dataclass(slots=True)
class _Open:
    """An attempt that has not ended in the fold yet."""

    record: AttemptRecord
    place: int
    started_at: float | None = None
    child: str = ""


@dataclass(slots=True)
class _Fold:
    task: Task
    head: Head
    wanted: Wanted | None = None
    attempts: list[AttemptTrace | None] = field(default_factory=list)
    open: dict[str, _Open] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)
    values: dict[tuple[str, int], Values] = field(default_factory=dict)
    begun_at: float | None = None

    def take(self, fact: f.Fact, commit: Commit) -> None:
        before = self.task.runs.get(fact.node) if isinstance(fact, _BEGINS) else None
        ready_at = before.ready_at if before is not None else None
        evolve(self.task, fact, commit.at)
        match fact:
            case f.TaskCreated():
                self.begun_at = commit.at
            case f.AttemptLeased():
                self._begin(fact, fact.worker, ready_at, commit.at)
            case f.ChildStarted(child=child):
                self._begin(fact, "", ready_at, commit.at)
                self.open[fact.node].child = child
            case f.AttemptStarted(node=node):
                if (of := self.open.get(node)) is not None:
                    of.started_at = commit.at
        if (ending := ending_of(fact)) is not None:
            self._note_end(fact, commit, ending)

    def _note_end(self, fact: f.Fact, commit: Commit, ending: Ending) -> None:
        match fact:
            case f.AttemptSucceeded(output=output, next=chosen):
                self._end(commit, ending, output=output, chosen=chosen)
            case f.AttemptFailed(error=error, retry_at=retry_at):
                self._end(commit, ending, error=error, retry_at=retry_at)
            case f.LeaseLost(node=node, why=why, retry_at=retry_at, error=error):
                if why == "released" and _was_told(self.task.runs.get(node)):
                    ending = (node, "cancelled", *ending[2:])
                self._end(commit, ending, error=error, retry_at=retry_at)
            case f.NodeFailed(error=error):
                self._end(commit, ending, error=error)
            case _:
                for node in (ending[0],) if ending[0] else list(self.open):
                    self._end(commit, (node, *ending[1:]))

    def _begin(self, fact: f.AttemptLeased | f.ChildStarted, worker: str, ready_at: float | None, at: float) -> None:
        task, name = self.task, fact.node
        base = base_of(name)
        record = AttemptRecord(
            task_id=task.task_id, tenant=self.head.tenant, flow=flow_of(self.head), node=name, base=base,
            role=task.node(name).type, attempt=fact.attempt, generation=task.generation, outcome=RUNNING, code="",
            worker=worker, ready_at=at if ready_at is None else ready_at, leased_at=at, ended_at=at, run_sec=0.0, seq=0,
        )  # fmt: skip
        self.ready.setdefault(name, record.ready_at)
        self.open[name] = _Open(record, len(self.attempts))
        self.attempts.append(None)
        if self.wanted is not None and self.wanted(name, fact.attempt):
            self.values[name, fact.attempt] = self._inputs(name)

    def _inputs(self, name: str) -> Values:
        try:
            return Values(inputs=_plain(node_inputs(self.task, name)))
        except Exception as error:  # what a decision had to ask the store for is not in the commits
            return Values(note=f"its inputs are not in the history: {type(error).__name__}: {error}")

    def _end(self, commit: Commit, ending: Ending, *, error: f.ErrorInfo | None = None,
             retry_at: float | None = None, output: Payload | None = None,
             chosen: tuple[str, ...] | None = None) -> None:  # fmt: skip
        name, outcome, code, run_sec, usage = ending
        of = self.open.pop(name, None)
        if of is None:
            return
        if of.child and not run_sec:
            run_sec = max(0.0, commit.at - of.record.leased_at)
        record = replace(
            of.record, outcome=outcome, code=code, ended_at=commit.at, run_sec=run_sec, seq=commit.seq, usage=usage
        )
        self.attempts[of.place] = AttemptTrace(record, True, of.started_at, error, retry_at, chosen, of.child)
        key = (name, record.attempt)
        if key in self.values and output is not None:
            self.values[key] = replace(self.values[key], output=_plain(output.get()))

    def all(self) -> tuple[AttemptTrace, ...]:
        for of in self.open.values():
            self.attempts[of.place] = AttemptTrace(of.record, False, of.started_at, child=of.child)
        return tuple(attempt for attempt in self.attempts if attempt is not None)


_BEGINS = (f.AttemptLeased, f.ChildStarted)


def read_trace(recorded: Recorded) -> Generator[None, None, TaskTrace]:
    """The trace of a task, in slices. Raises what a fold raises."""
    fold = yield from _folded(recorded, None)
    return _trace(recorded, fold)


def read_values(
    recorded: Recorded, node: str, attempt: int | None
) -> Generator[None, None, dict[tuple[str, int], Values]]:
    """What the attempts of a node were given and gave, by node and attempt; in slices."""
    fold = yield from _folded(recorded, lambda name, number: name == node and attempt in (None, number))
    if attempt is None and node in fold.task.runs and not fold.values:  # no worker ran it
        value = output_of(fold.task, node)
        return {(node, 0): Values(output=None if value is MISSING else _plain(value))}
    return fold.values


def read_values_of(
    recorded: Recorded, attempts: Collection[tuple[str, int]]
) -> Generator[None, None, dict[tuple[str, int], Values]]:
    """What these attempts, by node and number, were given and gave; in slices, and in one fold for all."""
    wanted = frozenset(attempts)
    fold = yield from _folded(recorded, lambda name, number: (name, number) in wanted)
    return fold.values


def read_ended(recorded: Recorded, after: int = 0) -> Generator[None, None, list[AttemptRecord]]:
    """The records of the attempts that ended behind commit `after`, in the order of their leases; in slices. Raises
    what a fold raises."""
    fold = yield from _folded(recorded, None)
    return [one.record for one in fold.attempts if one is not None and one.ended and one.record.seq > after]


def flow_of(head: Head) -> str:
    """What a task belongs to where many tasks are looked at: its flow, else the name of its graph."""
    return flow_name(head.flow) or head.name


def _folded(recorded: Recorded, wanted: Wanted | None) -> Generator[None, None, _Fold]:
    head = recorded.head
    task = Task(
        task_id=head.task_id, graph=recorded.graph, params=loads(head.params), tenant=head.tenant,
        timeout_sec=head.timeout_sec,
    )  # fmt: skip
    fold = _Fold(task, head, wanted)
    done = 0
    task.editions = dict(recorded.editions)
    for commit, facts in recorded.steps:
        for fact in facts:
            fold.take(fact, commit)
            done += 1
            if done % SLICE == 0:
                yield
    return fold


def _trace(recorded: Recorded, fold: _Fold) -> TaskTrace:
    head, task = recorded.head, fold.task
    attempts = fold.all()
    of_node: dict[str, list[AttemptTrace]] = {}
    for attempt in attempts:
        run = task.runs.get(attempt.node)
        if run is not None and attempt.record.generation >= run.born:
            of_node.setdefault(attempt.node, []).append(attempt)
    nodes = {name: _node(task, name, run, fold, of_node.get(name, [])) for name, run in task.runs.items()}
    order = sorted(nodes, key=lambda name: _or_never(nodes[name].started_at))
    return TaskTrace(
        task_id=head.task_id, name=head.name, flow=head.flow, graph=task.edition or head.graph_ref,
        status=str(task.status), params=task.params, accepted_at=head.created_at, begun_at=fold.begun_at,
        ended_at=task.ended_at, generation=task.generation,
        seq=recorded.seq, error=task.error,
        nodes={name: nodes[name] for name in order}, attempts=attempts,
    )  # fmt: skip


def _node(task: Task, name: str, run: NodeRun, fold: _Fold, attempts: Sequence[AttemptTrace]) -> NodeTrace:
    node = task.node(name)
    ready_at = attempts[0].record.ready_at if attempts else run.ready_at
    return NodeTrace(
        node=name, base=base_of(name), type=node.type, state=str(run.state), reason=run.reason, ready_at=ready_at,
        started_at=run.started_at, ended_at=run.ended_at, because=_because(task, name, run), taken=run.routes,
        limits=tuple(limit.key for limit in node.limits), attempts=tuple(attempts),
    )  # fmt: skip


def _or_never(at: float | None) -> float:
    return math.inf if at is None else at


def _because(task: Task, name: str, run: NodeRun) -> str:
    """The last of those that it waited for and that had ended when it began; for an item, the group that it is of."""
    if name not in task.graph.nodes:
        return group_of(name) or base_of(name)
    began = run.started_at
    if began is None:
        return ""
    sources = {edge.source for edge in task.graph.incoming[name]} | set(task.graph.reads[name])
    ends = [(task.runs[source].ended_at, source) for source in sources]
    before = [(at, source) for at, source in ends if at is not None and at <= began]
    return max(before)[1] if before else ""


def _was_told(run: NodeRun | None) -> bool:
    return run is not None and bool(run.stopping or run.reason or str(run.state) == "cancelled")


def _plain(value: Any) -> Any:
    """A value in which artifacts stand as what JSON can say of them."""
    plain, found = lift_artifacts(value)
    for place, artifact in found:
        said = {"artifact": artifact.ref, "size": artifact.size}
        if artifact.path:
            said["path"] = list(artifact.path)
        plain = put_at(plain, place, said)
    return plain
