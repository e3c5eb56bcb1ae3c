"""What is known of a task's nodes while it runs: a table that events and views keep up to date. Prints nothing.

Items, runs of a repetition and what undoes them are folded into one row each: a map of a thousand items is one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flowkit.cli.console import one_line
from flowkit.coordinator.views import NodeView, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.derived import COMPENSATE, base_of, group_of
from flowkit.core.graph import Graph
from flowkit.core.node_run import ENDED_NODE, NodeState

DEEPEST = 12
ITEM, RUN, UNDO = "item", "run", "undone"
# Facts about the task as a whole that change the states of many nodes.
OF_MANY = frozenset({"created", "cancelling", "restarted"})
# States that nodes come to by such a fact.
SILENT = frozenset({NodeState.PENDING, NodeState.READY, NodeState.CANCELLED})
NOT_NEEDED = (NodeState.SKIPPED, "not_needed")
# Facts by which a node begins, whether a worker runs it or not; a repetition begins by its first run.
BEGINNINGS = frozenset({"leased", "expanded", "child", "waiting"})
ORDER = ("failed", "running", "waiting", "ready", "cancelled", "finished", "pending", "skipped")
SUMMED_UP = ("running", "waiting", "ready", "pending", "failed", "cancelled", "skipped", "finished")


@dataclass(slots=True)
class Row:
    """One node as it is shown. `depth` is its place in the tree, times are epoch seconds. `members` are the states of
    the `noun`s that are folded into it, by id, and `size` is how many there will be, where that is known."""

    node_id: str
    type: str
    depth: int = 0
    state: str = NodeState.PENDING
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    noun: str = ""
    members: dict[str, str] = field(default_factory=dict)
    size: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED_NODE

    def seconds(self, now: float) -> float | None:
        """How long it ran, or has been running until `now`."""
        if self.started_at is None or self.state in (NodeState.PENDING, NodeState.READY, NodeState.SKIPPED):
            return None
        return (self.ended_at if self.ended_at is not None else now) - self.started_at

    def folded(self) -> str:
        """`20 items: 1 failed, 3 finished`, the most urgent first; empty where nothing is folded into it."""
        count = len(self.members) if self.size is None else max(self.size, len(self.members))
        if not (count or self.size == 0) or (self.noun == UNDO and count == 1):
            return ""
        states = in_words(Counter(self.members.values()))
        return f"{count:,} {self.noun}{'s' * (count != 1 and self.noun != UNDO)}" + (f": {states}" if states else "")


class Board:
    """The rows of a task in the order of its tree."""

    def __init__(self, graph: Graph) -> None:
        self.rows = {name: _row(graph, name, depth) for name, depth in lineage(graph)}
        self.status = "queued"

    def apply(self, event: TaskEvent) -> Row | None:
        """Note an event; the row if that changed its state, None if not, or if it is about the task. An item that
        failed is given as a row of its own."""
        row = self.rows.get(event.node_id)
        if row is None and event.node_id:
            return self._fold(event.node_id, event.to_state, event)
        if row is None:
            self.status = event.to_state
            return None
        known = row.ended and row.state == event.to_state
        row.state = event.to_state
        row.attempts = max(row.attempts, event.attempt)
        row.ended_at = event.at if row.ended else None
        if event.type == "expanded":
            row.size = int(event.data.get("count", 0))
        if event.type in BEGINNINGS or (event.type == "repeated" and event.data.get("n") == 1):
            row.started_at = event.at
        elif event.type == "succeeded" and event.data.get("run_sec"):
            row.started_at = event.at - float(event.data.get("run_sec", 0.0))
        row.reason = _reason(event)
        return None if known else row

    def sync(self, view: TaskView) -> None:
        """Take over what the task's own state says."""
        self.status = view.status
        self._fold_all(view)
        for name, node in view.nodes.items():
            if name in self.rows:
                self._take(self.rows[name], node)

    def catch_up(self, view: TaskView) -> list[Row]:
        """After an event about the task: take over what no event of a node's own will tell. The rows that changed."""
        changed = []
        self._fold_all(view)
        for name, node in view.nodes.items():
            row = self.rows.get(name)
            if row is None:
                continue
            if row.state != node.state and (node.state in SILENT or (node.state, node.reason) == NOT_NEEDED):
                self._take(row, node)
                changed.append(row)
        return changed

    def _take(self, row: Row, node: NodeView) -> None:
        reason = skip_text(node.reason, "") if node.state == NodeState.SKIPPED else node.reason
        row.state, row.attempts, row.size = node.state, node.attempts, node.size
        row.reason = error_text(node.error) or one_line(reason) or (f"task {node.child}" if node.child else "")
        row.started_at, row.ended_at = node.started_at, node.finished_at

    def _fold_all(self, view: TaskView) -> None:
        """What is derived from the graph's nodes, as the view has it."""
        for name in [name for name in self.rows if name.endswith(COMPENSATE)]:
            del self.rows[name]
        for row in self.rows.values():
            row.members.clear()
        for name, node in view.nodes.items():
            if name not in self.rows and base_of(name) in self.rows:
                self._fold(name, node.state, None)

    def _fold(self, name: str, state: str, event: TaskEvent | None) -> Row | None:
        """Note the state of an item, a run, or what undoes something, in the row of its node."""
        row = self.rows.get(base_of(name))
        if row is None:
            return None
        if name.endswith(COMPENSATE):
            row = self._undoing(row)
        elif group_of(name) != row.node_id:
            return None  # the run of an item: the item tells how it goes
        known = row.members.get(name)
        row.members[name] = state
        if row.noun == UNDO:
            row.state = summed_up(row.members.values())
            row.ended_at = event.at if event is not None and row.ended else row.ended_at
        if state != NodeState.FAILED or known == state or event is None:
            return None
        return Row(name, row.type, row.depth + 1, state, event.attempt, reason=_reason(event))

    def _undoing(self, row: Row) -> Row:
        """The row of what undoes a node, which comes to stand behind that node's own."""
        name = row.node_id + COMPENSATE
        if name not in self.rows:
            rows = list(self.rows.values())
            rows.insert(rows.index(row) + 1, Row(name, row.type, min(row.depth + 1, DEEPEST), noun=UNDO))
            self.rows = {each.node_id: each for each in rows}
        return self.rows[name]

    def counts(self) -> str:
        """`3 finished, 1 running`, the most urgent first."""
        return in_words(Counter(row.state for row in self.rows.values()))

    def most_urgent(self, limit: int) -> list[Row]:
        """Rows for a window too small for all: what failed and runs, then what ended last."""
        rank = {state: place for place, state in enumerate(ORDER)}
        return sorted(self.rows.values(), key=lambda row: (rank[row.state], -(row.ended_at or 0.0)))[:limit]


def _row(graph: Graph, name: str, depth: int) -> Row:
    node = graph.nodes[name]
    noun = ITEM if node.foreach is not None else RUN if node.repeat is not None else ""
    return Row(name, node.type, depth, noun=noun)


def in_words(found: Counter[str]) -> str:
    return ", ".join(f"{found[state]:,} {state}" for state in ORDER if found[state])


def summed_up(states: Iterable[str]) -> str:
    """The state of several that are shown as one: the most urgent."""
    found = set(states)
    return next(state for state in SUMMED_UP if state in found)


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
    "condition": "its condition is false",
}


def skip_text(reason: object, cause: object) -> str:
    pattern = SKIPPED.get(str(reason), str(reason))
    return pattern.format(cause=f"node {str(cause)!r}" if cause else "a node")
