"""What a history is judged by: the ledger of handlers' starts, and what else is known about the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.core.graph import Graph
from flowkit.errors import FlowKitError
from flowkit.ports import Commit, Head, HeadFilter, Request, Store
from flowkit.wire.codec import loads

UNKNOWN: Final = object()
"""Stands for inputs and outputs that the ledger did not write down."""


@dataclass(slots=True)
class Start:
    """One start of a handler, as the handler wrote it down. `ended_at` None: it is not known when it ended.

    `key` is the idempotency key; `token`, `inputs` and `output` are checked where they are known. Times are seconds
    of one clock.
    """

    task_id: str
    node: str
    attempt: int
    key: str
    worker: str
    started_at: float
    ended_at: float | None = None
    token: str = ""
    inputs: Any = UNKNOWN
    output: Any = UNKNOWN


@dataclass(frozen=True, slots=True)
class Frozen:
    """A process stood still from `since` until `until`, without knowing it."""

    process: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the API acknowledged."""

    task_id: str
    id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, for which task, and what shows it."""

    kind: str
    task_id: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.task_id}: {self.detail}"


@dataclass(slots=True)
class Evidence:
    """What is known beside commits and ledger; what is left out is not checked.

    `heads` and `graphs` (by reference) say what the tasks are, `requests` what stands in the store. `accepted`,
    `asked` and `acknowledged` (task, seq, commit id) are promises made; `events` (likewise) is what the world saw.
    `unjust` names the leases (task, node, attempt) that had better not expire, and the violation otherwise. `settled`:
    every accepted task must have ended. `strict`: no attempt that was begun may be lost. `fits` says whether an
    output is right for a node and its inputs, `may_fail` whether a node could fail at all. From `calm_since` on,
    a run may outlast its lease by `stop_sec` at most.
    """

    heads: Mapping[str, Head] = field(default_factory=dict)
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    accepted: Collection[str] = ()
    asked: Sequence[Asked] = ()
    requests: Sequence[Request] = ()
    acknowledged: Collection[tuple[str, int, str]] = ()
    events: Collection[tuple[str, int, str]] | None = None
    frozen: Sequence[Frozen] = ()
    losses: Sequence[float] = ()
    unjust: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    settled: bool = True
    strict: bool = False
    fits: Callable[[str, str, Any, Any], bool] | None = None
    may_fail: Callable[[str, str], bool] | None = None
    calm_since: float | None = None
    stop_sec: float = 15.0
    ttl_sec: float = 10.0
    skew_sec: float = 3.01


async def read_store(store: Store) -> tuple[list[Commit], Evidence]:
    """All that the store of a quiet cluster says. Raises `StoreUnavailable`."""
    from flowkit.core.dialect import parse_graph

    heads: dict[str, Head] = {}
    after: tuple[float, str] | None = None
    while page := await store.list_heads(HeadFilter(), limit=500, after=after):
        heads |= {head.task_id: head for head in page}
        after = (page[-1].created_at, page[-1].task_id)

    commits: list[Commit] = []
    requests: list[Request] = []
    graphs: dict[str, Graph] = {}
    for head in heads.values():
        commits += await store.read_commits([head.task_id])
        requests += await store.read_requests(head.task_id)
        if head.graph_ref not in graphs:
            try:
                graphs[head.graph_ref] = parse_graph(loads(await store.get_blob(head.graph_ref, kind="graph")))
            except (KeyError, FlowKitError):
                continue  # the checker will miss it, and say so
    return commits, Evidence(heads=heads, graphs=graphs, requests=requests)
