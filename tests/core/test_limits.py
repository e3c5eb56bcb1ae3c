"""What users may write as `limits`, and what they are told otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.graph import Limit
from flowkit.core.limits import check_params
from flowkit.core.problems import Problems
from flowkit.errors import GraphError
from tests.core.builders import graph, node


def read(*entries: Any, **more: Any) -> tuple[Limit, ...]:
    return parse_graph(graph(node("a", limits=list(entries), **more))).nodes["a"].limits


def problems(*entries: Any, **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(GraphError) as caught:
        read(*entries, **more)
    return [(problem.code, problem.place) for problem in caught.value.problems]


def test_a_limit_is_how_many_at_a_time_or_how_many_per_time() -> None:
    assert read({"key": "db:{tenant}", "max": 3, "weight": 2}, {"key": "api", "rate": 10, "per_sec": 60}) == (
        Limit("db:{tenant}", most=3, weight=2),
        Limit("api", rate=10, per_sec=60),
    )
    assert read({"key": "api", "rate": 2.5, "burst": 4}) == (Limit("api", rate=2.5, burst=4),)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (
            [{"key": "k", "max": 0}],
            "nodes[0].limits[0].max: expected a whole number from 1, at most 1,000,000, found 0",
        ),
        ([{"key": "k", "rat": 10}], "nodes[0].limits[0].rat: a limit has no key 'rat' (did you mean 'rate'?)"),
        ([{"key": "k", "limit": 3}], "nodes[0].limits[0].limit: a limit has no key 'limit'; write `max`"),
        ([{"key": "k", "rate": 1, "per": 9}], "nodes[0].limits[0].per: a limit has no key 'per'; write `per_sec`"),
        ({"key": "k", "max": 1}, "nodes[0].limits: expected a list of limits, found an object; write [{...}]"),
        ("k", "nodes[0].limits: expected a list of limits, found 'k'"),
    ],
)
def test_one_mistake_is_one_problem(limits: Any, says: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_graph(graph(node("a", limits=limits)))
    assert [f"{problem.place}: {problem.message}" for problem in caught.value.problems] == [says]


def test_a_graph_knows_whether_anything_in_it_is_limited() -> None:
    assert parse_graph(graph(node("a"), node("b", limits=[{"key": "k", "max": 1}]))).limited
    assert not parse_graph(graph(node("a"), node("b", limits=[]))).limited


def test_limits_are_stored_as_they_were_written() -> None:
    said = [{"key": "k:{params.who}", "max": 3}, {"key": "k", "rate": 1, "x-note": "mine"}]
    normal = normalise(graph(node("a", limits=said)))
    assert normal["nodes"][0]["limits"] == said
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("entry", "code", "place"),
    [
        ({"max": 1}, "E_KEY_MISSING", "nodes[0].limits[0]"),
        ({"key": "k"}, "E_LIMIT", "nodes[0].limits[0]"),
        ({"key": "k", "max": 1, "rate": 1}, "E_LIMIT", "nodes[0].limits[0]"),
        ({"key": "k", "max": 1, "burst": 2}, "E_LIMIT", "nodes[0].limits[0].burst"),
        ({"key": "k", "max": 1, "per_sec": 2}, "E_LIMIT", "nodes[0].limits[0].per_sec"),
        ({"key": "k", "max": 2, "weight": 3}, "E_LIMIT", "nodes[0].limits[0].weight"),
        ({"key": "k", "rate": 2, "weight": 3}, "E_LIMIT", "nodes[0].limits[0].weight"),
        ({"key": "k", "max": 2001}, "E_LIMIT", "nodes[0].limits[0].max"),
        ({"key": "k", "max": 0}, "E_RANGE", "nodes[0].limits[0].max"),
        ({"key": "k", "max": 1.5}, "E_RANGE", "nodes[0].limits[0].max"),
        ({"key": "k", "rate": 0}, "E_RANGE", "nodes[0].limits[0].rate"),
        ({"key": "", "max": 1}, "E_LIMIT_KEY", "nodes[0].limits[0].key"),
        ({"key": "k:{tenants}", "max": 1}, "E_LIMIT_KEY", "nodes[0].limits[0].key"),
        ({"key": "k:{params}", "max": 1}, "E_LIMIT_KEY", "nodes[0].limits[0].key"),
        ({"key": "k:{params.a.}", "max": 1}, "E_LIMIT_KEY", "nodes[0].limits[0].key"),
        ({"key": "k}", "max": 1}, "E_LIMIT_KEY", "nodes[0].limits[0].key"),
        ({"key": 5, "max": 1}, "E_TYPE", "nodes[0].limits[0].key"),
        ({"key": "k", "maxx": 1}, "E_KEY_UNKNOWN", "nodes[0].limits[0].maxx"),
        ("k", "E_TYPE", "nodes[0].limits[0]"),
    ],
)
def test_what_makes_no_limit_is_refused_with_its_place(entry: Any, code: str, place: str) -> None:
    assert (code, place) in problems(entry)


def test_a_heavy_weight_lets_a_large_max_be() -> None:
    assert read({"key": "memory_mb", "max": 64_000, "weight": 2_000})[0].most == 64_000


def test_one_key_twice_is_refused_but_a_max_and_a_rate_may_share_one() -> None:
    assert problems({"key": "k", "max": 1}, {"key": "k", "max": 2}) == [("E_LIMIT", "nodes[0].limits[1].key")]
    assert len(read({"key": "k", "max": 1}, {"key": "k", "rate": 2})) == 2


def test_limits_are_a_list() -> None:
    with pytest.raises(GraphError, match="a list of limits"):
        parse_graph(graph(node("a", limits={"key": "k", "max": 1})))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"who": "x"}, ""),
        ({"who": 5}, ""),
        ({}, "is not there"),
        ({"who": None}, "is not there"),
        ({"who": [1]}, "is a list"),
    ],
)
def test_params_in_keys_are_there_and_make_text(params: dict[str, Any], said: str) -> None:
    found = Problems()
    check_params(parse_graph(graph(node("a"), node("b", limits=[{"key": "{params.who}", "max": 1}]))), params, found)
    if not said:
        found.raise_any()
        return
    with pytest.raises(GraphError, match=said) as caught:
        found.raise_any()
    assert [(p.code, p.place) for p in caught.value.problems] == [("E_LIMIT_PARAM", "nodes[1].limits[0].key")]


def test_params_in_keys_may_make_two_keys_one() -> None:
    limits = [{"key": "db:{params.a}", "max": 1}, {"key": "db:{params.b}", "max": 1}]
    found = Problems()
    check_params(parse_graph(graph(node("a", limits=limits))), {"a": "x", "b": "x"}, found)
    with pytest.raises(GraphError, match="same key"):
        found.raise_any()
