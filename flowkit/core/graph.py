"""What a user's graph means once it has been read: nodes, edges, policies. Immutable, shared by all its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.core.code import Code
from flowkit.core.expr import Expression
from flowkit.core.lane import Lane
from flowkit.core.stream import Streaming

SUCCESS: Final = "success"
FAILURE: Final = "failure"
END: Final = "end"

BUILT_INS: Final = frozenset({"coordinator_fn", "code", "sleep", "signal", "task", "end"})


@dataclass(frozen=True, slots=True)
class Edge:
    """Says that `target` waits for `source`; `on` tells which of the source's ends the edge is taken on.

    `implied` marks an edge that stands only because the target reads the source (`$from`) and declares no
    edges of its own; `lenient` an implied edge whose every reference has a default: it is taken
    however the source ended, and handles no failure. An edge with a `when` is taken only if that holds;
    one with `otherwise` only if no `when` edge of its source was.
    """

    source: str
    target: str
    on: str = SUCCESS
    implied: bool = False
    lenient: bool = False
    when: Expression | None = None
    otherwise: bool = False

    @property
    def conditional(self) -> bool:
        return self.when is not None or self.otherwise


@dataclass(frozen=True, slots=True)
class FanIn:
    """How many taken edges start a node: `need` None means all (and none broken), else that many."""

    need: int | None = None
    cancel_losers: bool = False


@dataclass(frozen=True, slots=True)
class RetryRule:
    """A budget of its own for each of some error codes: `max_attempts` failures with one of `codes`, counted for every
    code by itself."""

    codes: tuple[str, ...]
    max_attempts: int
    backoff_sec: float
    factor: float
    cap_sec: float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` counts attempts, the first included; waits are seconds; `lost_max` is the budget for lost
    workers."""

    max_attempts: int = 3
    backoff_sec: float = 1.0
    factor: float = 2.0
    cap_sec: float = 60.0
    jitter: bool = True
    permanent_on: tuple[str, ...] = ()
    rules: tuple[RetryRule, ...] = ()
    lost_max: int = 5


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, None = unlimited. `queued`: ready but not leased; `run`: one attempt's run; `heartbeat`: between
    two calls of `ctx.progress`; `total`: from first ready to the node's end, all attempts together."""

    queued_sec: float | None = None
    run_sec: float | None = None
    heartbeat_sec: float | None = None
    total_sec: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """One `$from`: the node it reads, the path into that node's output, and the default if it has one."""

    source: str
    path: tuple[str | int, ...]
    has_default: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Foreach:
    """A node runs once for each item of a list. `items` is the template that gives the list; at most `most` items are
    begun and not ended at a time (None: any number); `need` of them finish the node (None: all), and then
    `cancel_losers` cancels the others; `collect`: an item that failed is an element of the output like any other."""

    items: Any
    most: int | None = None
    need: int | None = None
    cancel_losers: bool = False
    collect: bool = False


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node runs again, `every_sec` after each end, until `until` holds; at most `most` times."""

    until: Expression
    every_sec: float = 0.0
    most: int = 100


@dataclass(frozen=True, slots=True)
class Cache:
    """Outputs are kept under `key` for `ttl_sec` seconds; whoever comes with the same key meanwhile does not run."""

    key: Expression
    ttl_sec: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What a task may use up in a generation: attempts, and seconds of their run time. None: any amount."""

    attempts: int | None = None
    run_sec: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One entry of a node's `limits`, as written: either at most `most` permits are held at a time, of which the node
    takes `weight`; or `rate` of them are given out per `per_sec` seconds, up to `burst` at once."""

    key: str
    most: int | None = None
    weight: int = 1
    rate: float = 0.0
    per_sec: float = 1.0
    burst: int = 1


class Missing:
    """The type of `MISSING`, which stands where None is a value of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()


@dataclass(frozen=True, slots=True)
class Node:
    """One step. `inputs` is the template as the user wrote it, or MISSING; `references` are the `$from`s of all its
    templates and the nodes that its expressions name, one per distinct (source, path) in order of appearance;
    `constant` says that `inputs` holds nothing to replace.

    `when` skips it unless it holds. A node with `foreach` or `repeat` is a group: its `body` is what runs, under names
    that are derived from its own (`load[17]`, `poll#3`); a body may be a group again. `child` is the sub-graph of a
    `task` node as normalised JSON, `flow` the name of one; `fn` a coordinator function; `schema` what a signal's
    payload must fit; `compensate` undoes what the node did; `code` is what one of type `code` runs;
    `secrets` are those of a handler's inputs, and `on_leak` what an output with one in it comes to. `plain`: it starts
    by waiting for a worker. `lane` is None where nothing is said about who may run it beside its role. `deadline` is
    the template of the moment by which it must have ended, None without one.
    """

    node_id: str
    type: str
    inputs: Any = MISSING
    constant: bool = True
    references: tuple[Reference, ...] = ()
    fan_in: FanIn = FanIn()
    retry: RetryPolicy = RetryPolicy()
    retry_given: bool = False
    timeouts: Timeouts = Timeouts()
    continue_on_failure: bool = False
    io: Mapping[str, Any] | None = None
    stream: Streaming | None = None
    when: Expression | None = None
    foreach: Foreach | None = None
    repeat: Repeat | None = None
    cache: Cache | None = None
    child: Mapping[str, Any] | None = None
    flow: str = ""
    fn: str = ""
    fn_args: Any = None
    compensate: Node | None = None
    body: Node | None = None
    plain: bool = True
    limits: tuple[Limit, ...] = ()
    lane: Lane | None = None
    deadline: Any = None
    code: Code | None = None
    secrets: tuple[str, ...] = ()
    on_leak: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A readable graph.

    `incoming`/`outgoing` hold every node's edges (implied ones included) in the order written; `readers[s]` are the
    nodes that read `s` by `$from` without an edge from it; `reads[n]` the sources that `n` reads so. `output` is the
    output mapping or MISSING; `output_references` its `$from`s. `leaves` are the nodes without an outgoing
    edge or reader. `roots` are the nodes that wait for nothing, `root_lanes` their lanes; `hurried`: some node has a
    timeout that runs while it waits for a worker, or one of the first needs none. `choices` are the nodes with
    conditional edges; `signals` says which nodes wait for a signal of which name (empty: a name that is known only when
    they start); `compensates`: some node says how to undo it; `limited`: some node has limits; `anchors`: whose workers
    are remembered because others follow them: nodes, and by the empty name the task itself. Where there are streams,
    `stream_readers[p]` are the nodes that read the batches of `p`, and `starters[p]` those that its first batch may
    start. `deadline` (epoch seconds) is the task's, and `deadlines` are the nodes that have one. `policy` is what it
    says of its own code, as written.
    """

    nodes: Mapping[str, Node]
    incoming: Mapping[str, tuple[Edge, ...]]
    outgoing: Mapping[str, tuple[Edge, ...]]
    reads: Mapping[str, tuple[str, ...]]
    readers: Mapping[str, tuple[str, ...]]
    leaves: tuple[str, ...]
    name: str = ""
    fail_fast: bool = False
    timeout_sec: float | None = None
    output: Any = MISSING
    output_references: tuple[Reference, ...] = ()
    roots: tuple[str, ...] = ()
    root_lanes: tuple[Lane, ...] = ()
    hurried: bool = False
    choices: frozenset[str] = frozenset()
    signals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    compensates: bool = False
    budget: Budget | None = None
    limited: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    anchors: frozenset[str] = frozenset()
    stream_readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    starters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deadline: float | None = None
    deadlines: tuple[str, ...] = ()
    policy: Any = None
