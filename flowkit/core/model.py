"""The state of a task: what the fold of its facts says. Changed only by `evolve`."""

from __future__ import annotations

import enum
import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from flowkit.core.facts import ErrorInfo
from flowkit.core.graph import Graph
from flowkit.core.payload import Payload


class NodeState(enum.StrEnum):
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class TaskStatus(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


NOT_NEEDED = "not_needed"
"""Why a node is skipped from which nothing leads to a target of its task."""

ENDED_NODE = frozenset({NodeState.FINISHED, NodeState.FAILED, NodeState.SKIPPED, NodeState.CANCELLED})
ENDED_TASK = frozenset({TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class Lease:
    """A worker's right to one attempt. `started` once the worker said that it runs; `cancelling` once told to stop."""

    __slots__ = ("accept_by", "cancelling", "incarnation", "leased_at", "started", "token", "worker")

    def __init__(self, token: str, worker: str, incarnation: str, accept_by: float, leased_at: float) -> None:
        self.token = token
        self.worker = worker
        self.incarnation = incarnation
        self.accept_by = accept_by
        self.leased_at = leased_at
        self.started = False
        self.cancelling = False


class NodeRun:
    """One node's part of the task's state.

    `undecided`, `taken`, `broken` count its incoming edges and `unread` the sources that it reads without an edge: they
    count down or up once per source's end, so readiness never looks at the graph again. `attempt` is the
    last one's number and never repeats, over generations too; the budgets (`failures`, `budgets`, `losses`,
    `declines`) begin anew with each generation. `born` is the generation in which it runs; `streaming`: the first of
    its batches is in the store. `ready_at` is since when the next attempt waits to begin; `loser`: a join went on
    without it. Times are epoch seconds.
    """

    __slots__ = (
        "attempt",
        "born",
        "broken",
        "budgets",
        "by_failure",
        "declines",
        "ended_at",
        "error",
        "failures",
        "lease",
        "loser",
        "losses",
        "next",
        "output",
        "ready_at",
        "reason",
        "run_sec",
        "started_at",
        "state",
        "streaming",
        "taken",
        "undecided",
        "unread",
        "wake",
    )

    def __init__(self, undecided: int, unread: int) -> None:
        self.attempt = 0
        self.born = 0
        self.reset(undecided, unread)

    def reset(self, undecided: int, unread: int) -> None:
        self.state = NodeState.PENDING
        self.undecided = undecided
        self.unread = unread
        self.taken = 0
        self.broken = 0
        self.failures = 0
        self.losses = 0
        self.declines = 0
        self.budgets: dict[str, int] | None = None
        self.lease: Lease | None = None
        self.output: Payload | None = None
        self.next: tuple[str, ...] | None = None
        self.error: ErrorInfo | None = None
        self.reason = ""
        self.by_failure = False
        self.loser = False
        self.streaming = False
        self.wake: float | None = None
        self.ready_at: float | None = None
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.run_sec = 0.0


class Runs(dict[str, NodeRun]):
    """Every node's run by id. Each is made when it is first asked for, so that taking up a large task costs nothing
    but what is looked at."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __missing__(self, name: str) -> NodeRun:
        run = self[name] = NodeRun(len(self._graph.incoming[name]), len(self._graph.reads[name]))
        return run

    def __contains__(self, name: object) -> bool:
        return name in self._graph.nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.nodes)

    def __len__(self) -> int:
        return len(self._graph.nodes)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._graph.nodes else default

    def keys(self) -> Any:
        return self._graph.nodes.keys()

    def values(self) -> Any:
        return [self[name] for name in self._graph.nodes]

    def items(self) -> Any:
        return [(name, self[name]) for name in self._graph.nodes]


class Timer:
    """The kinds of durable timers; each is checked against the state when it fires, so a stale one does nothing."""

    RETRY = "retry"
    QUEUED = "queued"
    TOTAL = "total"
    GRACE = "grace"
    TASK = "task"


class Task:
    """A task's whole state, owned and changed in place by one coordinator.

    `ready` are the nodes that wait for a worker, by role, oldest first; `leased` those that have one; `agenda` the
    nodes about which `settle` has something to decide; `joined` the quorums that started while some of their parents
    had not ended, each with what is to be cancelled; `open` how many nodes have not ended; `failed` the failed nodes
    in order; `applied` the number of the last request answered. `timers` is a heap of (at, generation, kind, node).
    """

    __slots__ = (
        "agenda",
        "applied",
        "cancel_error",
        "cancel_outcome",
        "created_at",
        "ended_at",
        "error",
        "failed",
        "generation",
        "graph",
        "joined",
        "leased",
        "open",
        "params",
        "paused",
        "ready",
        "reason",
        "refusals",
        "runs",
        "status",
        "task_id",
        "tenant",
        "timeout_sec",
        "timers",
    )

    def __init__(self, *, task_id: str, graph: Graph, params: Mapping[str, Any], tenant: str = "default",
                 timeout_sec: float | None = None) -> None:  # fmt: skip
        self.task_id = task_id
        self.tenant = tenant
        self.graph = graph
        self.params = params
        self.timeout_sec = timeout_sec if timeout_sec is not None else graph.timeout_sec
        self.status = TaskStatus.QUEUED
        self.paused = False
        self.generation = 0
        self.applied = 0
        self.refusals: dict[int, str] = {}
        self.created_at = 0.0
        self.ended_at: float | None = None
        self.error: ErrorInfo | None = None
        self.reason = ""
        self.cancel_outcome = ""
        self.cancel_error: ErrorInfo | None = None
        self.runs = Runs(graph)
        self.open = len(self.runs)
        self.ready: dict[str, OrderedDict[str, None]] = {}
        self.leased: dict[str, None] = {}
        self.agenda: deque[str] = deque()
        self.joined: list[tuple[str, list[str]]] = []
        self.failed: dict[str, None] = {}
        self.timers: list[tuple[float, int, str, str]] = []

    @property
    def ended(self) -> bool:
        return self.status in ENDED_TASK

    @property
    def created(self) -> bool:
        return self.status is not TaskStatus.QUEUED

    def set_ready(self, name: str) -> None:
        self.ready.setdefault(self.graph.nodes[name].type, OrderedDict())[name] = None

    def unset_ready(self, name: str) -> None:
        role = self.graph.nodes[name].type
        waiting = self.ready.get(role)
        if waiting is not None:
            waiting.pop(name, None)
            if not waiting:
                del self.ready[role]

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
        if kind == Timer.TASK:
            return self.status is not TaskStatus.CANCELLING
        run = self.runs[node]
        if kind == Timer.RETRY:
            return run.state is NodeState.WAITING and run.wake == at
        if kind == Timer.GRACE:
            return run.lease is not None and run.lease.cancelling
        if kind == Timer.QUEUED:
            queued = self.graph.nodes[node].timeouts.queued_sec
            return run.state is NodeState.READY and queued is not None and (run.ready_at or 0.0) + queued == at
        return run.state not in ENDED_NODE and not (run.lease is not None and run.lease.cancelling)
