"""Rich tasks are legal graphs, and between them they use all that a graph can say."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from flowkit.core.derived import base_of
from flowkit.core.dialect import parse_graph
from flowkit.testing.play import RandomPlay
from flowkit.testing.rich import continued, features, rich
from flowkit.testing.scenario import TaskPlan, plan_task
from flowkit.testing.world import World

EVERY = {
    "conditions", "chosen successors", "maps", "repeat", "sub-graphs", "flows", "task of a flow", "sleep", "signals",
    "functions", "end", "limits", "rates", "cache", "streams", "compensation", "budget", "deadlines", "priority",
}  # fmt: skip


def plans(count: int) -> list[TaskPlan]:
    dice = random.Random(1)
    return [rich(plan_task(dice, number, steered=True), dice) for number in range(count)]


def test_every_rich_graph_is_legal_and_all_features_appear() -> None:
    seen: Counter[str] = Counter()
    for plan in plans(300):
        graph = parse_graph(plan.graph)
        for flow in plan.flows.values():
            parse_graph(flow)
        assert {base_of(name) for name, node in graph.nodes.items() if node.type in ("work", "rows", "sum")} <= set(
            plan.behaviour
        )
        seen.update(features(plan, graph))

    assert set(seen) == EVERY
    assert min(seen.values()) > 10


def test_a_rich_plan_that_was_made_to_go_on_stays_one() -> None:
    dice = random.Random(2)
    plan = rich(continued(plan_task(dice, 0, steered=True), dice), dice)

    assert [node["node_id"] for node in plan.graph["nodes"]].count("child") == 1
    parse_graph(plan.graph)


def test_names_of_flows_are_put_before_they_are_used() -> None:
    for plan in plans(200):
        used = {node["flow"] for node in plan.graph["nodes"] if "flow" in node} | ({plan.flow} if plan.flow else set())
        assert used == set(plan.flows)


def test_what_is_not_rich_is_as_it_was() -> None:
    plan = plan_task(random.Random(1), 0, steered=True)

    assert replace(plan, flow="", flows={}, chosen={}, priority=0) == plan
    assert "rows" not in RandomPlay(World(1)).world.handlers
