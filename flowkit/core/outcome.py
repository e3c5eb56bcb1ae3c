"""How a task ends: which failures count, which were handled, and what is said about them."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit.core.derived import COMPENSATE
from flowkit.core.facts import ErrorInfo, TaskEnded
from flowkit.core.graph import SUCCESS, Edge
from flowkit.core.inputs import task_output
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
from flowkit.core.readiness import EdgeState, edge_state
from flowkit.errors import ExprError, InputError

_RAN = frozenset({NodeState.READY, NodeState.RUNNING, NodeState.WAITING, NodeState.FINISHED, NodeState.FAILED})
_UNDECIDED = frozenset({NodeState.PENDING})


def ended(task: Task) -> TaskEnded:
    """The end of a task all of whose nodes have ended. Raises `Unanswered` where its output must be read first."""
    if task.cancel_outcome == "finished":
        return TaskEnded("finished")
    if task.cancel_outcome:
        error = task.cancel_error or {"code": task.cancel_outcome, "message": task.reason}
        return TaskEnded(task.cancel_outcome, error | _not_undone(task))

    if task.failed:
        known: set[str] = set()
        unhandled = next((name for name in task.failed if not handled(task, name, known)), None)
        if unhandled is not None:
            return TaskEnded("failed", node_error(task, unhandled))
    try:
        task_output(task)
    except (InputError, ExprError) as error:
        return TaskEnded("failed", {"code": "bad_output", "message": f"the graph's output: {error}"})
    return TaskEnded("finished")


def _not_undone(task: Task) -> ErrorInfo:
    """What could not be undone, if anything."""
    if task.undo is None:
        return {}
    undoing = [name for name in task.runs.derived if name.endswith(COMPENSATE)]
    failed = [name.removesuffix(COMPENSATE) for name in undoing if task.runs[name].state is not NodeState.FINISHED]
    return {"not_undone": failed} if failed else {}


def node_error(task: Task, name: str) -> ErrorInfo:
    return {**(task.runs[name].error or {}), "node_id": name}


def handled(task: Task, name: str, known: set[str] | None = None) -> bool:
    """Whether somebody answered a node's failure: an edge for it, a join that ran without it, or the node itself.
    `known` are nodes that are known to lead to such a join; more are added."""
    if task.graph.nodes[name].continue_on_failure:
        return True
    # A handler that was skipped, whyever, did not run: nobody was told.
    outgoing = task.graph.outgoing[name]
    if any(edge.on != SUCCESS and _was_told(task, edge) for edge in outgoing):
        return True
    return _leads_to_join(task, name, _RAN, set() if known is None else known)


def _was_told(task: Task, edge: Edge) -> bool:
    took = edge_state(task, edge) is EdgeState.TAKEN
    return took and task.runs[edge.target].state is not NodeState.SKIPPED


def may_yet_be_handled(task: Task, name: str) -> bool:
    """Whether a join that has not decided yet could still run without the failed node."""
    return _leads_to_join(task, name, _UNDECIDED, set())


def _leads_to_join(task: Task, name: str, states: frozenset[NodeState], known: set[str]) -> bool:
    """Whether a join in one of `states` stands behind a node, or behind what is skipped because of it."""
    came: dict[str, str] = {name: ""}
    stack = [name]
    while stack:
        here = stack.pop()
        for target in _dependants(task, here, states):
            if target is None or target in known:
                while here:
                    known.add(here)
                    here = came[here]
                return True
            if target not in came:
                came[target] = here
                stack.append(target)
    return False


def _dependants(task: Task, name: str, states: frozenset[NodeState]) -> Iterator[str | None]:
    """The nodes that are skipped, or going to be, for want of this one; None for a join that did without it."""
    graph = task.graph
    for edge in graph.outgoing[name]:
        run = task.runs[edge.target]
        joins = graph.nodes[edge.target].fan_in.need is not None
        if edge.lenient:
            continue
        if joins and run.state in states:
            yield None
        elif run.by_failure or (run.state is NodeState.PENDING and not joins):
            yield edge.target
    for reader in graph.readers[name]:
        run = task.runs[reader]
        if (run.by_failure or run.state is NodeState.PENDING) and any(
            reference.source == name and not reference.has_default for reference in graph.nodes[reader].references
        ):
            yield reader
