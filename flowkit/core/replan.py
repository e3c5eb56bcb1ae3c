"""What a restart would do: which nodes run again, which are kept, which are new, or why it is not possible."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from flowkit.core import selection
from flowkit.core.derived import base_of, group_of, item_of_name
from flowkit.core.facts import TaskRestarted
from flowkit.core.graph import Graph
from flowkit.core.lifecycle import members
from flowkit.core.model import Task
from flowkit.core.moments import show_moment
from flowkit.core.node_run import NodeState
from flowkit.core.problems import Problems, shown
from flowkit.core.restart import conditions
from flowkit.core.scope import depends_on


class RestartOptions(TypedDict, total=False):
    """How an ended task is to run again. `failed_only`: only what failed, and of a sub-graph that failed only what
    failed in it; `from_node`: a node, or an item, and all that follows; neither: the whole. `params` are new params;
    `inputs` new inputs of nodes by id; `graph` an edited graph, of which what is new, was changed or did not finish
    runs, and what follows. `deadline` is when the task must have ended now, instead of the one that it had."""

    deadline: Any
    from_node: str | None
    failed_only: bool
    graph: Any
    inputs: Mapping[str, Any] | None
    params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """`again` run (again), `new` those of them that the edited graph brings, `kept` keep what they have, `removed` are
    no more. `whole`: everything runs again. `refused` says why nothing can be done; then the rest is empty.

    `within` are those of `again` whose sub-graphs go on where they had ended; `children` says what that means for the
    first of them, and `more_children` how many there are beside those."""

    again: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    whole: bool = False
    refused: str = ""
    within: frozenset[str] = frozenset()
    children: tuple[ChildPlan, ...] = ()
    more_children: int = 0


class ChildFate(enum.StrEnum):
    """What becomes of a child whose parent's node goes on with it."""

    GOES_ON = "goes on"
    TAKEN = "taken"
    AWAITED = "awaited"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What a restart means for the child `task_id` of a node or item: it `goes on` by `plan`; it has finished meanwhile
    and is `taken` as it is; it has not ended and is `awaited`; or a `fresh` one takes its place, since `why`."""

    node: str
    task_id: str
    fate: ChildFate
    plan: RestartPlan | None = None
    why: str = ""


def plan_restart(task: Task, args: Mapping[str, Any], graph: Graph | None = None) -> RestartPlan:
    """The plan for a restart with these arguments of the API; `graph` is the edited one, if there is one."""
    if not task.ended:
        return RestartPlan(refused=f"it is {task.status}: only a task that has ended can be restarted; cancel it first")
    if graph is None:
        return _of_same_graph(task, args)
    return _of_edited_graph(task, args, graph)


def plan_to_go_on(task: Task) -> RestartPlan:
    """The plan by which a child that has ended goes on: what failed in it; all of it where none of its nodes did."""
    plan = plan_restart(task, {"failed_only": True})
    return plan if not plan.refused else plan_restart(task, {})


def going_on(task: Task, args: Mapping[str, Any], attempt: int, now: float) -> TaskRestarted:
    """How a child that has ended goes on for an attempt of its parent's node. A deadline of its own that is still ahead
    holds, if it is the earlier one; one that has passed gives way to that of the parent's node."""
    deadline, own = args.get("deadline"), task.deadline
    if deadline is not None and own is not None and own > now:
        deadline = min(own, deadline)
    plan, params = plan_to_go_on(task), args.get("params")
    return restarted(task, plan, params=params, for_attempt=attempt, deadline=deadline)


def in_time(task: Task, plan: RestartPlan, args: Mapping[str, Any], graph: Graph | None, now: float) -> RestartPlan:
    """The plan, if the task's deadline has not passed, be it that which the restart brings."""
    deadline = args.get("deadline")
    if deadline is None:
        deadline = task.deadline if graph is None or graph.deadline == task.graph.deadline else graph.deadline
    if plan.refused or deadline is None or deadline > now:
        return plan
    say = f"its deadline, {show_moment(deadline)}, has passed: give it a later one with `deadline`"
    return RestartPlan(refused=say)


def restarted(task: Task, plan: RestartPlan, *, graph: str = "", params: dict[str, Any] | None = None,
              for_attempt: int = 0, deadline: float | None = None) -> TaskRestarted:  # fmt: skip
    """The plan as the fact to record."""
    nodes = None if plan.whole else tuple(sorted(plan.again))
    within = {name if name in task.graph.nodes else group_of(name) for name in plan.within}
    forget = bool(task.vars) and _begins_anew(task, plan)
    return TaskRestarted(task.generation + 1, nodes, graph, params, tuple(sorted(within)), for_attempt, deadline,
                         forget)  # fmt: skip


def _begins_anew(task: Task, plan: RestartPlan) -> bool:
    """Whether all that ran runs again, every item of it."""
    return not plan.kept - selection.left_out(task) and all(name == base_of(name) for name in plan.again)


def _of_same_graph(task: Task, args: Mapping[str, Any]) -> RestartPlan:
    name, out = args.get("from_node"), selection.left_out(task)
    every = frozenset(task.graph.nodes)
    if name is not None:
        again, why = _from_node(task, name)
    elif args.get("failed_only"):
        again = selection.unfinished_business(task)
        why = "" if again - out else _nothing_failed(task)
    else:
        return RestartPlan(every - out, frozenset(out), whole=not out)
    if why:
        return RestartPlan(refused=why)
    again = _with_loose_maps(task, again - out, params=args.get("params") is not None)
    within = selection.within(task, task.graph, again) if name is None else set()
    return RestartPlan(frozenset(again), every - again, within=frozenset(within))


def _with_loose_maps(task: Task, again: set[str], *, params: bool) -> set[str]:
    """A map of which some items are to run again runs as a whole where something before it runs again, or its list is
    made of `params` that are others now: it may be of other items then, and none may run before its list is there."""
    graph = task.graph
    loose = set[str]()
    for name in {group_of(name) for name in again if name not in graph.nodes}:
        foreach = graph.nodes[name].foreach
        anew = params and foreach is not None and depends_on(foreach.items, "params")
        if anew or not again.isdisjoint(selection.sources(graph, name)):
            loose.add(name)
    return {name for name in again if name in graph.nodes or group_of(name) not in loose} if loose else again


def _nothing_failed(task: Task) -> str:
    """Why a restart of what failed has nothing to do, and what would have."""
    if (task.error or {}).get("code") == "bad_output":
        return "nothing in it failed but its own output: restart it with a graph whose `output` is right"
    collecting = (name for name, node in task.graph.nodes.items() if node.foreach is not None and node.foreach.collect)
    items = (item for name in collecting for item in members(task, name))
    failed = next((item for item in items if task.runs[item].state is not NodeState.FINISHED), "")
    hint = f"; items that did were collected: from_node={failed!r} runs one of them again" if failed else ""
    return f"nothing in it failed{hint}"


def _from_node(task: Task, name: Any) -> tuple[set[str], str]:
    """What runs again from a node, or an item, on; or why it cannot."""
    if not isinstance(name, str) or name not in task.runs:
        hint = Problems().suggest(name, task.runs) if isinstance(name, str) else ""
        return set(), f"it has no node {shown(name)}{hint}"
    base = base_of(name)
    if name != base and not (name == item_of_name(name) and task.graph.nodes[base].foreach is not None):
        return set(), f"node {name!r} is part of {base!r}: restart from there"
    if why := selection.why_not_again(task, base):
        return set(), f"node {name!r} could not start, {why}"
    again = selection.descendants(task.graph, {base} | selection.undone(task))
    return (again if name == base else again | {name} | selection.undone_items(task, base)), ""


def _of_edited_graph(task: Task, args: Mapping[str, Any], graph: Graph) -> RestartPlan:
    """What is new or was changed runs, what follows it, what did not finish, and what was asked for."""
    old = task.graph
    new = graph.nodes.keys() - old.nodes.keys()
    changed = {name for name in graph.nodes.keys() & old.nodes.keys() if _changed(old, graph, name)}
    changed |= _otherwise(old, graph) & old.nodes.keys()
    seeds = new | changed
    name = args.get("from_node")
    if name is not None:
        if name not in graph.nodes:
            return RestartPlan(refused=f"it has no node {shown(name)}{Problems().suggest(str(name), graph.nodes)}")
        seeds.add(name)
    unfinished = {base_of(one) for one in selection.unfinished_business(task)}
    seeds |= (unfinished | selection.undone(task)) & graph.nodes.keys()
    out = _still_left_out(task, graph)
    seeds |= (selection.left_out(task) & graph.nodes.keys()) - out
    again = selection.descendants(graph, seeds) - out
    if not again and graph.output == old.output:
        return RestartPlan(refused="nothing in it is new, was changed or did not finish; say from_node")
    within = selection.within(task, graph, again) - new - changed if args.get("failed_only") and name is None else set()
    return RestartPlan(
        again=frozenset(again),
        kept=frozenset(graph.nodes.keys() - again),
        new=frozenset(new),
        removed=frozenset(old.nodes.keys() - graph.nodes.keys()),
        within=frozenset(within),
    )


def _still_left_out(task: Task, graph: Graph) -> set[str]:
    """The nodes that the task's targets did not need, but for those that lead now to what they did, or to new ones."""
    out = selection.left_out(task)
    return out & set(selection.not_needed(graph, graph.nodes.keys() - out)) if out else out


def _otherwise(old: Graph, new: Graph) -> set[str]:
    """The nodes that are led to where no condition holds, of sources of which the conditions are others now."""
    others = (name for name in new.choices & old.nodes.keys() if conditions(old, name) != conditions(new, name))
    return {edge.target for name in others for edge in new.outgoing[name] if edge.otherwise}


def _changed(old: Graph, new: Graph, name: str) -> bool:
    before, after = old.nodes[name], new.nodes[name]
    # How often it is tried, when, and how long it may take says nothing about what it gives.
    patient = replace(before, timeouts=after.timeouts, retry=after.retry, retry_given=after.retry_given,
                      limits=after.limits, deadline=after.deadline, body=None)  # fmt: skip
    same = patient == replace(after, body=None)
    return not same or set(old.incoming[name]) != set(new.incoming[name]) or old.reads[name] != new.reads[name]
