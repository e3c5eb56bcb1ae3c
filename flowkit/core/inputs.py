"""Builds what a node is given, and what a finished task gives back, from the outputs in a task's state."""

from __future__ import annotations

from typing import Any

from flowkit.core.derived import COMPENSATE, base_of
from flowkit.core.filling import unescape
from flowkit.core.graph import MISSING, SUCCESS, Edge
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
from flowkit.core.readiness import EdgeState, edge_state
from flowkit.core.scope import Scope


def node_inputs(task: Task, name: str) -> Any:
    """The inputs of a node that is about to start; may hold `Artifact`s.

    Raises `InputError` where a reference or parameter leads nowhere, `ExprError` where an expression fails,
    `Unanswered` where what they need was not read yet.
    """
    node = task.node(name)
    if node.inputs is not MISSING:
        if node.constant:
            return unescape(node.inputs)
        return Scope(task, name).fill(node.inputs)

    if name not in task.graph.nodes:
        if name.endswith(COMPENSATE):
            value = output_of(task, name.removesuffix(COMPENSATE))
            return None if value is MISSING else value
        if task.graph.nodes[base_of(name)].foreach is not None:
            return Scope(task, name).root("item")
    edges = task.graph.incoming[base_of(name)]
    if node.stream is not None and node.stream.sources:
        apart = [e for e in edges if e.source not in node.stream.sources and edge_state(task, e) is EdgeState.TAKEN]
        return {edge.source: _given(task, edge) for edge in apart}
    if not edges:
        return task.params
    if len(edges) == 1:
        return _given(task, edges[0])
    return {edge.source: _given(task, edge) for edge in edges if edge_state(task, edge) is EdgeState.TAKEN}


def output_of(task: Task, name: str) -> Any:
    """A node's output (a value that may hold `Artifact`s), or MISSING if it has none."""
    run = task.runs[name]
    if run.group is not None:
        return Scope(task).output_of(name)
    return MISSING if run.state is not NodeState.FINISHED or run.output is None else run.output.get()


def task_output(task: Task) -> Any:
    """The task's output: what its `end` node says, else the graph's `output` mapping, else the single leaf's output,
    else those of the leaves.

    Raises `InputError` where the mapping leads nowhere, `ExprError`, and `Unanswered`.
    """
    graph = task.graph
    if task.ended_by:
        value = output_of(task, task.ended_by)
        return None if value is MISSING else value
    if graph.output is not MISSING:
        return Scope(task).fill(graph.output, place="output")
    if len(graph.leaves) == 1:
        value = output_of(task, graph.leaves[0])
        return None if value is MISSING else value
    values = ((leaf, output_of(task, leaf)) for leaf in graph.leaves)
    return {leaf: value for leaf, value in values if value is not MISSING}


def _given(task: Task, edge: Edge) -> Any:
    run = task.runs[edge.source]
    if run.state is NodeState.FINISHED:
        value = output_of(task, edge.source)
        return None if value is MISSING else value
    if run.state is NodeState.FAILED and edge.on != SUCCESS and run.error is not None:
        return error_output(task, edge.source)
    return None


def error_output(task: Task, name: str) -> Any:
    """What a failed node gives to those that are there for its failure."""
    error = task.runs[name].error or {}
    return {"error": {"code": error.get("code"), "message": error.get("message")}}
