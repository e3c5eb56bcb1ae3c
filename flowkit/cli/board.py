"""What is known of a task's nodes while it runs: a table that events and views keep up to date. Prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowkit.cli.console import one_line
from flowkit.coordinator.views import NodeView, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.graph import Graph
from flowkit.core.model import ENDED_NODE, NodeState

DEEPEST = 12
# Facts about the task as a whole that change the states of many nodes.
OF_MANY = frozenset({"created", "cancelling", "restarted"})
# States that nodes come to by such a fact.
SILENT = frozenset({NodeState.PENDING, NodeState.READY, NodeState.CANCELLED})
NOT_NEEDED = (NodeState.SKIPPED, "not_needed")
ORDER = ("failed", "running", "waiting", "ready", "cancelled", "finished", "pending", "skipped")


@dataclass(slots=True)
class Row:
    """One node as it is shown. `depth` is its place in the tree, times are epoch seconds."""

    node_id: str
    type: str
    depth: int = 0
    state: str = NodeState.PENDING
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED_NODE

    def seconds(self, now: float) -> float | None:
        """How long it ran, or has been running until `now`."""
        if self.started_at is None or self.state in (NodeState.PENDING, NodeState.READY, NodeState.SKIPPED):
            return None
        return (self.ended_at if self.ended_at is not None else now) - self.started_at


class Board:
    """The rows of a task in the order of its tree."""

    def __init__(self, graph: Graph) -> None:
        self.rows = {name: Row(name, graph.nodes[name].type, depth) for name, depth in lineage(graph)}
        self.status = "queued"

    def apply(self, event: TaskEvent) -> Row | None:
        """Note an event; the row if that changed its state, None if not, or if it is about the task."""
        row = self.rows.get(event.node_id)
        if row is None:
            self.status = event.to_state if not event.node_id else self.status
            return None
        known = row.ended and row.state == event.to_state
        row.state = event.to_state
        row.attempts = max(row.attempts, event.attempt)
        row.ended_at = event.at if row.ended else None
        if event.type == "leased":
            row.started_at = event.at
        elif event.type == "succeeded":
            row.started_at = event.at - float(event.data.get("run_sec", 0.0))
        row.reason = _reason(event)
        return None if known else row

    def sync(self, view: TaskView) -> None:
        """Take over what the task's own state says."""
        self.status = view.status
        for name, node in view.nodes.items():
            self._take(self.rows[name], node)

    def catch_up(self, view: TaskView) -> list[Row]:
        """After an event about the task: take over what no event of a node's own will tell. The rows that changed."""
        changed = []
        for name, node in view.nodes.items():
            row = self.rows[name]
            if row.state != node.state and (node.state in SILENT or (node.state, node.reason) == NOT_NEEDED):
                self._take(row, node)
                changed.append(row)
        return changed

    def _take(self, row: Row, node: NodeView) -> None:
        reason = skip_text(node.reason, "") if node.state == NodeState.SKIPPED else node.reason
        row.state, row.attempts = node.state, node.attempts
        row.reason = error_text(node.error) or one_line(reason)
        row.started_at, row.ended_at = node.started_at, node.finished_at

    def counts(self) -> str:
        """`3 finished, 1 running`, the most urgent first."""
        found = Counter(row.state for row in self.rows.values())
        return ", ".join(f"{found[state]} {state}" for state in ORDER if found[state])

    def most_urgent(self, limit: int) -> list[Row]:
        """Rows for a window too small for all: what failed and runs, then what ended last."""
        rank = {state: place for place, state in enumerate(ORDER)}
        return sorted(self.rows.values(), key=lambda row: (rank[row.state], -(row.ended_at or 0.0)))[:limit]


def lineage(graph: Graph) -> Iterator[tuple[str, int]]:
    """Every node once, with its depth in a tree: a node hangs under the last of its deepest sources."""
    level: dict[str, int] = {}
    children: dict[str, list[str]] = {name: [] for name in graph.nodes}
    roots = []
    for name in in_order(graph):
        above = [edge.source for edge in graph.incoming[name]] + list(graph.reads[name])
        if not above:
            level[name] = 0
            roots.append(name)
            continue
        level[name] = 1 + max(level[source] for source in above)
        parent = next(source for source in reversed(above) if level[source] == level[name] - 1)
        children[parent].append(name)
    stack = [(name, 0) for name in reversed(roots)]
    while stack:
        name, depth = stack.pop()
        yield name, min(depth, DEEPEST)
        stack += [(child, depth + 1) for child in reversed(children[name])]


def in_order(graph: Graph) -> Iterable[str]:
    """The nodes with every source before what it leads to, else in the order written."""
    missing = {name: len(graph.incoming[name]) + len(graph.reads[name]) for name in graph.nodes}
    ready = [name for name in graph.nodes if not missing[name]]
    for name in ready:
        for target in (*(edge.target for edge in graph.outgoing[name]), *graph.readers[name]):
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    return ready


def _reason(event: TaskEvent) -> str:
    data = event.data
    match event.type:
        case "skipped":
            return skip_text(data.get("reason", ""), data.get("cause", ""))
        case "node_cancelled" | "node_cancelling":
            return one_line(data.get("reason", ""))
        case "lost" | "failed" | "node_failed":
            said = error_text(data.get("error")) or one_line(data.get("why", ""))
            again = data.get("retry_at")
            return f"{said}; again in {again - event.at:.1f} s" if again is not None and again > event.at else said
    return ""


def error_text(error: object) -> str:
    """`ValueError: no such column`, from what a node's error says."""
    if not isinstance(error, dict):
        return ""
    code, message = str(error.get("code", "")), one_line(error.get("message", ""))
    return f"{code}: {message}" if code and message else code or message


SKIPPED = {
    "upstream_failed": "{cause} before it failed",
    "not_taken": "no edge to it was taken",
    "no_output": "{cause} has no output for it",
    "quorum": "too few of its sources can still finish",
    "not_needed": "no target needs it",
}


def skip_text(reason: object, cause: object) -> str:
    pattern = SKIPPED.get(str(reason), str(reason))
    return pattern.format(cause=f"node {str(cause)!r}" if cause else "a node")
