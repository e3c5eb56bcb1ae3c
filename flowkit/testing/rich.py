"""Makes a random task use all that a graph can say: conditions and chosen successors, items, repetitions, sub-graphs
and flows, sleeps, signals, variables, limits, kept outputs, streams, deadlines, and nodes that are undone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from flowkit.core.graph import Graph
from flowkit.testing.scenario import MAX_ATTEMPTS, ROLE, Behaviour, TaskPlan
from flowkit.testing.stage import EPOCH

CHILD_NODES = ("k0", "k1")
ASKED_AGAIN = ("restart_failed", "restart_failed", "restart_failed", "restart_child", "cancel")
QUICK_RETRIES = {"max": 3, "backoff_sec": 0.5, "lost_max": 100}
PATIENT_RETRIES = {"max": 9, "backoff_sec": 0.5, "lost_max": 100}
INSIDE = "inside"
"""The flow that sub-graphs run which are none of their own."""
SOURCE, READER = "rows", "sum"
"""The roles of nodes that stream: the one counts up to its input `n`, the other wants to read all of it in order."""
FEW = {"key": "few", "max": 2}
LIMITS: tuple[list[dict[str, Any]], ...] = (
    [FEW],
    [FEW, {"key": "plan:{params.plan}", "max": 3, "weight": 2}],
    [FEW, {"key": "rate", "rate": 10, "per_sec": 1, "burst": 2}],
    [{"key": "of:{tenant}", "max": 4, "weight": 2}],
)


def rich(plan: TaskPlan, dice: random.Random) -> TaskPlan:
    """The same task with a graph that says more."""
    groups: set[str] = set()
    # What `continued` made of it stays.
    nodes = [node if node["type"] == "task" else _node(dict(node), dice, groups) for node in plan.graph["nodes"]]
    edges = [_edge(edge, dice, groups) for edge in plan.graph["edges"]]
    behaviour = {name: replace(was, seconds=min(was.seconds, 4.0)) for name, was in plan.behaviour.items()}
    steps = list(plan.steps)
    nodes, chosen = _chosen(nodes, edges, dice)
    for extra in (_sleep, _signal, _child, _count, _stop, _stream):
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
    behaviour |= {name: Behaviour(0.0) for name in (SOURCE, READER)}
    graph = {**plan.graph, "nodes": nodes, "edges": edges}
    if dice.random() < 0.1:
        graph["budget"] = {"attempts": dice.randint(3, 12)}
    if dice.random() < 0.15:
        _deadline(graph, nodes, EPOCH + plan.at + dice.uniform(3, 40), dice)
    flow = plan.key if dice.random() < 0.2 else ""
    flows = ({flow: graph} if flow else {}) | ({INSIDE: CHILD} if any("flow" in node for node in nodes) else {})
    return replace(plan, graph=graph, behaviour=behaviour, steps=steps, flow=flow, flows=flows, chosen=chosen,
                   priority=dice.choice((0, 0, 3)))  # fmt: skip


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
        if dice.random() < 0.3:
            node["compensate"]["limits"] = [FEW]
    if dice.random() < 0.25:
        node["limits"] = dice.choice(LIMITS)
    if dice.random() < 0.2:
        node["priority"] = dice.randint(-2, 2)
    if draw >= 0.45 and dice.random() < 0.25:
        node |= _kept(node["node_id"], dice)
    return node


def _kept(name: str, dice: random.Random) -> dict[str, Any]:
    """Its output hangs on what its key says, and on nothing else: all tasks share what was kept."""
    k = dice.randint(0, 1)
    key = {"key": f"'{name} {k}'", "ttl_sec": dice.choice((2, 60))}
    return {"inputs": {"kept": k}, "cache": key}


def _chosen(nodes: list[Any], edges: list[Any], dice: random.Random) -> tuple[list[Any], dict[str, list[str]]]:
    """Some nodes whose successors all wait for them plainly name those that come next."""
    chosen: dict[str, list[str]] = {}
    for node in nodes:
        name, kept = node["node_id"], "cache" in node
        after = [edge for edge in edges if (edge[0] if isinstance(edge, list) else edge["from"]) == name]
        plain = after and all(isinstance(edge, list) for edge in after)
        if (
            plain
            and not (kept or "foreach" in node or "repeat" in node or node["type"] != ROLE)
            and dice.random() < 0.25
        ):
            targets = [edge[1] for edge in after]
            chosen[name] = sorted(dice.sample(targets, dice.randint(0, len(targets))))
    return nodes, chosen


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


INSIDE_NODES: list[Any] = [{"node_id": name, "type": ROLE, "retry_policy": QUICK_RETRIES} for name in CHILD_NODES]
CHILD: dict[str, Any] = {"name": "child", "nodes": INSIDE_NODES, "edges": [["k0", "k1"]]}


def _child(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    graph = CHILD
    if dice.random() < 0.3:
        deep = _task("deep", {"name": "deep", "nodes": INSIDE_NODES, "edges": [["k0", "k1"]]}, dice)
        graph = {"name": "child", "nodes": [{"node_id": "k0", "type": ROLE, "retry_policy": QUICK_RETRIES}, deep],
                 "edges": [["k0", "deep"]]}  # fmt: skip
    nodes.append(_task("child", graph, dice))
    if dice.random() < 0.5:
        edges.append(["n0", "child"])


def _task(name: str, graph: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    node: dict[str, Any] = {"node_id": name, "type": "task", "graph": graph, "inputs": {"plan": {"$param": "plan"}}}
    if name == "child" and dice.random() < 0.3:
        del node["graph"]
        node["flow"] = INSIDE
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


def _stream(nodes: list[Any], edges: list[Any], dice: random.Random) -> None:
    n, stream = dice.randint(1, 20), {"max_batches": dice.choice((1, 5, 20))}
    inputs = {"n": n, "rows": {"$stream": SOURCE}}
    reader = {"node_id": READER, "type": READER, "inputs": inputs, "retry_policy": PATIENT_RETRIES}
    if dice.random() < 0.7:
        reader["start_when"] = "first_batch"
    nodes.append(
        {"node_id": SOURCE, "type": SOURCE, "inputs": {"n": n}, "stream": stream, "retry_policy": PATIENT_RETRIES}
    )
    nodes.append(reader)
    if dice.random() < 0.5:
        edges.append(["n0", SOURCE])


def features(plan: TaskPlan, graph: Graph) -> set[str]:
    """What a plan's graph, as read, makes use of."""
    nodes = list(graph.nodes.values())
    types = {node.type for node in nodes}
    said = {
        "conditions": bool(graph.choices) or any(node.when for node in nodes),
        "chosen successors": bool(plan.chosen),
        "maps": any(node.foreach for node in nodes),
        "repeat": any(node.repeat for node in nodes),
        "sub-graphs": any(node.child for node in nodes),
        "flows": any(node.flow for node in nodes),
        "task of a flow": bool(plan.flow),
        "sleep": "sleep" in types,
        "signals": bool(graph.signals),
        "functions": "coordinator_fn" in types,
        "end": "end" in types,
        "limits": any(limit.most for node in nodes for limit in node.limits),
        "rates": any(limit.rate for node in nodes for limit in node.limits),
        "cache": any(node.cache for node in nodes),
        "streams": bool(graph.stream_readers),
        "compensation": graph.compensates,
        "budget": graph.budget is not None,
        "deadlines": graph.deadline is not None or bool(graph.deadlines),
        "priority": plan.priority > 0,
    }
    return {name for name, used in said.items() if used}


def may_be_late(graph: dict[str, Any]) -> bool:
    """Whether the graph has a deadline, which may have passed before the task is taken."""
    return "deadline" in graph or any("deadline" in node for node in graph["nodes"])
