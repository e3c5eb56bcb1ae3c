"""How a task ends: which failures count, which were handled, and what is said about them."""

from __future__ import annotations

from flowkit.core.facts import ErrorInfo, TaskEnded
from flowkit.core.graph import SUCCESS
from flowkit.core.inputs import task_output
from flowkit.core.model import NodeState, Task
from flowkit.errors import InputError

_RAN = frozenset({NodeState.READY, NodeState.RUNNING, NodeState.WAITING, NodeState.FINISHED, NodeState.FAILED})


def ended(task: Task) -> TaskEnded:
    """The end of a task all of whose nodes have ended."""
    if task.cancel_outcome:
        return TaskEnded(task.cancel_outcome, task.cancel_error)

    unhandled = next((name for name in task.failed if not handled(task, name)), None)
    if unhandled is not None:
        return TaskEnded("failed", node_error(task, unhandled))
    try:
        task_output(task)
    except InputError as error:
        return TaskEnded("failed", {"code": "bad_output", "message": f"the graph's output: {error}"})
    return TaskEnded("finished")


def node_error(task: Task, name: str) -> ErrorInfo:
    return {**(task.runs[name].error or {}), "node_id": name}


def handled(task: Task, name: str) -> bool:
    """Whether somebody answered a node's failure: an edge for it, a join that ran without it, or the node itself."""
    if task.graph.nodes[name].continue_on_failure:
        return True
    if any(edge.on != SUCCESS for edge in task.graph.outgoing[name]):
        return True
    return _some_join(task, name, _RAN)


def may_yet_be_handled(task: Task, name: str) -> bool:
    """Whether a join that has not decided yet could still run without the failed node."""
    return _some_join(task, name, frozenset({NodeState.PENDING}))


def _some_join(task: Task, name: str, states: frozenset[NodeState]) -> bool:
    seen, stack = {name}, [name]
    while stack:
        for edge in task.graph.outgoing[stack.pop()]:
            target = task.runs[edge.target]
            if edge.target in seen or edge.lenient:
                continue
            seen.add(edge.target)
            if task.graph.nodes[edge.target].fan_in.need is not None:
                if target.state in states:
                    return True
            elif target.state is NodeState.PENDING:
                stack.append(edge.target)
            if target.state is NodeState.SKIPPED and target.by_failure:
                stack.append(edge.target)
    return False
