"""Which nodes a request means: what targets need, what a restart runs again, what losers may be cancelled."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.core.graph import Graph
from flowkit.core.model import ENDED_NODE, NodeState, Task
from flowkit.core.readiness import EdgeState, edge_state


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
    """What a restart of the failed part runs again: all that failed, was cancelled or was skipped because of a
    failure."""
    seeds = [
        name
        for name, run in task.runs.items()
        if run.state in (NodeState.FAILED, NodeState.CANCELLED) or (run.state is NodeState.SKIPPED and run.by_failure)
    ]
    return descendants(task.graph, seeds)


def broken_source(task: Task, name: str, again: set[str]) -> str | None:
    """A source that did not do its part and would not run again with `again`: `name` could not start."""
    for edge in task.graph.incoming[name]:
        if edge.source not in again and edge_state(task, edge) is EdgeState.BROKEN:
            return edge.source
    return None


def losers(task: Task, join: str) -> list[str]:
    """Unfinished parents of a join that has started, and what only they were waited for."""
    doomed: set[str] = set()
    stack = [edge.source for edge in task.graph.incoming[join]]
    while stack:
        name = stack.pop()
        if name in doomed or task.runs[name].state in ENDED_NODE:
            continue
        targets = (*(edge.target for edge in task.graph.outgoing[name]), *task.graph.readers[name])
        if all(t == join or t in doomed or task.runs[t].state in ENDED_NODE for t in targets):
            doomed.add(name)
            stack.extend(sources(task.graph, name))
    return [name for name in task.graph.nodes if name in doomed] if doomed else []
