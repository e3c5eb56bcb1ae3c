"""What is told of two graphs that differ."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.dialect import normalise
from flowkit.core.graph_diff import Change, EdgeChange, GraphDiff, diff_graphs
from tests.core.builders import edge, graph, node


def diff(old: dict[str, Any], new: dict[str, Any]) -> GraphDiff:
    return diff_graphs(normalise(old), normalise(new))


def test_a_graph_does_not_differ_from_itself() -> None:
    one = graph(node("a"), node("b", "a", inputs={"x": {"$from": "a.y"}}), name="g")
    assert diff(one, one) == GraphDiff("old", "new", same=True)


def test_two_ways_to_write_one_graph_are_the_same() -> None:
    assert diff(graph(node("a"), node("b", "a")), graph(node("a"), node("b"), edges=[["a", "b"]])).same


def test_nodes_and_edges_come_and_go() -> None:
    found = diff(graph(node("a"), node("b", "a"), node("c", "b")), graph(node("a"), node("c", "a"), node("d", "c")))

    assert (found.nodes_added, found.nodes_removed, found.nodes_changed) == (("d",), ("b",), ())
    assert set(found.edges_added) == {("a", "c"), ("c", "d")}
    assert set(found.edges_removed) == {("a", "b"), ("b", "c")}
    assert not found.same


def changes_of(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    (changed,) = diff(graph(old), graph(new)).nodes_changed
    assert changed.node_id == "a"
    return changed.changes


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ({"inputs": {"url": "x"}}, {"inputs": {"url": "y"}}, Change("inputs.url", "changed", "x", "y")),
        ({"inputs": {"d": {"n": 1}}}, {"inputs": {"d": {}}}, Change("inputs.d.n", "removed", old=1)),
        ({"inputs": {}}, {"inputs": {"more": None}}, Change("inputs.more", "added", new=None)),
        ({"inputs": {"l": [1, 2]}}, {"inputs": {"l": [1, 3]}}, Change("inputs.l", "changed", [1, 2], [1, 3])),
        ({"inputs": {"x": 1}}, {"inputs": {"x": True}}, Change("inputs.x", "changed", 1, True)),
        ({}, {"meta": {"by": "ann"}}, Change("meta", "added", new={"by": "ann"})),
        ({"meta": {"by": "ann"}}, {}, Change("meta", "removed", old={"by": "ann"})),
        ({"type": "one"}, {"type": "two"}, Change("type", "changed", "one", "two")),
        (
            {"inputs": {"x": {"$param": "p"}}},
            {"inputs": {"x": {"$param": "q"}}},
            Change("inputs.x", "changed", {"$param": "p"}, {"$param": "q"}),
        ),
    ],
)
def test_a_node_tells_which_key_changed_from_what_to_what(old: Any, new: Any, change: Change) -> None:
    assert changes_of(node("a", **old), node("a", **new)) == (change,)


def test_an_edge_tells_what_changed_in_it() -> None:
    nodes = [node("a"), node("b")]
    old = graph(*nodes, edges=[edge("a", "b")])
    new = graph(*nodes, edges=[edge("a", "b", "failure") | {"meta": {"why": "x"}}])

    assert diff(old, new).edges_changed == (
        EdgeChange(
            "a", "b", (Change("on", "changed", "success", "failure"), Change("meta", "added", new={"why": "x"}))
        ),
    )
    assert (diff(old, new).edges_added, diff(old, new).edges_removed) == ((), ())


def test_the_graph_tells_what_changed_in_its_own_keys() -> None:
    found = diff(graph(node("a"), name="one", fail_fast=True), graph(node("a"), name="two", meta={"n": 1}))

    assert set(change.key for change in found.changes) == {"name", "fail_fast", "meta"}
    assert Change("name", "changed", "one", "two") in found.changes
    assert (found.nodes_changed, found.same) == ((), False)


def test_another_order_is_no_change_and_not_the_same() -> None:
    found = diff(graph(node("a"), node("b")), graph(node("b"), node("a")))
    assert found == GraphDiff("old", "new", same=False)


def test_the_order_of_keys_means_nothing() -> None:
    one, other = {"inputs": {"x": [{"a": 1, "b": 2}]}}, {"inputs": {"x": [{"b": 2, "a": 1}]}}
    assert diff(graph(node("a", **one)), graph(node("a", **other))).nodes_changed == ()


def test_the_two_are_called_as_one_wishes() -> None:
    one = normalise(graph(node("a")))
    found = diff_graphs(one, one, names=("etl@1", "etl@2"))
    assert (found.old, found.new) == ("etl@1", "etl@2")
