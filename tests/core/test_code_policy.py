"""Policies for code: what is asked for is held against every rule, and no rule loosens another."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import code_policy
from flowkit.core.code_policy import CodePolicies, CodeRule, bounded, breaches, check_graph, inherited, stricter_lane
from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.lane import Demand, Lane
from flowkit.core.problems import Problems
from flowkit.errors import GraphError

POLICIES = CodePolicies(
    {"memory_mb": 1024},
    {"acme": {"level": "L3", "network": ["*.example.com:443"]}, "team-*": {"cpu": 2}},
    {"etl*": {"secrets": ["DB_*"], "memory_mb": 512}, "*": {"wall_sec": 60}},
)


def node(name: str = "a", **said: Any) -> dict[str, Any]:
    return {"node_id": name, "type": "code", "code": {"source": "def main(inputs): ..."}, **said}


def problems_of(graph: dict[str, Any], tenant: str = "acme", flow: str = "") -> list[tuple[str, str]]:
    problems = Problems()
    check_graph(parse_graph(graph), POLICIES.of(tenant, flow), parse_graph, problems)
    try:
        problems.raise_any()
    except GraphError as error:
        assert {one.code for one in error.problems} == {"E_POLICY"}
        return [(one.place, one.message) for one in error.problems]
    return []


@pytest.mark.parametrize(("tenant", "flow", "origins"), [
    ("acme", "", ["all code", "tenant 'acme'", "flow '*'"]),
    ("team-7", "etl@3", ["all code", "tenant 'team-*'", "flow 'etl*'", "flow '*'"]),
    ("other", "load", ["all code", "flow '*'"]),
])  # fmt: skip
def test_all_policies_hold_whose_names_fit(tenant: str, flow: str, origins: list[str]) -> None:
    for _ in range(2):  # the second time it is known
        rules = POLICIES.of(tenant, flow)
        assert [rule.origin.removeprefix("the policy of ") for rule in rules] == origins


@pytest.mark.parametrize(("said", "tenant", "flow", "place", "words"), [
    ({"sandbox": {"level": "L1"}}, "acme", "", "sandbox.level",
     "the code asks for level L1 at least, and the policy of tenant 'acme' for L3: write that, or nothing"),
    ({"sandbox": {"memory_mb": 2048}}, "x", "", "sandbox.memory_mb",
     "the code asks for 2048 MiB of memory, and the policy of all code allows 1024 at most"),
    ({"sandbox": {"memory_mb": 600}}, "x", "etl", "sandbox.memory_mb", "the policy of flow 'etl*' allows 512 at most"),
    ({"on_oom": {"max_mb": 4096}}, "x", "", "on_oom.max_mb", "asks for 4096 MiB of memory"),
    ({"sandbox": {"cpu": 4}}, "team-1", "", "sandbox.cpu", "asks for 4 cores, and the policy of tenant 'team-*'"),
    ({"sandbox": {"wall_sec": 61}}, "x", "", "sandbox.wall_sec", "asks for 61 seconds, and"),
    ({"sandbox": {"network": ["api.example.com:80"]}}, "acme", "", "sandbox.network",
     "asks for the address 'api.example.com:80', and the policy of tenant 'acme' allows only *.example.com:443"),
    ({"secrets": ["DB_PASSWORD", "API_KEY@2"]}, "x", "etl", "secrets",
     "asks for the secret 'API_KEY@2', and the policy of flow 'etl*' allows only DB_*"),
])  # fmt: skip
def test_what_asks_for_too_much_is_named_with_its_place(
    said: dict[str, Any], tenant: str, flow: str, place: str, words: str
) -> None:
    plain = {"nodes": [node(**said)]}
    ((found, message),) = problems_of(plain, tenant, flow)
    assert found == f"nodes[0].{place}"
    assert words in message

    inside = {"nodes": [{"node_id": "t", "type": "task", "foreach": [1], "graph": plain}]}
    ((found, _),) = problems_of(inside, tenant, flow)
    assert found == f"nodes[0].graph.nodes[0].{place}"


def test_what_asks_for_as_much_as_it_may_passes_and_so_does_what_says_nothing() -> None:
    most = {"level": "L3", "memory_mb": 512, "wall_sec": 60, "network": ["api.example.com:443"]}
    assert problems_of({"nodes": [node(sandbox=most, secrets=["DB_X@1"]), node("b")]}, "acme", "etl") == []
    assert problems_of({"nodes": [{"node_id": "a", "type": "greet"}]}) == []


def test_a_graph_may_say_of_itself_only_what_is_stricter() -> None:
    """Its own policy is one more rule; the operator's holds all the same."""
    graph = {"nodes": [node(sandbox={"memory_mb": 600})], "policy": {"memory_mb": 4096}}
    assert problems_of(graph, "x", "load") == []
    assert "the graph's `policy` allows 300" in problems_of({**graph, "policy": {"memory_mb": 300}}, "x", "load")[0][1]
    assert len(problems_of(graph, "x", "etl")) == 1
    assert normalise({**graph, "policy": [{"memory_mb": 700}, {"network": "none"}]})["policy"] == [
        {"memory_mb": 700}, {"network": "none"},
    ]  # fmt: skip
    with pytest.raises(GraphError, match=r"E_KEY_UNKNOWN at policy.memory: .*memory_mb"):
        parse_graph({**graph, "policy": {"memory": 1}})


def test_what_holds_for_a_graph_holds_for_the_graphs_in_it() -> None:
    child = normalise({"nodes": [node()], "policy": {"cpu": 1}})
    rules = (*POLICIES.of_flow("etl"), *code_policy.own_rules({"level": "L2"}))
    both = inherited(child, rules)
    assert both["policy"] == [{"cpu": 1}, {"secrets": ["DB_*"], "memory_mb": 512}, {"wall_sec": 60}, {"level": "L2"}]
    assert parse_graph(both).policy == both["policy"]
    assert inherited(child, ()) == child


def test_an_empty_list_and_none_allow_nothing_and_what_is_not_said_allows_all() -> None:
    asked = {"network": ["a.example:1"], "secrets": ["KEY"]}
    for nothing in ("none", []):
        rule = CodeRule("it", {"network": nothing, "secrets": nothing})
        assert [key for key, _ in breaches(asked, (rule,))] == ["network", "secrets"]
        assert all(say.endswith("allows none") for _, say in breaches(asked, (rule,)))
    assert list(breaches(asked, (CodeRule("it", {}),))) == []


def test_where_nothing_is_asked_for_it_gets_no_more_than_the_rules_allow() -> None:
    rules = (CodeRule("a", {"memory_mb": 128, "wall_sec": 9}), CodeRule("b", {"memory_mb": 200, "cpu": 0.5}))
    usual = {**code_policy.USUAL, "wall_sec": 300.0}
    assert bounded({}, rules, usual) == {"memory_mb": 128, "wall_sec": 9.0, "cpu": 0.5}
    assert bounded({"memory_mb": 64, "cpu": 0.1, "wall_sec": 3}, rules, usual) == {
        "memory_mb": 64, "cpu": 0.1, "wall_sec": 3,
    }  # fmt: skip
    assert bounded({"cpu": 2}, (), usual) == {"cpu": 2}
    assert bounded({}, (CodeRule("a", {"pids": 900}),), usual) == {"pids": 64}


def test_code_waits_for_a_worker_that_shuts_it_in_far_enough() -> None:
    plain = Lane("code", Demand("code"))
    named = Lane("k", Demand("code", (("flowkit.sandbox", ("L2", "L3")), ("zone", ("eu",)))), 3)
    two, three = (CodeRule("b", {"level": "L2"}),), (CodeRule("b", {"level": "L2"}), CodeRule("a", {"level": "L3"}))

    assert stricter_lane(plain, two) == Lane("code", Demand("code", (("flowkit.sandbox", ("L2", "L3")),)))
    assert stricter_lane(named, three).demand.labels == (("flowkit.sandbox", ("L3",)), ("zone", ("eu",)))
    assert (stricter_lane(named, three).key, stricter_lane(named, three).priority) == ("k", 3)
    assert stricter_lane(plain, ()) is plain
    greet = Lane("greet", Demand("greet"))
    assert stricter_lane(greet, three) is greet
    assert code_policy.who_asks(three) == "a asks for L3 at least"


def test_rules_travel_and_one_that_fails_on_a_leak_is_enough() -> None:
    rules = POLICIES.of("acme", "etl")
    assert code_policy.rules_of(code_policy.rows_of(rules)) == rules
    assert not code_policy.fails_on_leak("cover", rules)
    assert code_policy.fails_on_leak("fail", ())
    assert code_policy.fails_on_leak("cover", (CodeRule("a", {"on_leak": "fail"}),))
