"""May a node start? Answered from counters alone; nothing here looks at the rest of the graph."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from flowkit.core.graph import END, FAILURE, SUCCESS, Edge, Node
from flowkit.core.model import Task
from flowkit.core.node_run import ENDED_NODE, NodeRun, NodeState


class EdgeState(enum.Enum):
    UNDECIDED = "undecided"
    TAKEN = "taken"
    NOT_TAKEN = "not taken"
    BROKEN = "broken"


class Start(enum.Enum):
    WAIT = "wait"
    START = "start"
    SKIP = "skip"


def edge_state(task: Task, edge: Edge) -> EdgeState:
    """What the end of its source made of an edge."""
    run = task.runs[edge.source]
    state = _state_without_condition(task, edge, run)
    if state is not EdgeState.TAKEN or not edge.conditional:
        return state
    routes = run.routes
    if routes is None:
        return EdgeState.UNDECIDED
    return EdgeState.TAKEN if edge.target in routes else EdgeState.NOT_TAKEN


def deferred(task: Task, edge: Edge) -> bool:
    """Whether an edge whose source has ended still waits for its condition to be decided."""
    return edge.conditional and edge_state(task, edge) is EdgeState.UNDECIDED


def _state_without_condition(task: Task, edge: Edge, run: NodeRun) -> EdgeState:
    if run.state not in ENDED_NODE:
        return EdgeState.UNDECIDED
    if edge.lenient:
        return EdgeState.TAKEN

    match run.state:
        case NodeState.FINISHED:
            chosen = run.next is None or edge.target in run.next
            return EdgeState.TAKEN if chosen and edge.on in (SUCCESS, END) else EdgeState.NOT_TAKEN
        case NodeState.FAILED:
            carried_on = edge.on == SUCCESS and task.graph.nodes[edge.source].continue_on_failure
            return EdgeState.TAKEN if carried_on or edge.on in (FAILURE, END) else EdgeState.BROKEN
        case NodeState.SKIPPED if not run.by_failure:
            return EdgeState.NOT_TAKEN
        case _:
            return EdgeState.BROKEN


def counts_for_quorum(task: Task, edge: Edge) -> bool:
    """A taken edge counts, unless it stands for a failure that was only carried on from."""
    run = task.runs[edge.source]
    return not (run.state is NodeState.FAILED and edge.on == SUCCESS and not edge.lenient)


def count(task: Task, edge: Edge, run: NodeRun) -> None:
    """Count an incoming edge of `run` whose source has ended."""
    run.undecided -= 1
    match edge_state(task, edge):
        case EdgeState.TAKEN:
            run.taken += task.graph.nodes[edge.target].fan_in.need is None or counts_for_quorum(task, edge)
        case EdgeState.BROKEN:
            run.broken += 1


def verdict(task: Task, node: Node, run: NodeRun) -> Start:
    """Whether a pending node waits, starts, or can no longer run."""
    need = node.fan_in.need
    early = 0 if node.stream is None else begun_sources(task, node, run)

    if need is None:
        if run.broken:
            return Start.SKIP
        if run.undecided > early or run.unread:
            return Start.WAIT  # for what it reads too: whether a failure is behind a skip must not hang on the order
        if not (run.taken or early) and task.graph.incoming[node.node_id]:
            return Start.SKIP
    elif run.taken + early < need:
        return Start.WAIT if run.undecided else Start.SKIP

    if run.unread:
        return Start.WAIT
    return Start.SKIP if node.references and missing_source(task, node) is not None else Start.START


def begun_sources(task: Task, node: Node, run: NodeRun) -> int:
    """How many undecided edges of a node that starts with a first batch need not be waited for: once one of its streams
    has begun, all of them where it needs all its edges, else those that have begun. None of a source whose output it
    reads, too: that comes with its end."""
    stream = node.stream
    if stream is None or not (stream.first_batch and run.undecided):
        return 0
    read = {reference.source for reference in node.references}
    undecided = [
        task.runs[edge.source]
        for edge in task.graph.incoming[node.node_id]
        if edge.on != FAILURE
        and edge.source in stream.sources
        and edge.source not in read
        and task.runs[edge.source].state not in ENDED_NODE
    ]
    if node.fan_in.need is not None:
        return sum(source.streaming for source in undecided)
    return len(undecided) if any(task.runs[source].streaming for source in stream.sources) else 0


def missing_source(task: Task, node: Node) -> str | None:
    """The first source that the node must read and that has no output."""
    return next(_missing_sources(task, node), None)


def skip_reason(task: Task, node: Node, run: NodeRun) -> tuple[str, bool, str]:
    """Why a node that can no longer run is skipped: the reason, whether a failure is behind it, and the node behind
    it. A failure is behind it if it is behind any edge or reference that the node lacked."""
    need = node.fan_in.need
    edges = task.graph.incoming[node.node_id]
    missing = list(_missing_sources(task, node))
    failed = next((source for source in missing if _by_failure(task, source)), None)

    if need is None and run.broken:
        return "upstream_failed", True, next(e.source for e in edges if edge_state(task, e) is EdgeState.BROKEN)
    if need is not None and run.taken < need:
        cause = next((edge.source for edge in edges if _lacked_by_failure(task, edge)), failed)
        return "quorum", cause is not None, cause or ""
    if edges and not run.taken:
        return "not_taken", failed is not None, failed or edges[0].source
    return "no_output", failed is not None, failed or next(iter(missing), "")


def _missing_sources(task: Task, node: Node) -> Iterator[str]:
    for reference in node.references:
        if not reference.has_default and task.runs[reference.source].state is not NodeState.FINISHED:
            yield reference.source


def _lacked_by_failure(task: Task, edge: Edge) -> bool:
    state = edge_state(task, edge)
    return state is EdgeState.BROKEN or (state is EdgeState.TAKEN and not counts_for_quorum(task, edge))


def _by_failure(task: Task, source: str) -> bool:
    run = task.runs[source]
    return run.state in (NodeState.FAILED, NodeState.CANCELLED) or run.by_failure
