"""Which conditional edges of a node that has ended are taken."""

from __future__ import annotations

from flowkit.core.graph import SUCCESS
from flowkit.core.inputs import error_output
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
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
    failed = task.runs[name].state is not NodeState.FINISHED
    scope = Scope(task, name, output=error_output(task, name) if failed else Scope(task).output_of(name))
    despite = Scope(task, name, output=None)  # what `continue_on_failure` shows to edges that are not about failure
    for edge in pending:
        if edge.when is None:
            continue
        try:
            if holds(despite if failed and edge.on == SUCCESS else scope, edge.when):
                taken.append(edge.target)
        except (ExprError, InputError) as error:
            broken.append((edge.target, error))
    if not taken:
        taken = [edge.target for edge in pending if edge.otherwise]
    return tuple(taken), broken
