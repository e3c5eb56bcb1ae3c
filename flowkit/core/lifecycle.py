"""How the fold moves a node from waiting to its end, and tells whom that concerns: what follows it, the group that it
belongs to, what is undone after it. O(1) per node and edge touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from flowkit.core.derived import base_of, compensation_of, group_of, item_of, number_of, repetition_of
from flowkit.core.graph import SUCCESS
from flowkit.core.model import Task, Timer
from flowkit.core.node_run import Group, NodeRun, NodeState
from flowkit.core.readiness import Start, count, deferred, verdict
from flowkit.core.selection import losers

LOOKAHEAD: Final = 1000
"""So many items of a group exist before they begin: what a dispatcher may want next, and no more."""
CLOSING_GRACE_SEC: Final = 30.0

# ---------------------------------------------------------------------------------------------- beginning


def ready(task: Task, name: str, run: NodeRun, at: float) -> None:
    """Nothing is missing any more: it waits for a worker, or for what its start means to be decided."""
    node = task.node(name)
    timeouts = node.timeouts
    if run.started_at is None and not run.opened and timeouts.total_sec is not None:
        task.arm(at + timeouts.total_sec, Timer.TOTAL, name)
    if run.ready_at is None:  # else its attempt never began, and it has waited since then
        run.ready_at = at
    run.wake = None
    if not (node.plain or run.opened):
        run.state, run.due = NodeState.PENDING, True
        task.due = task.due or {}
        task.due[name] = None
        return
    run.state = NodeState.READY
    task.set_ready(name)
    if timeouts.queued_sec is not None:
        task.arm(run.ready_at + timeouts.queued_sec, Timer.QUEUED, name)


def begin(task: Task, name: str, run: NodeRun, at: float) -> None:
    """It does something for the first time; its group may let the next one come."""
    if run.due:
        run.due = False
        task.due.pop(name, None)
    if run.started_at is not None:
        return
    run.started_at = at
    if name not in task.graph.nodes and (owner := group_of(name)):
        group = task.runs[owner].group
        if group is None:
            return
        if group.again and number_of(name) in group.again:  # it began all the same: an earlier version did not wait
            del group.again[number_of(name)]
            group.live += 1
        else:
            group.idle -= 1
        release(task, owner, at)


def reconsider(task: Task, name: str, run: NodeRun, at: float) -> None:
    """Something that a node waits for was decided."""
    node = task.graph.nodes[name]
    if run.state is not NodeState.PENDING or run.due:
        if node.stream is not None and run.broken:
            task.consider(name)  # it has begun with a first batch, of a stream that is broken now
        return
    match verdict(task, node, run):
        case Start.START:
            if node.fan_in.cancel_losers and run.undecided:
                # Found here, so that a replay, which knows how all went on, finds the same.
                task.joined = task.joined or []
                task.joined.append((name, losers(task, name)))
                task.consider(name)
            ready(task, name, run, at)
        case Start.SKIP:
            task.consider(name)


# ---------------------------------------------------------------------------------------------- ending


def unlease(task: Task, name: str, run: NodeRun) -> None:
    """Nobody works at it, and nothing is waited for."""
    if run.lease is not None:  # then it does not wait for one
        run.lease = None
        task.leased.pop(name, None)
    else:
        task.unset_ready(name)
    if run.due:
        run.due = False
        task.due.pop(name, None)
    if run.child:
        run.child = ""
        task.children.pop(name, None)
    if run.signal:
        waiting = task.waiting[run.signal]
        waiting.pop(name, None)
        if not waiting:
            del task.waiting[run.signal]
        run.signal = ""
    run.stopping = False


def end(task: Task, name: str, run: NodeRun, state: NodeState, at: float) -> None:
    """The node has ended as `state`."""
    unlease(task, name, run)
    run.state, run.ended_at, run.wake = state, at, None
    task.open -= 1
    if run.group is not None:
        close(task, name, run, state, at)
    if state is NodeState.FINISHED and run.error is not None:
        run.error = None
    if task.graph.compensates and state is NodeState.FINISHED and run.group is None:
        _note_done(task, name)

    if name in task.graph.nodes:
        if state is NodeState.FAILED:
            task.failed = task.failed or {}
            task.failed[name] = None
            task.consider(name)
        elif state is NodeState.CANCELLED and task.failed and task.graph.fail_fast:
            task.consider(name)
        tell_successors(task, name, run, at)
    elif owner := group_of(name):
        _member_ended(task, owner, name, run, at)
    elif task.undo is not None:
        undo_next(task, at)


def _note_done(task: Task, name: str) -> None:
    if task.undo is None and task.node(name).compensate is not None:
        task.done = task.done or {}
        task.done.pop(name, None)
        task.done[name] = None


def tell_successors(task: Task, name: str, run: NodeRun, at: float) -> None:
    """Count the end of a node at all that waits for it; a condition has to be decided first."""
    wait = name in task.graph.choices
    surely = not wait and run.state is NodeState.FINISHED and run.next is None
    for edge in task.graph.outgoing[name]:
        if wait and deferred(task, edge):
            run.routes = None
            if not task.agenda or task.agenda[-1] != name:
                task.consider(name)
            continue
        target = task.runs[edge.target]
        if surely and edge.on == SUCCESS:  # nearly every edge: taken, whatever its target needs
            target.undecided -= 1
            target.taken += 1
        else:
            count(task, edge, target)
        reconsider(task, edge.target, target, at)
    for reader in task.graph.readers[name]:
        target = task.runs[reader]
        target.unread -= 1
        reconsider(task, reader, target, at)


def routed(task: Task, name: str, taken: tuple[str, ...], at: float) -> None:
    """The conditional edges of an ended node are decided."""
    run = task.runs[name]
    pending = [edge for edge in task.graph.outgoing[name] if deferred(task, edge)]
    run.routes = taken
    for edge in pending:
        target = task.runs[edge.target]
        count(task, edge, target)
        reconsider(task, edge.target, target, at)


def stop(task: Task, name: str, run: NodeRun, reason: str, at: float, until: float) -> None:
    """It is told to end: at once if nobody works at it; if somebody does, at `until` at the latest."""
    run.reason = reason
    if run.lease is not None:
        run.lease.cancelling = True
        task.arm(until, Timer.GRACE, name)
    elif run.child:
        run.stopping = True  # it ends by itself, since it was asked to: nobody else knows what of it still runs
    elif run.group is not None and run.group.live:
        run.stopping = True
        stop_members(task, name, run, reason, at, until)
        if not run.group.live:
            task.consider(name)
    else:
        end(task, name, run, NodeState.CANCELLED, at)


# ---------------------------------------------------------------------------------------------- groups


def expand(task: Task, name: str, size: int, items: list[Any] | None, at: float) -> None:
    """A node becomes a group of `size` items."""
    run = task.runs[name]
    run.group = Group(size)
    run.group.items = items
    run.state = NodeState.RUNNING
    begin(task, name, run, at)
    task.open += size
    if group_decided(task, name) is None:
        release(task, name, at)
    else:  # there are none, or fewer than it needs
        task.consider(name)


def repeat(task: Task, name: str, number: int, start: float, at: float) -> None:
    """Repetition `number` of a node begins at `start`."""
    run = task.runs[name]
    if run.group is None:
        run.group = Group(0)
        run.state = NodeState.RUNNING
        begin(task, name, run, at)
    group = run.group
    group.count = group.next = number
    group.live += 1
    group.idle += 1
    task.open += 1
    member = repetition_of(name, number)
    again = task.runs.derive(member, task.runs[base_of(name)].floor)
    if start <= at:
        ready(task, member, again, at)
    else:
        again.state, again.wake = NodeState.WAITING, start
        task.arm(start, Timer.RETRY, member)


def release(task: Task, name: str, at: float) -> None:
    """Let as many items of a group exist as may begin."""
    run = task.runs[name]
    group, foreach = run.group, task.node(name).foreach
    if group is None or foreach is None or group.closed or run.stopping:
        return
    most, floor = foreach.most, task.runs[base_of(name)].floor
    while group.idle < LOOKAHEAD and (most is None or group.live < most):
        if group.again:
            member = item_of(name, group.again.popitem()[0])
            its = task.runs[member]
        elif group.next < group.count:
            member = item_of(name, group.next)
            its = task.runs.derive(member, floor)
            group.next += 1
        else:
            return
        group.live += 1
        group.idle += 1
        ready(task, member, its, at)


def _member_ended(task: Task, owner: str, name: str, run: NodeRun, at: float) -> None:
    group_run = task.runs[owner]
    group = group_run.group
    if group is None:
        return
    if group.again and number_of(name) in group.again:
        del group.again[number_of(name)]
    else:
        group.live -= 1
        if run.started_at is None:
            group.idle -= 1
    foreach = task.node(owner).foreach
    if run.state is NodeState.FINISHED:
        group.done += 1
        if foreach is None:
            group.last = run.output
        elif foreach.need is not None and len(group.counted) < foreach.need:
            group.counted.append(number_of(name))
    else:
        group.failed += 1
        if group.first_failed < 0:
            group.first_failed = number_of(name)
    release(task, owner, at)
    if group_run.state is NodeState.RUNNING and (foreach is None or not group.live or group_decided(task, owner)):
        task.consider(owner)


def fill_up(task: Task, name: str, need: int) -> None:
    """A group that has enough without an item which a restart ran again: others that finished count in its place."""
    group = task.runs[name].group
    assert group is not None
    if len(group.counted) >= need:
        return
    known = set(group.counted)
    for index in range(group.next):
        if len(group.counted) >= need:
            return
        if index not in known and task.runs[item_of(name, index)].state is NodeState.FINISHED:
            group.counted.append(index)


def group_decided(task: Task, name: str) -> NodeState | None:
    """How a group of items ends, as far as its items tell; None: not yet."""
    run = task.runs[name]
    group, foreach = run.group, task.node(name).foreach
    assert group is not None
    assert foreach is not None
    if foreach.need is not None:
        if group.done >= foreach.need:
            return NodeState.FINISHED
        return NodeState.FAILED if group.count - group.failed < foreach.need else None
    failing = group.failed and not foreach.collect
    if failing and task.graph.fail_fast:
        return NodeState.FAILED
    if group.done + group.failed < group.count:
        return None
    return NodeState.FAILED if failing else NodeState.FINISHED


def close(task: Task, name: str, run: NodeRun, state: NodeState, at: float) -> None:
    """A group has ended: what of it still runs goes on only if nobody cancels what is not needed any more."""
    group, foreach = run.group, task.node(name).foreach
    assert group is not None
    if state is NodeState.FINISHED and (foreach is None or not foreach.cancel_losers):
        return
    why = f"group {name!r} has ended"
    stop_members(task, name, run, why, at, at + CLOSING_GRACE_SEC, loser=state is NodeState.FINISHED)


def shut(task: Task, group: Group) -> None:
    """No more items of it come to exist."""
    if not group.closed:
        group.closed = True
        task.open -= group.count - group.next


def stop_members(task: Task, name: str, run: NodeRun, reason: str, at: float, until: float, *,
                 loser: bool = False) -> None:  # fmt: skip
    """Tell every item or repetition of a group to end. `loser`: nothing was wrong with it."""
    assert run.group is not None
    shut(task, run.group)
    for member in members(task, name):
        its = task.runs[member]
        if its.ended_at is None and not told_to_end(its):
            its.loser = loser
            stop(task, member, its, reason, at, until)


def members(task: Task, name: str) -> list[str]:
    """The items or repetitions of a group that exist."""
    group = task.runs[name].group
    if group is None:
        return []
    if task.node(name).foreach is not None:
        return [item_of(name, index) for index in range(group.next)]
    return [repetition_of(name, number) for number in range(1, group.next + 1)]


def all_of(task: Task, name: str) -> Iterator[str]:
    """A node, and all that exists of its group."""
    yield name
    for member in members(task, name):
        yield from all_of(task, member)


def told_to_end(run: NodeRun) -> bool:
    return run.stopping or (run.lease is not None and run.lease.cancelling)


# ---------------------------------------------------------------------------------------------- undoing


def undo_next(task: Task, at: float) -> None:
    """The next of what is to be undone, the last that was done first."""
    if task.undo:
        name = compensation_of(task.undo.pop())
        ready(task, name, task.runs.derive(name, task.runs[base_of(name)].floor), at)
