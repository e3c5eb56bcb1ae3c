"""The fold of a restart: what runs again begins anew, what is kept counts for it as it did before."""

from __future__ import annotations

from collections.abc import Mapping

from flowkit.core import facts as f
from flowkit.core import lifecycle
from flowkit.core.derived import base_of, group_of, item_of, number_of
from flowkit.core.graph import Edge, Graph
from flowkit.core.lifecycle import reconsider
from flowkit.core.model import Runs, Task, TaskStatus, Timer
from flowkit.core.node_run import Group, NodeState
from flowkit.core.readiness import count, deferred
from flowkit.core.selection import goes_on


def restart(task: Task, fact: f.TaskRestarted, at: float) -> None:
    """A new generation. Nodes of the graph among `fact.nodes` run again; items among them too, and then what is left
    of their group is kept."""
    if fact.graph:
        _edit(task, fact.graph)
    if fact.deadline is not None:
        task.deadline = fact.deadline
    if fact.params is not None:
        task.params, task.edited_params = fact.params, True
    if fact.forget:
        task.vars = {}
    graph = task.graph
    again = set(graph.nodes) if fact.nodes is None else {name for name in fact.nodes if name in graph.nodes}
    items = [] if fact.nodes is None else [name for name in fact.nodes if name not in graph.nodes]
    kept = {group_of(name) for name in items}

    goes_on_with = {
        name: task.runs[name].child_of
        for name in (*(again - kept), *items)
        if (name if name in graph.nodes else group_of(name)) in fact.within and goes_on(task.runs[name])
    }

    _begin_generation(task, fact)
    _forget_derived(task, again - kept, set(items))
    task.open = len(again)
    for name in again:
        run = task.runs[name]
        group = run.group if name in kept else None
        run.reset(len(graph.incoming[name]), len(graph.reads[name]))
        run.group, run.floor, run.born, run.child_of = group, run.peak, fact.generation, goes_on_with.get(name, 0)
        if task.failed:
            task.failed.pop(name, None)
    if task.timeout_sec is not None:
        task.arm(at + task.timeout_sec, Timer.TASK)
    _arm_deadlines(task, fact)
    for name in graph.nodes:
        if name in kept:
            _reopen(task, name, [item for item in items if group_of(item) == name], goes_on_with, at)
        elif name in again:
            _recount(task, name, again, at)
    if not task.open:
        task.consider("")


def _edit(task: Task, ref: str) -> None:
    """Go on with another graph: what it shares with the one before is kept as it is."""
    old, new = task.runs, task.editions[ref]
    before = task.graph
    if new.deadline != before.deadline:
        task.deadline = new.deadline
    runs = Runs(new)
    for name in old:
        if name in new.nodes and dict.__contains__(old, name):
            runs[name] = old[name]
            if conditions(before, name) != conditions(new, name):
                runs[name].routes = None  # decided anew
        elif name not in new.nodes and base_of(name) in new.nodes and name in old.derived:
            runs.put_derived(name, old[name])
    task.graph, task.runs, task.edition = new, runs, ref
    task.failed = {name: None for name in task.failed if name in new.nodes}
    task.done = {name: None for name in task.done if base_of(name) in new.nodes}


def _arm_deadlines(task: Task, fact: f.TaskRestarted) -> None:
    """Those of nodes are told anew where they may have changed."""
    if task.deadline is not None:
        task.arm(task.deadline, Timer.DEADLINE)
    if fact.graph or fact.params is not None:
        task.deadlines = {}
    for name, when in task.deadlines.items():
        task.arm(when, Timer.DEADLINE, name)


def conditions(graph: Graph, name: str) -> list[Edge]:
    """The edges of a node that are decided together once it has ended."""
    return [edge for edge in graph.outgoing[name] if edge.conditional]


def _begin_generation(task: Task, fact: f.TaskRestarted) -> None:
    task.generation, task.status, task.ended_at = fact.generation, TaskStatus.RUNNING, None
    task.for_attempt, task.again = fact.for_attempt or task.for_attempt, None
    task.error, task.reason, task.cancel_outcome, task.cancel_error = None, "", "", None
    task.ended_by, task.undo, task.attempts, task.spent_sec = "", None, 0, 0.0
    for gone in (task.ready, task.gated, task.gated_anew, task.due, task.leased, task.children, task.waiting,
                 task.held, task.agenda, task.joined, task.timers, task.signals, task.memo):  # fmt: skip
        if gone:
            gone.clear()


def _forget_derived(task: Task, bases: set[str], items: set[str]) -> None:
    """What is derived from nodes that begin anew, from items that do, or to undo anything, is no more."""
    gone = bases | items
    for name in list(task.runs.derived):
        owner = group_of(name)
        if base_of(name) in bases or owner in items or name.endswith("/compensate"):
            task.runs.forget(name)
            gone.add(name)
    task.done = {name: None for name in task.done if name not in gone}


def _reopen(task: Task, name: str, items: list[str], goes_on_with: Mapping[str, int], at: float) -> None:
    """Some items of a group run again, and those that never came to exist do so now."""
    run = task.runs[name]
    old = run.group
    assert old is not None
    group = run.group = Group(old.count)
    fresh = set(items)
    group.next, group.items = old.next, old.items
    group.counted = [number for number in old.counted if item_of(name, number) not in fresh]
    group.again = dict.fromkeys(sorted(map(number_of, items), reverse=True))
    run.state, run.started_at = NodeState.RUNNING, at
    if (total := task.node(name).timeouts.total_sec) is not None:
        task.arm(at + total, Timer.TOTAL, name)
    task.open += len(items) + (group.count - group.next)
    for member in lifecycle.members(task, name):
        its = task.runs[member]
        if member in fresh:
            its.reset(0, 0)
            its.child_of = goes_on_with.get(member, 0)
        elif its.state is NodeState.FINISHED:
            group.done += 1
        else:
            group.failed += 1
    lifecycle.release(task, name, at)
    if not group.live:
        task.consider(name)


def _recount(task: Task, name: str, again: set[str], at: float) -> None:
    graph, run = task.graph, task.runs[name]
    for edge in graph.incoming[name]:
        if edge.source in again:
            continue
        if deferred(task, edge):  # its condition was never decided: it is now
            _once(task, edge.source)
        else:
            count(task, edge, run)
    run.unread -= sum(source not in again for source in graph.reads[name])
    reconsider(task, name, run, at)


def _once(task: Task, name: str) -> None:
    if name not in task.agenda:
        task.consider(name)
