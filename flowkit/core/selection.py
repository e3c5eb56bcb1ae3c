"""Which nodes a request means: what targets need, what a restart runs again, what losers may be cancelled."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.core.derived import COMPENSATE, base_of, group_of, item_of_name
from flowkit.core.graph import Graph
from flowkit.core.model import NOT_NEEDED, Task
from flowkit.core.node_run import ENDED_NODE, NodeRun, NodeState
from flowkit.core.readiness import Start, count, skip_reason, verdict


def not_needed(graph: Graph, targets: Iterable[str]) -> tuple[str, ...]:
    """The nodes from which no edge and no reference leads to a target; none where there are no targets."""
    needed = set(targets)
    if not needed:
        return ()
    stack = list(needed)
    while stack:
        for source in sources(graph, stack.pop()):
            if source not in needed:
                needed.add(source)
                stack.append(source)
    return tuple(name for name in graph.nodes if name not in needed)


def sources(graph: Graph, name: str) -> Iterable[str]:
    yield from (edge.source for edge in graph.incoming[name])
    yield from (reference.source for reference in graph.nodes[name].references)


def descendants(graph: Graph, seeds: Iterable[str]) -> set[str]:
    """The seeds and all that follows from them."""
    found = set(seeds)
    stack = list(found)
    while stack:
        name = stack.pop()
        for target in (*(edge.target for edge in graph.outgoing[name]), *graph.readers[name]):
            if target not in found:
                found.add(target)
                stack.append(target)
    return found


def unfinished_business(task: Task) -> set[str]:
    """What a restart of the failed part runs again: all that failed, was cancelled, was skipped because of a failure or
    was undone, and of a group of items only those items; but not what a join went on without, with which nothing was
    wrong."""
    seeds, items = set[str](), set[str]()
    for name in task.graph.nodes:
        if not _is_unfinished(task.runs[name]):
            continue
        group = task.runs[name].group
        if group is not None and group.next and task.graph.nodes[name].foreach is not None:
            items |= _unfinished_items(task, name)
        seeds.add(name)
    return descendants(task.graph, seeds | undone(task)) | items


def _is_unfinished(run: NodeRun) -> bool:
    if run.state is NodeState.CANCELLED:
        return not run.loser
    return run.state is NodeState.FAILED or (run.state is NodeState.SKIPPED and run.by_failure)


def _unfinished_items(task: Task, group: str) -> set[str]:
    """The items of a group that did not finish, or were undone. Of one all of whose items finished, none is left out:
    it failed for another reason, and runs again as a whole."""
    members = [name for name in task.runs.derived if group_of(name) == group]
    return {name for name in members if task.runs[name].state is not NodeState.FINISHED} | undone_items(task, group)


def undone(task: Task) -> set[str]:
    """The nodes of the graph whose effects were undone, wholly or in part."""
    return {base_of(name) for name in task.runs.derived if name.endswith(COMPENSATE)}


def undone_items(task: Task, group: str) -> set[str]:
    """The items of a group whose effects were undone."""
    items = {item_of_name(name) for name in task.runs.derived if name.endswith(COMPENSATE)}
    return {item for item in items if group_of(item) == group}


def within(task: Task, graph: Graph, again: set[str]) -> set[str]:
    """Those of the nodes and items that run `again`, of this graph, whose children go on where they had ended: the
    children failed or were cancelled, and nothing that the node waits for or reads runs again, which might give the
    child other params."""
    found = set[str]()
    bases = {name for name in again if name in graph.nodes and graph.nodes[name].type == "task"}
    firm = {name for name in bases if again.isdisjoint(sources(graph, name))}
    for name in again:
        item = name not in graph.nodes
        base = group_of(name) if item else name
        if base in firm and (item or graph.nodes[name].foreach is None) and goes_on(task.runs[name]):
            found.add(name)
    return found


def goes_on(run: NodeRun) -> bool:
    """Whether a node had a child that did not finish. The fold of a restart asks as well: this may never change."""
    return bool(run.child_of) and run.state in (NodeState.FAILED, NodeState.CANCELLED) and not run.loser


def left_out(task: Task) -> set[str]:
    """The nodes that no target of the task needs: a restart leaves them out too."""
    return {name for name in task.graph.nodes if task.runs[name].reason == NOT_NEEDED}


def why_not_again(task: Task, name: str) -> str:
    """Why a node of an ended task could not start if it and what follows from it ran again; empty if it could."""
    graph, node = task.graph, task.graph.nodes[name]
    if task.runs[name].reason == NOT_NEEDED:
        return "the targets of the task do not need it"
    run = NodeRun(len(graph.incoming[name]), 0)
    for edge in graph.incoming[name]:
        count(task, edge, run)
    if verdict(task, node, run) is Start.START:
        return ""
    _, by_failure, cause = skip_reason(task, node, run)
    if by_failure:
        return f"{cause!r} before it did not finish: restart from there"
    return f"{cause!r} before it did not lead to it: restart from there" if cause else "too few before it lead to it"


def losers(task: Task, join: str) -> list[str]:
    """Unfinished parents of a join that has started, and what only they were waited for."""
    doomed: dict[str, None] = {}
    stack = [edge.source for edge in task.graph.incoming[join]]
    while stack:
        name = stack.pop()
        if name in doomed or task.runs[name].state in ENDED_NODE:
            continue
        targets = (*(edge.target for edge in task.graph.outgoing[name]), *task.graph.readers[name])
        if all(t == join or t in doomed or task.runs[t].state in ENDED_NODE for t in targets):
            doomed[name] = None
            stack.extend(sources(task.graph, name))
    return list(doomed)
