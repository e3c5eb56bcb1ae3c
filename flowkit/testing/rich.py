"""Makes a random task use all that a graph can say: conditions, items, repetitions, sub-graphs, sleeps, signals,
variables, and nodes that are undone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from flowkit.testing.scenario import MAX_ATTEMPTS, ROLE, Behaviour, TaskPlan
from flowkit.testing.stage import EPOCH

CHILD_NODES = ("k0", "k1")
ASKED_AGAIN = ("restart_failed", "restart_failed", "restart_failed", "restart_child", "cancel")
QUICK_RETRIES = {"max": 3, "backoff_sec": 0.5, "lost_max": 100}


def rich(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task with a graph that says more."""
    groups: set[str] = set()
    # What `continued` made of it stays.
    nodes = [node if node["type"] == "task" else _node(dict(node), dice, groups) for node in plan.graph["nodes"]]
    edges = [_edge(edge, dice, groups) for edge in plan.graph["edges"]]
    behaviour = {name: replace(was, seconds=min(was.seconds, 4.0)) for name, was in plan.behaviour.items()}
    steps = list(plan.steps)
    for extra in (_sleep, _signal, _child, _count, _stop):
        if dice.random() < 0.35 and not (extra is _child and "child" in behaviour):
            extra(nodes, edges, dice)
    if any(node["type"] == "signal" for node in nodes):
        steps.append(("signal", dice.uniform(0, 10)))
    if "child" not in behaviour:
        behaviour |= {name: _within(dice) for name in CHILD_NODES}
        fails = any(behaviour[name].may_fail for name in CHILD_NODES)
        behaviour |= {name: Behaviour(0.0, MAX_ATTEMPTS if fails else 0) for name in ("child", "deep")}
        if fails and any(node["node_id"] == "child" for node in nodes):
            # What failed in a child is asked for again, until it has had its fill of failures.
            steps += [(dice.choice(ASKED_AGAIN), dice.uniform(4, 25)) for _ in range(dice.randint(1, 4))]
    graph = {**plan.graph, "nodes": nodes, "edges": edges}
    if dice.random() < 0.1:
        graph["budget"] = {"attempts": dice.randint(3, 12)}
    if dice.random() < 0.15:
        _deadline(graph, nodes, EPOCH + plan.at + dice.uniform(3, 40), dice)
    return replace(plan, graph=graph, behaviour=behaviour, steps=steps)


def continued(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task with a sub-graph that fails at first, whose failed part is asked for until it finishes."""
    nodes, edges = list(plan.graph["nodes"]), list(plan.graph["edges"])
    _child(nodes, edges, dice)
    behaviour = {name: replace(was, seconds=min(was.seconds, 1.0)) for name, was in plan.behaviour.items()}
    behaviour["k0"] = Behaviour(dice.uniform(0.02, 0.5))
    behaviour["k1"] = Behaviour(dice.uniform(0.02, 0.5), dice.choice((MAX_ATTEMPTS, MAX_ATTEMPTS + 1)))
    behaviour |= {name: Behaviour(0.0, MAX_ATTEMPTS) for name in ("child", "deep")}
    steps = [(dice.choice(ASKED_AGAIN), dice.uniform(4, 9)) for _ in range(dice.randint(2, 5))]
    return replace(plan, graph={**plan.graph, "nodes": nodes, "edges": edges}, behaviour=behaviour, steps=steps)


def _node(node: dict[str, Any], dice: random.Random, groups: set[str]) -> dict[str, Any]:
    draw = dice.random()
    if draw < 0.3:
        groups.add(node["node_id"])
        node |= _items(dice)
    elif draw < 0.45:
        wait = dice.choice((0, dice.uniform(0.2, 3)))
        node["repeat"] = {"until": "output.run % 2 == 0", "every_sec": wait, "max": dice.randint(1, 4)}
    if dice.random() < 0.2:
        node["when"] = dice.choice(("task.generation % 2 == 0", "size(params.plan) > 1", "has(params.nothing)"))
    if dice.random() < 0.3:
        node["compensate"] = {"type": ROLE, "retry_policy": QUICK_RETRIES}
    return node


def _items(dice: random.Random) -> dict[str, Any]:
    said: dict[str, Any] = {"foreach": [*range(dice.randint(0, 4))], "inputs": {"i": {"$item": ""}}}
    if dice.random() < 0.4:
        said["max_parallel"] = dice.randint(1, 2)
    if dice.random() < 0.3:
        said["gather"] = "any" if dice.random() < 0.5 else {"count": 2}
        said["losers"] = dice.choice(("ignore", "cancel"))
    if dice.random() < 0.3:
        said["on_item_failure"] = "collect"
    return said


def _edge(edge: Any, dice: random.Random, groups: set[str]) -> Any:
    if not isinstance(edge, list) or dice.random() > 0.25:
        return edge
    source, target = edge
    if dice.random() < 0.3:
        return {"from": source, "to": target, "otherwise": True}
    condition = "size(output) > 1" if source in groups else "output.run % 3 != 0"
    return {"from": source, "to": target, "when": condition}


def _deadline(graph: dict[str, Any], nodes: list[Any], at: float, dice: random.Random) -> None:
    """The task, or one of its nodes, must have ended at some moment."""
    if dice.random() < 0.3:
        graph["deadline"] = at
    else:
        place = dice.randrange(len(nodes))
        nodes[place] = {**nodes[place], "deadline": dice.choice((at, {"$expr": f"{at!r}"}))}


def _sleep(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    nodes.append({"node_id": "sleep", "type": "sleep", "inputs": {"seconds": dice.uniform(0.1, 15)}})
    edges.append(["n0", "sleep"])


def _signal(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    limit = {"total_sec": dice.uniform(5, 30)}
    nodes.append({"node_id": "ask", "type": "signal", "inputs": {"name": "go"}, "timeouts": limit})
    if dice.random() < 0.5:
        edges.append(["n0", "ask"])


def _within(dice: random.Random) -> Behaviour:
    """How a node of a child behaves: it may fail a generation or two before it succeeds."""
    return Behaviour(dice.uniform(0.02, 2), dice.choice((0, 0, 0, 1, MAX_ATTEMPTS, MAX_ATTEMPTS + 1)))


def _child(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    inside: list[Any] = [{"node_id": name, "type": ROLE, "retry_policy": QUICK_RETRIES} for name in CHILD_NODES]
    graph: dict[str, Any] = {"name": "child", "nodes": inside, "edges": [["k0", "k1"]]}
    if dice.random() < 0.3:
        deep = _task("deep", {"name": "deep", "nodes": inside, "edges": [["k0", "k1"]]}, dice)
        graph = {"name": "child", "nodes": [{"node_id": "k0", "type": ROLE, "retry_policy": QUICK_RETRIES}, deep],
                 "edges": [["k0", "deep"]]}  # fmt: skip
    nodes.append(_task("child", graph, dice))
    if dice.random() < 0.5:
        edges.append(["n0", "child"])


def _task(name: str, graph: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    node: dict[str, Any] = {"node_id": name, "type": "task", "graph": graph, "inputs": {"plan": {"$param": "plan"}}}
    if dice.random() < 0.4:
        node["foreach"] = list(range(dice.randint(0, 3)))
    if dice.random() < 0.15:
        node["retry_policy"] = {"max": 2, "backoff_sec": 0.5}
    return node


def _count(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    call = {"fn": "vars.incr", "fn_args": {"key": "n", "by": 1}}
    nodes.append({"node_id": "count", "type": "coordinator_fn", "io": call, "depends_on": ["n0"]})


def _stop(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    if dice.random() < 0.5:
        nodes.append({"node_id": "stop", "type": "end", "inputs": {"output": 1}, "depends_on": ["n0", "n1"]})


def may_be_late(graph: dict[str, Any]) -> bool:
    """Whether the graph has a deadline, which may have passed before the task is taken."""
    return "deadline" in graph or any("deadline" in node for node in graph["nodes"])
