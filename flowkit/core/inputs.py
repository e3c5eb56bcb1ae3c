"""Builds what a node is given, and what a finished task gives back, from the outputs in a task's state."""

from __future__ import annotations

from typing import Any

from flowkit.core import template
from flowkit.core.graph import MISSING, SUCCESS, Edge, Node
from flowkit.core.model import NodeState, Task
from flowkit.core.readiness import EdgeState, edge_state


def node_inputs(task: Task, node: Node) -> Any:
    """The inputs of a node that is about to be leased; may hold `Artifact`s.

    Raises `InputError` where a reference or parameter leads nowhere.
    """
    if node.inputs is not MISSING:
        if node.constant:
            return template.unescape(node.inputs)
        return template.resolve(node.inputs, params=task.params, output_of=lambda name: output_of(task, name),
                                known=task.graph.nodes)  # fmt: skip

    edges = task.graph.incoming[node.node_id]
    if node.stream is not None and node.stream.sources:
        apart = [e for e in edges if e.source not in node.stream.sources and edge_state(task, e) is EdgeState.TAKEN]
        return {edge.source: _given(task, edge) for edge in apart}
    if not edges:
        return task.params
    if len(edges) == 1:
        return _given(task, edges[0])
    return {edge.source: _given(task, edge) for edge in edges if edge_state(task, edge) is EdgeState.TAKEN}


def output_of(task: Task, name: str) -> Any:
    """A node's output (a value or an `Artifact`), or MISSING if it has none."""
    run = task.runs[name]
    if run.state is NodeState.FINISHED and run.output is not None:
        return run.output.get()
    return MISSING


def task_output(task: Task) -> Any:
    """The task's output: the graph's `output` mapping, else the single leaf's output, else those of the leaves.

    Raises `InputError` where the mapping leads nowhere.
    """
    graph = task.graph
    if graph.output is not MISSING:
        return template.resolve(graph.output, params=task.params, output_of=lambda name: output_of(task, name),
                                known=graph.nodes)  # fmt: skip
    if len(graph.leaves) == 1:
        value = output_of(task, graph.leaves[0])
        return None if value is MISSING else value
    values = ((leaf, output_of(task, leaf)) for leaf in graph.leaves)
    return {leaf: value for leaf, value in values if value is not MISSING}


def _given(task: Task, edge: Edge) -> Any:
    run = task.runs[edge.source]
    if run.state is NodeState.FINISHED and run.output is not None:
        return run.output.get()
    if run.state is NodeState.FAILED and edge.on != SUCCESS and run.error is not None:
        return {"error": {"code": run.error.get("code"), "message": run.error.get("message")}}
    return None
