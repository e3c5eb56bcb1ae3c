"""Random tasks are legal graphs of every shape; values follow from inputs."""

from __future__ import annotations

import random
from collections import Counter

from flowkit.core.dialect import parse_graph
from flowkit.testing.scenario import CHANGES, MAX_ATTEMPTS, fits, plan_task, value_of


def test_every_random_graph_is_legal_and_all_kinds_appear() -> None:
    dice = random.Random(1)
    seen: Counter[str] = Counter()
    for number in range(400):
        plan = plan_task(dice, number, steered=True)
        graph = parse_graph(plan.graph)
        assert set(graph.nodes) == set(plan.behaviour)
        seen[graph.name] += 1
        seen["any or count"] += any(node.fan_in.need is not None for node in graph.nodes.values())
        seen["losers"] += any(node.fan_in.cancel_losers for node in graph.nodes.values())
        seen["template"] += any(node.references for node in graph.nodes.values())
        seen["end edge"] += any(edge.on == "end" for edges in graph.incoming.values() for edge in edges)
        seen["fail fast"] += graph.fail_fast
        seen["fails for good"] += any(b.fails >= MAX_ATTEMPTS for b in plan.behaviour.values())
        seen["pauses"] += any(b.pause for b in plan.behaviour.values())
        seen.update(kind for kind, _ in plan.steps)

    kinds = ("chain", "diamond", "fan", "random", "any or count", "losers", "template", "end edge", "fail fast")
    for kind in (*kinds, "fails for good", "pauses", "cancel", "restart", "pause", "resume"):
        assert seen[kind] > 10, kind


def test_plans_can_be_changed_for_a_directed_fault() -> None:
    dice = random.Random(1)
    plan = plan_task(dice, 0, steered=True)

    timed, long, nudged = (CHANGES[name](plan, dice) for name in ("timed", "long", "nudged"))

    assert parse_graph(timed.graph).timeout_sec == 20
    assert [kind for kind, _ in timed.steps] == ["cancel", "restart"]
    assert sum(gap for _, gap in timed.steps) < 20
    assert min(behaviour.seconds for behaviour in long.behaviour.values()) > 10
    assert (long.graph, long.steps) == (plan.graph, plan.steps)
    assert [kind for kind, _ in nudged.steps[:3]] == ["pause", "resume", "pause"]


def test_tasks_that_are_not_steered_are_left_alone() -> None:
    dice = random.Random(1)

    assert all(plan_task(dice, n, steered=False).steps == [] for n in range(20))


def test_a_value_depends_on_the_node_and_the_values_it_got_not_on_the_run() -> None:
    one = {"value": 7, "run": 1}

    assert value_of("a", one) == value_of("a", one | {"run": 2}) != value_of("b", one)
    assert value_of("a", {"x": one, "y": None}) == value_of("a", {"y": None, "x": one | {"run": 9}})
    assert value_of("a", {"x": one}) != value_of("a", {"x": {"value": 8, "run": 1}})


def test_an_output_fits_if_it_is_what_the_node_makes_of_its_inputs() -> None:
    assert fits("t", "a", {"plan": "t0"}, {"value": value_of("a", {"plan": "t0"}), "run": 3})
    assert not fits("t", "a", {"plan": "t1"}, {"value": value_of("a", {"plan": "t0"}), "run": 3})
    assert not fits("t", "a", {}, None)
