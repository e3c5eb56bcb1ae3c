"""The state of a task: what the fold of its facts says. Changed only by `evolve`."""

from __future__ import annotations

import enum
import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from flowkit.core.bounds import UNBOUNDED
from flowkit.core.derived import COMPENSATE, base_of, group_of, steps_of
from flowkit.core.facts import ErrorInfo
from flowkit.core.graph import Graph, Node
from flowkit.core.node_run import ENDED_NODE, NONE, NOTHING, NodeRun, NodeState
from flowkit.core.payload import Payload


class TaskStatus(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOST_ATTEMPTS = 2**62

NOT_NEEDED = "not_needed"
"""Why a node is skipped from which nothing leads to a target of its task."""

ENDED_TASK = frozenset({TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class Runs(dict[str, NodeRun]):
    """Every node's run by id: those of the graph's nodes, each made when it is first asked for, so that taking up a
    large task costs nothing but what is looked at; and those of nodes that are derived from them, once they exist."""

    __slots__ = ("__weakref__", "derived", "graph")

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.derived: dict[str, None] = NOTHING

    def __missing__(self, name: str) -> NodeRun:
        if name not in self.graph.nodes:
            if base_of(name) not in self.graph.nodes:
                raise KeyError(name)
            return NodeRun(0, 0)  # one that does not exist (any more), and that nobody keeps
        run = self[name] = NodeRun(len(self.graph.incoming[name]), len(self.graph.reads[name]))
        return run

    def derive(self, name: str, attempt: int) -> NodeRun:
        """The run of a derived node that begins to exist; its attempts are counted on from `attempt`."""
        run = NodeRun(0, 0, attempt)
        self.put_derived(name, run)
        return run

    def put_derived(self, name: str, run: NodeRun) -> None:
        """A derived node exists, and this is its run."""
        self.derived = self.derived or {}
        self.derived[name] = None
        self[name] = run

    def forget(self, name: str) -> None:
        """A derived node ceases to exist."""
        del self.derived[name]
        del self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.graph.nodes or name in self.derived

    def __iter__(self) -> Iterator[str]:
        yield from self.graph.nodes
        yield from self.derived

    def __len__(self) -> int:
        return len(self.graph.nodes) + len(self.derived)

    def get(self, name: str, default: Any = None) -> Any:
        run = dict.get(self, name)
        if run is None and name in self:
            return self[name]
        return default if run is None else run

    def keys(self) -> Any:
        return self.graph.nodes.keys() | self.derived.keys() if self.derived else self.graph.nodes.keys()

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]


class Timer:
    """The kinds of durable timers; each is checked against the state when it fires, so a stale one does nothing."""

    RETRY = "retry"
    QUEUED = "queued"
    TOTAL = "total"
    GRACE = "grace"
    TASK = "task"
    SLEEP = "sleep"
    DEADLINE = "deadline"


class Task:
    """A task's whole state, owned and changed in place by one coordinator.

    `ready` are the nodes that wait for a worker, by lane, oldest first; `leased` those that have one; `agenda` the
    nodes about which `settle` has something to decide; `joined` the quorums that started while some of their parents
    had not ended, each with what is to be cancelled; `open` how many nodes have not ended; `failed` the failed nodes
    in order; `gated` the ready nodes that need permits, and those of them in `ready` have theirs: `gated_anew` is for
    whoever asks for them; `applied` the number of the last request answered. `timers` is a heap of (at, generation,
    kind, node).

    `due` are the nodes whose start is to be decided; `held` those that were paused one by one, a group with all of it;
    `children` those whose attempt is a task of its own. `vars` are what coordinator functions keep; `signals` came
    before a node waited for them; `waiting` are the nodes that wait for a signal, by its name. `attempts` and
    `spent_sec` are what was used up in this generation. Where a node says how to undo it, `done` are those that
    finished, in order, and `undo` what is still to be undone, the next one last (None: nothing is). `ended_by` is the
    `end` node that gives the task's output. `edition` is the reference of the graph that a restart brought, empty for
    the first; `editions` are the graphs of those that its facts name, and `edited_params` says that `params` are not
    those of the head. `memo` holds what was fetched for decisions, and is no part of the state; nor are `bounds`, which
    its coordinator has set. `ran_on` are the workers of the graph's anchors. `for_attempt` is the attempt of the
    parent's node that waits for the task's end, 0 in a task that is nobody's child; `again` says how the task begins
    again once it has been cancelled, None: it does not. `deadline` (epoch seconds) is when the task must have ended,
    None: never; `deadlines` say so of nodes.
    """

    __slots__ = (
        "again", "agenda", "applied", "attempts", "bounds", "cancel_error", "cancel_outcome", "children", "created_at",
        "deadline", "deadlines", "done", "due", "edited_params", "edition", "editions", "ended_at", "ended_by", "error",
        "failed", "for_attempt", "gated", "gated_anew", "generation", "graph", "held", "joined", "leased", "memo",
        "open", "params", "paused",
        "ran_on", "ready", "reason", "refusals", "runs", "signals", "spent_sec", "status", "task_id", "tenant",
        "timeout_sec", "timers", "undo", "vars", "waiting",
    )  # fmt: skip

    def __init__(self, *, task_id: str, graph: Graph, params: Mapping[str, Any], tenant: str = "default",
                 timeout_sec: float | None = None, parent_attempt: int = 0,
                 deadline: float | None = None) -> None:  # fmt: skip
        self.task_id = task_id
        self.tenant = tenant
        self.graph = graph
        self.params = params
        self.timeout_sec = timeout_sec if timeout_sec is not None else graph.timeout_sec
        self.status = TaskStatus.QUEUED
        self.paused = False
        self.generation = 0
        self.applied = 0
        self.refusals: dict[int, str] = NOTHING
        self.created_at = 0.0
        self.ended_at: float | None = None
        self.error: ErrorInfo | None = None
        self.reason = ""
        self.cancel_outcome = ""
        self.cancel_error: ErrorInfo | None = None
        self.runs = Runs(graph)
        self.open = len(graph.nodes)
        self.ready: dict[str, OrderedDict[str, None]] = {}
        self.gated: dict[str, None] = NOTHING
        self.gated_anew: list[str] = NONE
        self.leased: dict[str, None] = {}
        self.agenda: deque[str] = NONE
        self.joined: list[tuple[str, list[str]]] = NONE
        self.failed: dict[str, None] = NOTHING
        self.timers: list[tuple[float, int, str, str]] = []
        self.due: dict[str, None] = NOTHING
        self.held: dict[str, None] = NOTHING
        self.children: dict[str, str] = NOTHING
        self.vars: dict[str, Any] = {}
        self.signals: dict[str, deque[Payload]] = NOTHING
        self.waiting: dict[str, dict[str, None]] = NOTHING
        self.attempts = 0
        self.spent_sec = 0.0
        self.done: dict[str, None] = NOTHING
        self.undo: list[str] | None = None
        self.ended_by = ""
        self.edition = ""
        self.editions: dict[str, Graph] = NOTHING
        self.edited_params = False
        self.memo: dict[str, Any] = NOTHING
        self.bounds = UNBOUNDED
        self.ran_on: dict[str, str] = NOTHING
        self.for_attempt = parent_attempt
        self.again: dict[str, Any] | None = None
        self.deadline = earlier(deadline, graph.deadline)
        self.deadlines: dict[str, float] = NOTHING

    def consider(self, name: str) -> None:
        """Have `settle` decide about a node."""
        self.agenda = self.agenda or deque()
        self.agenda.append(name)

    def fetched(self, kind: str) -> dict[Any, Any]:
        """What was fetched of a kind."""
        self.memo = self.memo or {}
        known: dict[Any, Any] = self.memo.setdefault(kind, {})
        return known

    def node(self, name: str) -> Node:
        """What a node does: of the graph, or of one derived from it. Raises `KeyError` for any other id."""
        try:
            return self.graph.nodes[name]
        except KeyError:
            return self._derived_node(name)

    def _derived_node(self, name: str) -> Node:
        if name.endswith("]"):  # an item, most likely of a node of the graph
            group = self.graph.nodes.get(name[: name.rindex("[")])
            if group is not None and group.foreach is not None and group.body is not None:
                return group.body
        node: Node | None = self.graph.nodes[base_of(name)]
        for step in steps_of(name) or ("",):
            match step if node is not None else "":
                case "[" if node is not None and node.foreach is not None:
                    node = node.body
                case "#" if node is not None and node.repeat is not None:
                    node = node.body
                case "/" if node is not None:
                    node = node.compensate
                case _:
                    node = None
        if node is None:
            raise KeyError(name)
        return node

    def last_attempt(self, name: str) -> int:
        """The last attempt that this state can know of a node. One that was derived and does not exist any more was of
        an earlier generation; one that does not yet will count on from those. Of an id that means nothing, it is beyond
        all."""
        if name in self.runs:
            return self.runs[name].attempt
        base = base_of(name)
        return self.runs[base].floor if base in self.graph.nodes else MOST_ATTEMPTS

    def deadline_of(self, name: str) -> float | None:
        """When a node must have ended: its own deadline, that of the node it derives from, or the task's. What undoes
        another has none: it is the more wanted for being late."""
        if (self.deadline is None and not self.deadlines) or name.endswith(COMPENSATE):
            return None
        if not self.deadlines:
            return self.deadline
        return earlier(self.deadline, self.deadlines.get(base_of(name)))

    @property
    def placing(self) -> bool:
        """Whether nodes may start: the task runs, or undoes what it did."""
        return self.status is TaskStatus.RUNNING or (self.undo is not None and self.status is TaskStatus.CANCELLING)

    @property
    def ended(self) -> bool:
        return self.status in ENDED_TASK

    @property
    def created(self) -> bool:
        return self.status is not TaskStatus.QUEUED

    def held_by(self, name: str) -> str:
        """What was paused so that a node may not start: itself, or the group that it is one of; empty: nothing."""
        if not self.held:
            return ""
        while name and name not in self.held:
            name = group_of(name)
        return name

    def set_ready(self, name: str) -> None:
        if self.held and self.held_by(name):
            return
        node = self.node(name)
        if node.limits or (self.bounds is not UNBOUNDED and self.bounds.of(node.type)):
            self.gated, self.gated_anew = self.gated or {}, self.gated_anew or []
            self.gated[name] = None
            self.gated_anew.append(name)
        else:
            self._queue(name, node)

    @property
    def limited(self) -> bool:
        """Whether any of its nodes may need permits."""
        return self.graph.limited or self.bounds is not UNBOUNDED

    def is_limited(self, name: str) -> bool:
        """Whether an attempt of a node needs permits."""
        if not self.limited:
            return False
        node = self.node(name)
        return bool(node.limits or self.bounds.of(node.type))

    def gate_anew(self) -> None:
        """What was ready under other bounds, and waits for no worker yet, needs the permits of these."""
        waiting = [name for lane in self.ready.values() for name in lane]
        for name in (*waiting, *self.gated):
            if self.is_limited(name) != (name in self.gated):
                self.unset_ready(name)
                self.set_ready(name)
        self.gated_anew = list(self.gated)

    def let_through(self, name: str) -> None:
        """Its permits are at hand: it waits for a worker. Not recorded; who loads the task asks for them again."""
        self._queue(name, self.node(name))

    def _queue(self, name: str, node: Node) -> None:
        lane = _lane(node)
        names = self.ready.get(lane)
        if names is None:
            names = self.ready[lane] = OrderedDict()
        names[name] = None

    def unset_ready(self, name: str) -> None:
        if self.gated:
            self.gated.pop(name, None)
        if not self.ready:
            return
        lane = _lane(self.node(name))
        waiting = self.ready.get(lane)
        if waiting is not None:
            waiting.pop(name, None)
            if not waiting:
                del self.ready[lane]

    def arm(self, at: float, kind: str, node: str = "") -> None:
        heapq.heappush(self.timers, (at, self.generation, kind, node))

    def next_wake(self) -> float | None:
        """When the next timer is due; None without one. Timers that no longer mean anything are dropped on the way."""
        while self.timers and not self.timer_live(self.timers[0]):
            heapq.heappop(self.timers)
        return self.timers[0][0] if self.timers else None

    def timer_live(self, timer: tuple[float, int, str, str]) -> bool:
        at, generation, kind, node = timer
        if generation != self.generation or self.ended:
            return False
        if kind == Timer.DEADLINE and (self.deadlines.get(node) if node else self.deadline) != at:
            return False
        if not node:
            return self.status is not TaskStatus.CANCELLING
        run = self.runs[node]
        if kind in (Timer.RETRY, Timer.SLEEP):
            return run.state is NodeState.WAITING and run.wake == at
        if kind == Timer.GRACE:
            return run.lease is not None and run.lease.cancelling
        if kind == Timer.QUEUED:
            queued = self.node(node).timeouts.queued_sec
            return run.state is NodeState.READY and queued is not None and (run.ready_at or 0.0) + queued == at
        told_to_end = run.stopping or (run.lease is not None and run.lease.cancelling)
        return run.state not in ENDED_NODE and not told_to_end


def earlier(one: float | None, other: float | None) -> float | None:
    """The earlier of two moments, or the shorter of two times, where None is never."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _lane(node: Node) -> str:
    return node.type if node.lane is None else node.lane.key
