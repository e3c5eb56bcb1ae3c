"""May a node start? Answered from counters alone; nothing here looks at the rest of the graph."""

from __future__ import annotations

import enum

from flowkit.core.graph import END, FAILURE, SUCCESS, Edge, Node
from flowkit.core.model import ENDED_NODE, NodeRun, NodeState, Task


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


def verdict(task: Task, node: Node, run: NodeRun) -> Start:
    """Whether a pending node waits, starts, or can no longer run."""
    need = node.fan_in.need
    edges = len(task.graph.incoming[node.node_id])

    if need is None:
        if run.broken:
            return Start.SKIP
        if run.undecided:
            return Start.WAIT
        if edges and not run.taken:
            return Start.SKIP
    elif run.taken < need:
        return Start.WAIT if run.undecided else Start.SKIP

    if run.unread:
        return Start.WAIT
    return Start.SKIP if missing_source(task, node) is not None else Start.START


def missing_source(task: Task, node: Node) -> str | None:
    """The first source that the node must read and that has no output."""
    for reference in node.references:
        if not reference.has_default and task.runs[reference.source].state is not NodeState.FINISHED:
            return reference.source
    return None


def skip_reason(task: Task, node: Node, run: NodeRun) -> tuple[str, bool, str]:
    """Why a node that can no longer run is skipped: the reason, whether a failure is behind it, and the node behind
    it."""
    states = [(edge, edge_state(task, edge)) for edge in task.graph.incoming[node.node_id]]
    broken = next((edge.source for edge, state in states if state is EdgeState.BROKEN), None)

    if node.fan_in.need is None and broken is not None:
        return "upstream_failed", True, broken
    if node.fan_in.need is not None and run.taken < node.fan_in.need:
        carried = next((e.source for e, s in states if s is EdgeState.TAKEN and not counts_for_quorum(task, e)), None)
        cause = broken or carried
        return "quorum", cause is not None, cause or ""
    if node.fan_in.need is None and states and not run.taken:
        return "not_taken", False, states[0][0].source

    source = missing_source(task, node)
    if source is None:
        return "not_taken", False, ""
    ended = task.runs[source]
    failed = ended.state in (NodeState.FAILED, NodeState.CANCELLED) or (
        ended.state is NodeState.SKIPPED and ended.by_failure
    )
    return "no_output", failed, source
