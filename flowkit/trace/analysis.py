"""What a task's trace says: where its time went. Pure functions over `TaskTrace`s. Seconds throughout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.derived import group_of, number_of, repetition_of
from flowkit.monitor_ports import RUN, AttemptRecord, measure_of
from flowkit.trace.resources import Resources, resources_of
from flowkit.trace.task_trace import AttemptTrace, NodeTrace, TaskTrace

RUNNING: Final = "running"


@dataclass(frozen=True, slots=True)
class Span:
    """A bar of the waterfall. `what` is `waiting` (nothing is missing, and no worker has it), `queued` (a worker has it
    and does not run it), `running`, `backoff` (before it is tried again), or `open` (a node that no worker runs: a
    sleep, a signal, a group). `start` and `end` count from when the task was accepted."""

    what: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt in the waterfall, or a node that no worker runs (then `attempt` is 0). `usage` as in
    `AttemptRecord`."""

    node: str
    attempt: int
    state: str
    worker: str
    spans: tuple[Span, ...]
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the critical path. `start` is when it could begin, from when the task was accepted; of the seconds
    until its end, it waited for a worker or a limit, was queued by the worker, ran, was held back before another try,
    and did what no worker does (`other`: sleeping, waiting for a signal, deciding)."""

    node: str
    start: float
    end: float
    waiting: float
    queued: float
    running: float
    backoff: float
    other: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The chain of nodes that decided how long the task took: no other node would have made it shorter. `before` is the
    time until its first node could begin, `after` that behind the end of its last."""

    seconds: float
    before: float
    steps: tuple[Step, ...]
    after: float


@dataclass(frozen=True, slots=True)
class Slow:
    """A node of the graph, all of its items, runs and attempts together. `resources` are what its programs used: CPU
    seconds and bytes in all, memory at most; None where no program ran."""

    node: str
    role: str
    attempts: int
    failed: int
    running: float
    longest: float
    waiting: float
    queued: float
    resources: Resources | None = None


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """Time that was lost, most first. `what`: `no_worker` (nothing was missing but a free worker of the role), `limit`
    (nothing but a worker and the limit's permits), `queue` (on the way to the worker, in its queue, and back),
    `backoff`, `again` (running attempts that did not succeed), or `running`. `critical` are the seconds of it on the
    critical path: what removing it would gain at most. `resources` are those of the attempts that it is about, for
    `running` and `again` where programs ran."""

    what: str
    node: str
    role: str
    seconds: float
    critical: float
    hint: str
    resources: Resources | None = None


def waterfall(trace: TaskTrace) -> list[Row]:
    """A row for each attempt and for each node that no worker ran, in the order of their beginnings."""
    zero, now = trace.accepted_at, trace.last_at
    rows = [_attempt_row(attempt, zero, now) for attempt in trace.attempts]
    for node in trace.nodes.values():
        if node.started_at is not None and not node.attempts:
            end = node.ended_at if node.ended_at is not None else now
            rows.append(Row(node.node, 0, node.state, "", (Span("open", node.started_at - zero, end - zero),)))
    return sorted(rows, key=lambda row: (row.spans[0].start, row.node, row.attempt))


def critical_path(trace: TaskTrace) -> CriticalPath:
    """From the node that ended last, back to the one whose end let each begin."""
    ended = [node for node in trace.nodes.values() if node.ended_at is not None and node.started_at is not None]
    total = (trace.ended_at if trace.ended_at is not None else trace.last_at) - trace.accepted_at
    if not ended:
        return CriticalPath(total, total, (), 0.0)
    items = _items_of(ended)
    node: NodeTrace | None = max(ended, key=_end)
    last = limit = _end(node)[0] if node is not None else 0.0
    steps: list[Step] = []
    seen: set[str] = set()
    while node is not None and node.node not in seen:
        node = _deepest(node, items, limit)
        seen.add(node.node)
        since, before = _let_begin(trace, node)
        since = min(since, limit)
        steps.append(_step(node, since, limit, trace.accepted_at))
        node, limit = before, since
    steps.reverse()
    return CriticalPath(total, steps[0].start, tuple(steps), max(0.0, trace.accepted_at + total - last))


def slowest(trace: TaskTrace, limit: int = 10, by: str = "run") -> list[Slow]:
    """The nodes of the graph whose attempts ran longest in all; or, for `by` of `cpu` or `memory`, whose programs used
    most of it. Raises `ValueError`."""
    by_node: dict[str, list[AttemptTrace]] = defaultdict(list)
    for attempt in trace.attempts:
        by_node[attempt.record.base].append(attempt)
    found = [_slow(node, attempts) for node, attempts in by_node.items()]
    if measure_of(by) is not RUN:
        found = [slow for slow in found if slow.resources is not None]
    return sorted(found, key=lambda slow: (-_measured(slow, by), slow.node))[:limit]


def bottlenecks(trace: TaskTrace, limit: int = 10) -> list[Bottleneck]:
    """Where the time went, by kind and node of the graph: first what the critical path lost, then the rest."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    critical: dict[tuple[str, str], float] = defaultdict(float)
    limited = {node.base: node.limits for node in trace.nodes.values() if node.limits}
    roles: dict[str, str] = {}
    for attempt in trace.attempts:
        record = attempt.record
        roles[record.base] = record.role
        for what, seconds in _shares(attempt, limited):
            spent[what, record.base] += seconds
    for step in critical_path(trace).steps:
        base = trace.nodes[step.node].base
        roles.setdefault(base, trace.nodes[step.node].type)
        waits = "limit" if base in limited else "no_worker"
        for what, seconds in ((waits, step.waiting), ("queue", step.queued), ("backoff", step.backoff),
                              ("running", step.running)):  # fmt: skip
            critical[what, base] += seconds
    used = _used_by(trace)
    found = []
    for what, node in sorted(spent.keys() | critical.keys()):
        key, resources = (what, node), used.get((what, node))
        if spent.get(key, 0.0) > 0 or critical.get(key, 0.0) > 0:
            hint = _hint(what, node, roles[node], limited.get(node, ())) if resources is None else resources.hint(what)
            found.append(
                Bottleneck(what, node, roles[node], spent.get(key, 0.0), critical.get(key, 0.0), hint, resources)
            )
    return sorted(found, key=lambda one: (-one.critical, -one.seconds, one.what, one.node))[:limit]


# ---------------------------------------------------------------------------------------------- how


def _attempt_row(attempt: AttemptTrace, zero: float, now: float) -> Row:
    record = attempt.record
    end = record.ended_at if attempt.ended else max(now, record.leased_at)
    runs_at = _runs_at(attempt, end)
    spans = [
        Span("waiting", record.ready_at - zero, record.leased_at - zero),
        Span("queued", record.leased_at - zero, runs_at - zero),
        Span(RUNNING, runs_at - zero, end - zero),
    ]
    if attempt.retry_at is not None and attempt.retry_at > end:
        spans.append(Span("backoff", end - zero, attempt.retry_at - zero))
    kept = [span for span in spans if span.seconds > 0] or [spans[-1]]
    return Row(record.node, record.attempt, record.outcome, record.worker, tuple(kept), record.usage)


def _runs_at(attempt: AttemptTrace, end: float) -> float:
    """When it began to run: as far before its end as the worker says that it ran."""
    record = attempt.record
    if attempt.ended:
        return max(record.leased_at, end - record.run_sec) if record.run_sec else end
    if attempt.child:
        return record.leased_at
    return attempt.started_at if attempt.started_at is not None else end


def _end(node: NodeTrace) -> tuple[float, float]:
    return node.ended_at or 0.0, node.started_at or 0.0


def _items_of(nodes: Iterable[NodeTrace]) -> dict[str, list[NodeTrace]]:
    found: dict[str, list[NodeTrace]] = defaultdict(list)
    for node in nodes:
        if owner := group_of(node.node):
            found[owner].append(node)
    return found


def _deepest(node: NodeTrace, items: dict[str, list[NodeTrace]], limit: float) -> NodeTrace:
    """A group is its items: of those that had ended by then the last counts."""
    while begun := [one for one in items.get(node.node, ()) if _end(one)[0] <= limit]:
        node = max(begun, key=_end)
    return node


def _let_begin(trace: TaskTrace, node: NodeTrace) -> tuple[float, NodeTrace | None]:
    """Since when it could begin, and whose end let it. An item waits for its turn since its group could begin; a
    repetition begins behind the one before it."""
    owner = group_of(node.node)
    if owner:
        before = None if node.node.endswith("]") else trace.nodes.get(repetition_of(owner, number_of(node.node) - 1))
        if before is None and owner in trace.nodes:
            return _let_begin(trace, trace.nodes[owner])
    else:
        before = trace.nodes.get(node.because)
    if before is not None and before.ended_at is not None:
        return before.ended_at, before
    return _since(node), None


def _since(node: NodeTrace) -> float:
    times = [time for time in (node.ready_at, node.started_at) if time is not None]
    return min(times)


def _step(node: NodeTrace, since: float, until: float, zero: float) -> Step:
    waiting = queued = running = backoff = 0.0
    for attempt in node.attempts:
        for span in _attempt_row(attempt, 0.0, until).spans:
            seconds = max(0.0, min(span.end, until) - max(span.start, since))
            waiting += seconds * (span.what == "waiting")
            queued += seconds * (span.what == "queued")
            running += seconds * (span.what == RUNNING)
            backoff += seconds * (span.what == "backoff")
    other = max(0.0, until - since - waiting - queued - running - backoff)
    return Step(node.node, since - zero, until - zero, waiting, queued, running, backoff, other)


def _slow(node: str, attempts: list[AttemptTrace]) -> Slow:
    records = [attempt.record for attempt in attempts]
    return Slow(
        node, records[0].role, len(records), sum(record.outcome in ("failed", "lost") for record in records),
        sum(record.run_sec for record in records), max(record.run_sec for record in records),
        sum(record.waited_sec for record in records),
        sum(attempt.record.queued_sec for attempt in attempts if attempt.ended), resources_of(records),
    )  # fmt: skip


def _measured(slow: Slow, by: str) -> float:
    if slow.resources is None or by == "run":
        return slow.running
    return slow.resources.cpu_sec if by == "cpu" else slow.resources.peak_memory_bytes


def _used_by(trace: TaskTrace) -> dict[tuple[str, str], Resources]:
    """What programs used, by what their running counts as and by node of the graph."""
    records: dict[tuple[str, str], list[AttemptRecord]] = defaultdict(list)
    for attempt in trace.attempts:
        if attempt.ended and attempt.record.usage is not None:
            what = "running" if attempt.record.outcome == "succeeded" else "again"
            records[what, attempt.record.base].append(attempt.record)
    found = {key: resources_of(of_key) for key, of_key in records.items()}
    return {key: resources for key, resources in found.items() if resources is not None}


def _shares(attempt: AttemptTrace, limited: dict[str, Any]) -> Iterable[tuple[str, float]]:
    record = attempt.record
    yield ("limit" if record.base in limited else "no_worker"), record.waited_sec
    if attempt.ended:
        yield "queue", record.queued_sec
        yield ("running" if record.outcome == "succeeded" else "again"), record.run_sec
        if attempt.retry_at is not None:
            yield "backoff", max(0.0, attempt.retry_at - record.ended_at)


def _hint(what: str, node: str, role: str, limits: tuple[str, ...]) -> str:
    match what:
        case "no_worker":
            return (
                f"nothing was missing but a free worker of role {role!r}: more slots or workers, or a higher priority"
            )
        case "limit":
            keys = ", ".join(map(repr, limits))
            return f"it waited for a worker or for limit {keys}: `flowkit tasks explain` says which while it waits"
        case "queue":
            return "between lease and run: attempts too short for the way to a worker, or a worker that is overloaded"
        case "backoff":
            return f"waits before another try: see the errors of node {node!r}, and its retry_policy"
        case "again":
            return f"attempts of node {node!r} that ran and did not succeed"
        case _:
            return f"node {node!r} itself runs so long"
