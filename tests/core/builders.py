"""A task to play with: driven by reports, kept honest after every step by folding what it recorded anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.bounds import UNBOUNDED, Bounds
from flowkit.core.decide import decide
from flowkit.core.desk import Decision
from flowkit.core.dialect import parse_graph
from flowkit.core.effects import Dispatch, Revoke
from flowkit.core.evolve import evolve
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.core.node_run import FIELDS, Group, Lease, NodeRun
from flowkit.core.payload import Payload
from flowkit.wire.facts import body_of, decode_facts, encode_facts
from flowkit.wire.snapshot import decode_snapshot, encode_snapshot

START = 1000.0


# Graphs.


def node(node_id: str, *parents: str, **more: Any) -> dict[str, Any]:
    """A node of role `work` with an edge from each parent."""
    said = {"node_id": node_id, "type": "work", **more}
    return said | {"depends_on": list(parents)} if parents else said


def edge(source: str, target: str, on: str = "success") -> dict[str, Any]:
    return {"from": source, "to": target, "on": on}


def once(node_id: str, *parents: str, **more: Any) -> dict[str, Any]:
    """A node that is tried once."""
    return node(node_id, *parents, retry_policy={"max": 1}, **more)


def graph(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **more}


def new_task(raw: dict[str, Any] | Graph, *, params: Any = None, timeout_sec: float | None = None) -> Task:
    read = raw if isinstance(raw, Graph) else parse_graph(raw)
    return Task(task_id="t", graph=read, params={} if params is None else params, timeout_sec=timeout_sec)


# States.


def differences(one: Task, other: Task) -> list[str]:
    """Every slot in which two states differ; timers that mean nothing any more are no difference."""
    found = [
        f"{slot}: {a!r} != {b!r}" for slot in Task.__slots__ if (a := _part(one, slot)) != (b := _part(other, slot))
    ]
    for name in one.runs.keys() | other.runs.keys():
        runs = [_run(task.runs[name]) for task in (one, other)]
        found += [
            f"{name}.{slot}: {runs[0][slot]!r} != {runs[1][slot]!r}"
            for slot in runs[0]
            if runs[0][slot] != runs[1][slot]
        ]
    return found


def same_state(one: Task, other: Task) -> bool:
    return not differences(one, other)


def _part(task: Task, slot: str) -> Any:
    match slot:
        case "runs":
            return list(task.runs)
        case "timers":
            return sorted({timer for timer in task.timers if task.timer_live(timer)})
        case "ready":
            return {role: list(names) for role, names in task.ready.items()}
        case "leased" | "failed" | "agenda" | "joined":
            return list(getattr(task, slot))
        case "graph":
            return id(task.graph)
        case "gated_anew":
            return None  # what its owner has yet to look at
        case "memo":  # what was fetched for decisions is no part of the state
            return None
    return getattr(task, slot)


def _run(run: NodeRun) -> dict[str, Any]:
    slots = {name: getattr(run, name) for name in FIELDS}
    lease = slots["lease"]
    group = slots["group"]
    return slots | {
        "lease": lease and {slot: getattr(lease, slot) for slot in Lease.__slots__},
        "group": group and {slot: getattr(group, slot) for slot in Group.__slots__},
    }


def replayed(task: Task, recorded: Iterable[tuple[float, f.Fact]], *, wired: bool = False,
             graph: Graph | None = None) -> Task:  # fmt: skip
    """A new state of the same task, folded from what was recorded; `wired`: after a journey through bytes. `graph` is
    the one that it began with, where that is another."""
    new = Task(
        task_id=task.task_id, graph=graph or task.graph, params=task.params, tenant=task.tenant,
        timeout_sec=task.timeout_sec,
    )  # fmt: skip
    new.editions, new.bounds = dict(task.editions), task.bounds
    for at, fact in recorded:
        for read in decode_facts(body_of(encode_facts([fact]))) if wired else [fact]:
            evolve(new, read, at)
    return new


def through_snapshot(task: Task) -> Task:
    """A new state of the same task, filled from a snapshot of this one."""
    new = Task(
        task_id=task.task_id, graph=task.graph, params=task.params, tenant=task.tenant, timeout_sec=task.timeout_sec
    )
    new.editions, new.bounds = dict(task.editions), task.bounds
    assert decode_snapshot(encode_snapshot(task, 7, "c.7"), new) == (7, "c.7")
    return new


# Driving.


class Play:
    """One task and its history. Tokens are `node#attempt`; `now` moves only by `wait`."""

    def __init__(self, raw: dict[str, Any] | Graph, *, params: Any = None, targets: Sequence[str] = (),
                 timeout_sec: float | None = None, begin: bool = True, bounds: Bounds = UNBOUNDED) -> None:  # fmt: skip
        self.task = new_task(raw, params=params, timeout_sec=timeout_sec)
        self.task.bounds = bounds
        self.now = START
        self.recorded: list[tuple[float, f.Fact]] = []
        self.last = Decision()
        self.requests = 0
        self.first = self.task.graph
        if begin:
            self.tell(r.Accepted(tuple(targets)))

    def tell(self, *reports: r.Report) -> Decision:
        self.last = decide(self.task, reports, self.now)
        self.recorded += [(self.now, fact) for fact in self.last.recorded]
        self.check()
        return self.last

    def check(self) -> None:
        """The fold of what was recorded is the state, and nothing more follows from it (I1); a snapshot keeps it."""
        assert differences(self.task, through_snapshot(self.task)) == []
        replica = replayed(self.task, self.recorded, graph=self.first)
        again = decide(replica, [], self.now)
        assert again.recorded == [] and again.effects == []
        assert differences(self.task, replica) == []

    # What workers and the dispatcher say.

    def place(self, *names: str) -> Decision:
        """Lease the named nodes, or all that are ready."""
        names = names or tuple(self.ready())
        return self.tell(*[r.Placed(n, f"{n}#{self.attempt(n) + 1}", "w", "i", self.now + 10) for n in names])

    def succeed(self, *names: str, output: Any = None, next: Sequence[str] | None = None) -> Decision:
        """The named nodes run and succeed; placed first if need be."""
        self._placed(names)
        chosen = None if next is None else tuple(next)
        return self.tell(*[r.Succeeded(*self.attempt_of(n), Payload(output), chosen, 0.1) for n in names])

    def fail(self, *names: str, code: str = "Oops", **more: Any) -> Decision:
        """The named nodes run and fail."""
        self._placed(names)
        return self.tell(*[r.Failed(*self.attempt_of(n), {"code": code, "message": "no"}, **more) for n in names])

    def fail_for_good(self, *names: str, code: str = "Oops") -> Decision:
        return self.fail(*names, code=code, permanent=True)

    def start(self, name: str) -> Decision:
        self._placed([name])
        return self.tell(r.Started(*self.attempt_of(name)))

    def lose(self, name: str, *, unaccepted: bool = False) -> Decision:
        self._placed([name])
        return self.tell(r.Expired(*self.attempt_of(name), unaccepted))

    def decline(self, name: str) -> Decision:
        self._placed([name])
        return self.tell(r.Declined(*self.attempt_of(name)))

    def release(self, name: str) -> Decision:
        self._placed([name])
        return self.tell(r.Released(*self.attempt_of(name)))

    def _placed(self, names: Iterable[str]) -> None:
        unplaced = [name for name in names if self.task.runs[name].lease is None]
        if unplaced:
            self.place(*unplaced)

    # What callers and time say.

    def wait(self, seconds: float) -> Decision:
        self.now += seconds
        return self.tell(r.TimeReached())

    def ask(self, kind: str, **args: Any) -> str:
        """Make a request; the reason of its refusal, empty if it was accepted."""
        self.requests += 1
        self.tell(r.Requested(self.requests, f"r{self.requests}", kind, args, "ada"))
        return self.task.refusals.get(self.requests, "")

    # What can be seen.

    def attempt(self, name: str) -> int:
        return self.task.runs[name].attempt

    def attempt_of(self, name: str) -> tuple[str, int, str]:
        """What names the current attempt of a node in a report."""
        return name, self.attempt(name), f"{name}#{self.attempt(name)}"

    def state(self, name: str) -> str:
        return str(self.task.runs[name].state)

    @property
    def states(self) -> dict[str, str]:
        return {name: self.state(name) for name in self.task.runs}

    @property
    def status(self) -> str:
        return str(self.task.status)

    def skipped(self, name: str) -> tuple[str, bool, str]:
        """Reason, whether by failure, and cause of a skipped node."""
        fact = next(
            fact for _, fact in reversed(self.recorded) if isinstance(fact, f.NodeSkipped) and fact.node == name
        )
        return fact.reason, fact.by_failure, fact.cause

    def ready(self) -> list[str]:
        return [name for names in self.task.ready.values() for name in names]

    def dispatches(self) -> dict[str, Dispatch]:
        """The last decision's, by node."""
        return {e.name: e for e in self.last.effects if isinstance(e, Dispatch)}

    def revokes(self) -> dict[str, Revoke]:
        return {e.node: e for e in self.last.effects if isinstance(e, Revoke)}

    def inputs(self, name: str) -> Any:
        """What a ready node is given when it is placed now."""
        self.place(name)
        return self.dispatches()[name].inputs

    def facts(self, kind: type) -> list[Any]:
        return [fact for _, fact in self.recorded if isinstance(fact, kind)]
