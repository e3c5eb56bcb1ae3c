"""What graph.md says about a state, worked out slowly and from scratch: no counters, no memory, no haste.

Written from the document and not from the code; it shares with the code only the graph as read and the states.
"""

from __future__ import annotations

from typing import Any

from flowkit.core.graph import MISSING, Edge
from flowkit.core.model import Task
from flowkit.core.node_run import NodeRun

UNDECIDED, TAKEN, NOT_TAKEN, BROKEN = "undecided", "taken", "not taken", "broken"
WAIT, START, SKIP = "wait", "start", "skip"

ENDED = {"finished", "failed", "skipped", "cancelled"}
BEGUN = {"ready", "running", "waiting", "finished", "failed"}


class Oracle:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.graph = task.graph

    def run(self, name: str) -> NodeRun:
        return self.task.runs[name]

    def state(self, name: str) -> str:
        return str(self.run(name).state)

    # Edges.

    def edge(self, edge: Edge) -> str:
        """Undecided, taken, not taken or broken."""
        source, state = self.run(edge.source), self.state(edge.source)
        if state not in ENDED:
            return UNDECIDED
        if edge.lenient:  # a reference with a default, and nothing else: met however its source ended
            return TAKEN
        if state == "cancelled" or (state == "skipped" and source.by_failure):
            return BROKEN
        if state == "skipped":
            return NOT_TAKEN
        if state == "finished":
            routed = source.next is None or edge.target in source.next
            return TAKEN if routed and edge.on != "failure" else NOT_TAKEN
        if edge.on != "success" or self.graph.nodes[edge.source].continue_on_failure:
            return TAKEN
        return BROKEN

    def is_null(self, edge: Edge) -> bool:
        """Whether the edge is taken only because its source says `continue_on_failure`."""
        return (
            self.edge(edge) == TAKEN
            and edge.on == "success"
            and self.state(edge.source) == "failed"
            and not edge.lenient
        )

    def counters(self, name: str) -> dict[str, int]:
        need = self.graph.nodes[name].fan_in.need
        edges = [(edge, self.edge(edge)) for edge in self.graph.incoming[name]]
        return {
            "undecided": sum(word == UNDECIDED for _, word in edges),
            "taken": sum(word == TAKEN and not (need is not None and self.is_null(edge)) for edge, word in edges),
            "broken": sum(word == BROKEN for _, word in edges),
            "unread": sum(self.state(source) not in ENDED for source in self.graph.reads[name]),
        }

    # Nodes.

    def lacks(self, name: str) -> list[str]:
        """The sources that the node must read and that have no output."""
        references = [ref for ref in self.graph.nodes[name].references if not ref.has_default]
        return [ref.source for ref in references if self.state(ref.source) != "finished"]

    def verdict(self, name: str) -> str:
        """Whether a node, had it not begun, would wait, start or be skipped."""
        need, edges = self.graph.nodes[name].fan_in.need, self.graph.incoming[name]
        words = [self.edge(edge) for edge in edges]
        if need is None:
            if BROKEN in words:
                return SKIP
            if UNDECIDED in words or any(self.state(source) not in ENDED for source in self.graph.reads[name]):
                return WAIT
            if edges and TAKEN not in words:
                return SKIP
        else:
            good = sum(word == TAKEN and not self.is_null(edge) for edge, word in zip(edges, words, strict=True))
            if good < need:
                return WAIT if UNDECIDED in words else SKIP
        if any(self.state(source) not in ENDED for source in self.graph.reads[name]):
            return WAIT
        return SKIP if self.lacks(name) else START

    def skip_is_by_failure(self, name: str) -> bool:
        need, edges = self.graph.nodes[name].fan_in.need, self.graph.incoming[name]
        good = [edge for edge in edges if self.edge(edge) == TAKEN and not (need is not None and self.is_null(edge))]
        enough = len(good) >= need if need is not None else bool(good) or not edges
        lacked = [] if enough and need is not None else [edge for edge in edges if edge not in good]
        if any(self.edge(edge) == BROKEN or self.is_null(edge) for edge in lacked):
            return True
        return any(
            self.state(source) in ("failed", "cancelled") or self.run(source).by_failure for source in self.lacks(name)
        )

    # Failures.

    def handled(self, name: str, joined: set[str] = BEGUN) -> bool:
        """Whether a failure was answered; with `joined={"pending"}`: whether it may yet be, by a join."""
        if joined is BEGUN:
            if self.graph.nodes[name].continue_on_failure:
                return True
            targets = [edge.target for edge in self.graph.outgoing[name] if edge.on != "success"]
            if any(self.state(target) != "skipped" for target in targets):
                return True
        for edge in self.graph.outgoing[name]:
            if edge.lenient:
                continue
            joins = self.graph.nodes[edge.target].fan_in.need is not None
            if joins and self.state(edge.target) in joined:
                return True
            if self.falls(edge.target, joins) and self.handled_behind(edge.target, joined):
                return True
        for reader in self.graph.readers[name]:
            if name in self.lacks(reader) and self.falls(reader, False) and self.handled_behind(reader, joined):
                return True
        return False

    def handled_behind(self, name: str, joined: set[str]) -> bool:
        """As `handled`, for a node that was skipped because of the failure: it answers nothing by itself."""
        node_joins = [
            edge.target
            for edge in self.graph.outgoing[name]
            if not edge.lenient and self.graph.nodes[edge.target].fan_in.need is not None
        ]
        if any(self.state(target) in joined for target in node_joins):
            return True
        behind = [edge.target for edge in self.graph.outgoing[name] if not edge.lenient]
        read = [reader for reader in self.graph.readers[name] if name in self.lacks(reader)]
        return any(
            self.falls(target, target in node_joins) and self.handled_behind(target, joined)
            for target in [*behind, *read]
        )

    def falls(self, name: str, joins: bool) -> bool:
        if self.state(name) == "skipped":
            return self.run(name).by_failure
        return self.state(name) == "pending" and not joins

    def hopeless(self) -> list[str]:
        """The failed nodes whose failure nobody answered, or can still answer."""
        failed = [name for name in self.task.runs if self.state(name) == "failed"]
        return [name for name in failed if not self.handled(name) and not self.handled(name, {"pending"})]

    def status(self, cancelled_as: str = "") -> str:
        """How a task ends all of whose nodes have ended."""
        if cancelled_as:
            return cancelled_as
        if any(self.state(name) == "failed" and not self.handled(name) for name in self.task.runs):
            return "failed"
        try:
            self.fill(self.graph.output)
        except LookupError:
            return "failed"
        return "finished"

    # Inputs.

    def output(self, name: str) -> Any:
        run = self.run(name)
        if self.state(name) != "finished" or run.output is None:
            raise LookupError(name)
        return run.output.get()

    def inputs(self, name: str) -> Any:
        """Raises `LookupError` where they cannot be built."""
        node, edges = self.graph.nodes[name], self.graph.incoming[name]
        if node.inputs is not MISSING:
            return self.fill(node.inputs)
        if not edges:
            return self.task.params
        given = {edge.source: self.given(edge) for edge in edges if self.edge(edge) == TAKEN}
        return given if len(edges) > 1 else given[edges[0].source]

    def given(self, edge: Edge) -> Any:
        if self.is_null(edge):
            return None
        if self.state(edge.source) == "failed":
            error = self.run(edge.source).error or {}
            return {"error": {"code": error["code"], "message": error["message"]}}
        return self.output(edge.source)

    def fill(self, template: Any) -> Any:
        """Templates of the generated graphs: `{"key": {"$from": "node" or "node.v", "default": ...}}`."""
        if template is MISSING or not isinstance(template, dict):
            return template
        if "$from" not in template:
            return {key: self.fill(part) for key, part in template.items()}
        name, _, field = template["$from"].partition(".")
        try:
            output = self.output(name)
            return output[field] if field else output
        except (LookupError, TypeError):
            if "default" in template:
                return template["default"]
            raise LookupError(template["$from"]) from None
