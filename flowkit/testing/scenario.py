"""Random small tasks as users might send them: graphs in the dialect, how their nodes behave, what is asked of them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

ROLE = "work"
MAX_ATTEMPTS = 3
Steps = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a node's handler behaves: it runs about `seconds`, fails `fails` times first, and once asks to be tried again
    after `pause` seconds. One that is `hurried` is given too little time and never succeeds."""

    seconds: float
    fails: int = 0
    pause: float = 0.0
    hurried: bool = False

    @property
    def may_fail(self) -> bool:
        return self.hurried or self.fails >= MAX_ATTEMPTS


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task to be submitted at `at`, perhaps by two users at once (`twice`); `steps` are requests, each so many
    seconds after the one before; somebody may `listen`: `wait` for its end, `watch` its events. `flows` are put before,
    by name; the task runs its graph as that of the flow `flow`, if it names one. `chosen` says which successors a
    node's handler names."""

    key: str
    at: float
    graph: dict[str, Any]
    behaviour: dict[str, Behaviour]
    steps: Steps
    twice: bool = False
    listen: str = ""
    flow: str = ""
    flows: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    chosen: Mapping[str, list[str]] = field(default_factory=dict)
    priority: int = 0

    @property
    def params(self) -> dict[str, Any]:
        return {"plan": self.key}


def plan_task(dice: random.Random, number: int, *, steered: bool) -> TaskPlan:
    """One random task; with requests to steer it, if `steered`."""
    graph, behaviour = random_graph(dice)
    steps = random_steps(dice) if steered else []
    at, twice = dice.uniform(1, 12), dice.random() < 0.15
    return TaskPlan(f"t{number}", at, graph, behaviour, steps, twice, dice.choice(("", "wait", "watch")))


def timed(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task with a timeout that none of its generations reaches by itself: it is cancelled and restarted."""
    graph = {**plan.graph, "timeout_sec": 20.0}
    behaviour = {name: replace(was, seconds=dice.uniform(6, 12)) for name, was in plan.behaviour.items()}
    steps = [("cancel", dice.uniform(4, 9)), ("restart", dice.uniform(0.5, 2))]
    return replace(plan, graph=graph, behaviour=behaviour, steps=steps)


def long(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task with nodes that all run for longer than a TTL."""
    behaviour = {name: replace(was, seconds=dice.uniform(14, 24)) for name, was in plan.behaviour.items()}
    return replace(plan, behaviour=behaviour)


def nudged(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task, paused and resumed all the time, so that a commit is often on its way."""
    steps = [("pause" if number % 2 == 0 else "resume", dice.uniform(0.2, 1)) for number in range(30)]
    return replace(plan, steps=steps)


# What may be done to the plans of a world.
CHANGES: dict[str, Callable[[TaskPlan, random.Random], TaskPlan]] = {"timed": timed, "long": long, "nudged": nudged}


def random_steps(dice: random.Random) -> Steps:
    draw, gap = dice.random(), dice.uniform
    if draw < 0.40:
        return []
    if draw < 0.55:
        return [("cancel", gap(0, 12)), (_restart(dice), gap(0, 6))]
    if draw < 0.75:
        return [("pause", gap(0, 10)), ("resume", gap(0, 8))]
    if draw < 0.85:
        return [(_restart(dice), gap(5, 30))]
    if draw < 0.89:
        return [("cancel", gap(1, 20))]
    if draw < 0.93:
        return [("cancel_node", gap(0, 8)), ("cancel_node", gap(0, 8))]
    return [("pause", gap(0, 6)), ("cancel", gap(0, 5)), ("restart", gap(0, 5))]


def _restart(dice: random.Random) -> str:
    return dice.choice(("restart", "restart", "restart_failed", "restart_from"))


def random_graph(dice: random.Random) -> tuple[dict[str, Any], dict[str, Behaviour]]:
    """Two to five nodes: a chain, a diamond, a fan, or anything; joins of every kind, failures that some handle."""
    count = dice.randint(2, 5)
    shape = dice.choice(("chain", "diamond", "fan", "random"))
    nodes: list[dict[str, Any]] = []
    edges: list[Any] = []
    behaviour: dict[str, Behaviour] = {}
    for number in range(count):
        name = f"n{number}"
        parents = _parents(dice, shape, number, count)
        node: dict[str, Any] = {"node_id": name, "type": ROLE, "retry_policy": _retries(dice)}
        behaviour[name] = _behaviour(dice)
        if behaviour[name].hurried:
            node["timeout_sec"] = behaviour[name].seconds / 2
        if len(parents) > 1:
            node |= _join(dice, len(parents))
        for parent in parents:
            edges.append([parent, name] if dice.random() > 0.07 else {"from": parent, "to": name, "on": "end"})
        if parents and "fan_in" not in node and dice.random() < 0.25:
            node["inputs"] = {"got": {"$from": f"{parents[0]}.value"}, "plan": {"$param": "plan"}, "as": "template"}
        if dice.random() < 0.07:
            node["continue_on_failure"] = True
        nodes.append(node)
    graph: dict[str, Any] = {"name": shape, "nodes": nodes, "edges": edges}
    if dice.random() < 0.1:
        graph["fail_fast"] = True
    if dice.random() < 0.05:
        graph["timeout_sec"] = dice.uniform(2, 30)
    return graph, behaviour


def _parents(dice: random.Random, shape: str, number: int, count: int) -> list[str]:
    last = count - 1
    if number == 0:
        return []
    if shape == "chain":
        return [f"n{number - 1}"]
    if shape == "diamond":
        return ["n0"] if number < last else [f"n{n}" for n in range(1, last)] or ["n0"]
    if shape == "fan":
        return [] if number < last else [f"n{n}" for n in range(last)]
    return sorted(dice.sample([f"n{n}" for n in range(number)], dice.randint(1, min(2, number))))


def _join(dice: random.Random, parents: int) -> dict[str, Any]:
    draw = dice.random()
    if draw < 0.6:
        return {}
    join: dict[str, Any] = {"fan_in": "any"} if draw < 0.8 else {"fan_in": {"count": dice.randint(1, parents)}}
    if dice.random() < 0.3:
        join["losers"] = "cancel"
    return join


def _retries(dice: random.Random) -> dict[str, Any]:
    # Lost workers are the storm's doing: a task that fails for them would hide what the storm is to show.
    return {"max": MAX_ATTEMPTS, "backoff_sec": 0.5, "factor": 2, "jitter": dice.random() < 0.5, "lost_max": 100}


def _behaviour(dice: random.Random) -> Behaviour:
    pause = dice.uniform(1, 15) if dice.random() < 0.12 else 0.0
    seconds = dice.choice((dice.uniform(0.02, 0.4), dice.uniform(0.5, 3), dice.uniform(3, 24)))
    draw = dice.random()
    fails = 0 if draw < 0.75 else 1 if draw < 0.88 else 2 if draw < 0.96 else MAX_ATTEMPTS
    return Behaviour(seconds, 0 if pause else fails, pause, hurried=not pause and dice.random() < 0.03)


# What a node gives: a value that its inputs determine, beside the number of the run, which tells one run from another.


def value_of(node: str, inputs: Any) -> int:
    return zlib.crc32(repr((node, _values(inputs))).encode())


def _values(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        if "value" in inputs and "run" in inputs:
            return inputs["value"]
        return sorted((key, _values(item)) for key, item in inputs.items())
    return inputs


def fits(task_id: str, node: str, inputs: Any, output: Any) -> bool:
    """Whether an output is what this node makes of these inputs."""
    return isinstance(output, dict) and output.get("value") == value_of(node, inputs)
