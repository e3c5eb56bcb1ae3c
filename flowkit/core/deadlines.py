"""Deadlines: the moments by which a task, and some of its nodes, must have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.core.moments import read_moment, show_moment
from flowkit.core.problems import Problems
from flowkit.core.scope import Scope, Unanswered
from flowkit.errors import ExprError, InputError

CODE: Final = "deadline"
NONE: Final = 0.0
"""Stands for the deadline of a node that could not be told: it has passed."""
MOST_AT_ONCE: Final = 1000


def deadline_of(task: Task, name: str) -> float:
    """What a node of the graph says of its deadline, with the task's params (epoch seconds). Raises `InputError`,
    `ExprError`."""
    try:
        return read_moment(Scope(task, name).fill(task.graph.nodes[name].deadline, place="deadline"))
    except Unanswered:
        raise InputError("it hangs on a param that is too large to be looked at") from None


def unset(task: Task) -> Iterator[f.DeadlineSet]:
    """The deadlines of nodes that have yet to be told, at most so many."""
    if len(task.deadlines) >= len(task.graph.deadlines):
        return
    left = MOST_AT_ONCE
    for name in task.graph.deadlines:
        if name not in task.deadlines:
            try:
                at = deadline_of(task, name)
            except (InputError, ExprError):
                at = NONE
            yield f.DeadlineSet(name, at)
            left -= 1
        if not left:
            return


def missed(task: Task, name: str) -> f.ErrorInfo:
    """Why a node whose deadline has passed fails."""
    if task.deadlines[name] != NONE:
        return {"code": CODE, "message": f"it had not ended by its deadline, {show_moment(task.deadlines[name])}"}
    try:
        deadline_of(task, name)
    except (InputError, ExprError) as error:
        return {"code": error.code, "message": f"deadline: {error}"}
    return {"code": CODE, "message": "its deadline could not be told"}


def too_late(error: f.ErrorInfo, latest: float) -> f.ErrorInfo:
    """Why a node that failed is not tried again though it might be."""
    say = f"its deadline, {show_moment(latest)}, comes before its next try"
    return {**error, "code": CODE, "message": f"{say}; it failed with {error.get('code')}: {error.get('message')}"}


def earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def check(graph: Graph, params: Mapping[str, Any] | None, now: float, problems: Problems) -> None:
    """Report deadlines of a graph that have passed, or that are none with these params; without `params`, only those
    that need none."""
    if graph.deadline is not None and graph.deadline <= now:
        problems.add("E_DEADLINE", "deadline", _passed(graph.deadline, now))
    if not graph.deadlines:
        return
    task = Task(task_id="", graph=graph, params=params or {})
    for number, (name, node) in enumerate(graph.nodes.items()):
        if node.deadline is None or (params is None and isinstance(node.deadline, dict)):
            continue
        place = (("nodes", number), "deadline")
        try:
            at = deadline_of(task, name)
        except (InputError, ExprError) as error:
            problems.add("E_DEADLINE", place, str(error))
        else:
            if at <= now:
                problems.add("E_DEADLINE", place, _passed(at, now))


def check_given(deadline: Any, now: float, problems: Problems) -> float | None:
    """The deadline that a caller gives a task, as epoch seconds; None after noting a problem."""
    try:
        at = read_moment(deadline)
    except InputError as error:
        problems.add("E_DEADLINE", "deadline", str(error))
        return None
    if at <= now:
        problems.add("E_DEADLINE", "deadline", _passed(at, now))
        return None
    return at


def _passed(at: float, now: float) -> str:
    return f"{show_moment(at)} has passed, it is {show_moment(float(int(now)))}; give a later one"
