"""Which conditional edges of a node that has ended are taken."""

from __future__ import annotations

from flowkit.core.graph import SUCCESS, Edge
from flowkit.core.inputs import error_output
from flowkit.core.model import NodeState, Task
from flowkit.core.opening import holds
from flowkit.core.readiness import deferred
from flowkit.core.scope import Scope
from flowkit.errors import ExprError, InputError

Broken = list[tuple[str, ExprError | InputError]]


def routes(task: Task, name: str) -> tuple[tuple[str, ...] | None, Broken]:
    """The targets of the conditional edges that are taken, None where none is to be decided; and those whose condition
    cannot be evaluated, with the error. Raises `Unanswered`."""
    pending = [edge for edge in task.graph.outgoing[name] if deferred(task, edge)]
    if not pending:
        return None, []
    taken: list[str] = []
    broken: Broken = []
    for edge in pending:
        if edge.when is None:
            continue
        try:
            if holds(_scope(task, name, edge), edge.when):
                taken.append(edge.target)
        except (ExprError, InputError) as error:
            broken.append((edge.target, error))
    if not taken:
        taken = [edge.target for edge in pending if edge.otherwise]
    return tuple(taken), broken


def _scope(task: Task, name: str, edge: Edge) -> Scope:
    """`output` is the node's; where it failed it is `{"error": ...}` to edges that are about failure, and null to one
    that `continue_on_failure` takes."""
    if task.runs[name].state is NodeState.FINISHED:
        return Scope(task, name, output=Scope(task).output_of(name))
    return Scope(task, name, output=None if edge.on == SUCCESS else error_output(task, name))
