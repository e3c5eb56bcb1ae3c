"""What is read from a graph, what is refused and how, and that nothing else can happen."""

from __future__ import annotations

import enum
import gc
import json
import re
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.core import keys
from flowkit.core.dialect import normalise, parse_graph, read_graph
from flowkit.core.graph import MISSING, Edge, FanIn, Reference, RetryPolicy, RetryRule, Timeouts
from flowkit.core.problems import MAX_PROBLEMS
from flowkit.errors import GraphError
from tests.core.graphs import anything, broken_graphs, graph, node, problems_of, strange, valid_graphs
from tests.thorough import at_night

# What is read.


def test_the_readmes_first_graph_is_read() -> None:
    read = parse_graph(
        {
            "nodes": [
                {"node_id": "hi", "type": "greet"},
                {"node_id": "loud", "type": "shout", "depends_on": ["hi"]},
            ]
        }
    )

    assert list(read.nodes) == ["hi", "loud"]
    assert read.nodes["loud"].type == "shout"
    assert read.nodes["hi"].inputs is MISSING
    assert read.incoming == {"hi": (), "loud": (Edge("hi", "loud"),)}
    assert read.outgoing == {"hi": (Edge("hi", "loud"),), "loud": ()}
    assert read.reads == read.readers == {"hi": (), "loud": ()}
    assert read.leaves == ("loud",)
    assert not read.fail_fast and read.timeout_sec is None and read.output is MISSING


def test_a_graph_of_the_old_documents_is_read() -> None:
    read = parse_graph(
        {
            "schema_version": "1.0",
            "nodes": [
                {
                    "node_id": "p",
                    "type": "processor",
                    "depends_on": [],
                    "fan_in": "all",
                    "io": {"input_inline": {"data": "hello world"}, "start_when": "ready"},
                    "retry_policy": {"max": 2, "backoff_sec": 300, "permanent_on": ["bad_input"]},
                    "status": None,
                    "attempt_epoch": 0,
                    "lease": {},
                    "stats": {},
                    "streaming": {},
                    "started_at": None,
                    "finished_at": None,
                    "last_event_recv_ms": 0,
                    "next_retry_at_ms": None,
                }
            ],
            "edges": [],
            "edges_ex": [],
        }
    )

    assert read.nodes["p"].inputs == {"data": "hello world"}
    assert read.nodes["p"].constant
    assert read.nodes["p"].io is None
    assert read.nodes["p"].retry == RetryPolicy(2, 300, cap_sec=300, permanent_on=("bad_input",))


def test_the_graphs_own_keys_are_read() -> None:
    read = parse_graph(
        graph(
            node("a"),
            name="etl",
            fail_fast=True,
            timeout_sec=30,
            meta={"owner": "me"},
            output={"rows": {"$from": "a.rows"}},
        )
    )

    assert (read.name, read.fail_fast, read.timeout_sec, read.meta) == ("etl", True, 30, {"owner": "me"})
    assert read.output == {"rows": {"$from": "a.rows"}}
    assert read.output_references == (Reference("a", ("rows",)),)


@pytest.mark.parametrize("version", ["1", "1.0", "2", "2.0", "2.12", None])
def test_known_schema_versions_are_read(version: str | None) -> None:
    assert parse_graph(graph(node("a"), schema_version=version)).nodes


def test_what_a_node_leaves_out_is_shared_with_all_others() -> None:
    one, two = parse_graph(graph(node("a"), node("b"))).nodes.values()

    assert one.retry is two.retry and one.timeouts is two.timeouts and one.fan_in is two.fan_in
    assert not one.retry_given


def test_a_retry_policy_is_read_and_its_rules_take_from_it_what_they_leave_out() -> None:
    policy = {
        "max": 5,
        "backoff_sec": 2,
        "factor": 3,
        "cap_sec": 9,
        "jitter": False,
        "permanent_on": ["bad_input"],
        "lost_max": 7,
        "rules": [{"on": ["TimeoutError", "E"], "max": 10, "backoff_sec": 5}],
        "x-why": "flaky",
    }

    read = parse_graph(graph(node("a", retry_policy=policy))).nodes["a"]

    rule = RetryRule(("TimeoutError", "E"), max_attempts=10, backoff_sec=5, factor=3, cap_sec=9)
    assert read.retry == RetryPolicy(5, 2, 3, 9, False, ("bad_input",), (rule,), 7)
    assert read.retry_given


@pytest.mark.parametrize(
    ("said", "timeouts"),
    [
        ({"timeout_sec": 3}, Timeouts(run_sec=3)),
        ({"timeouts": {"run_sec": 3}}, Timeouts(run_sec=3)),
        ({"timeout_sec": 3, "timeouts": {"run_sec": 3, "total_sec": 9}}, Timeouts(run_sec=3, total_sec=9)),
        ({"timeouts": {"queued_sec": 0.5, "heartbeat_sec": None}}, Timeouts(queued_sec=0.5)),
        ({"timeout_sec": None}, Timeouts()),
    ],
)
def test_timeouts_are_read(said: dict[str, Any], timeouts: Timeouts) -> None:
    assert parse_graph(graph(node("a", **said))).nodes["a"].timeouts == timeouts


@pytest.mark.parametrize(
    ("said", "fan_in"),
    [
        ({}, FanIn()),
        ({"fan_in": "all", "losers": "ignore"}, FanIn()),
        ({"fan_in": "any"}, FanIn(1)),
        ({"fan_in": "any", "losers": "cancel"}, FanIn(1, cancel_losers=True)),
        ({"fan_in": {"count": 2}}, FanIn(2)),
        ({"fan_in": {"count": 2.0}}, FanIn(2)),
        ({"fan_in": "count:2"}, FanIn(2)),
    ],
)
def test_fan_in_is_read(said: dict[str, Any], fan_in: FanIn) -> None:
    read = parse_graph(graph(node("a"), node("b"), node("c", depends_on=["a", "b"], **said)))

    assert read.nodes["c"].fan_in == fan_in


def test_a_root_starts_whatever_its_fan_in_says() -> None:
    assert parse_graph(graph(node("a", fan_in="any"))).nodes["a"].fan_in == FanIn()


# Edges.


def test_all_forms_of_an_edge_mean_the_same() -> None:
    nodes = [node("a"), node("b")]

    by_pair = parse_graph(graph(*nodes, edges=[["a", "b"]]))

    assert by_pair == parse_graph(graph(*nodes, edges=[("a", "b")]))
    assert by_pair == parse_graph(graph(*nodes, edges=[{"from": "a", "to": "b"}]))
    assert by_pair == parse_graph(graph(*nodes, edges=[{"from": "a", "to": "b", "on": "success"}]))
    assert by_pair == parse_graph(graph(node("a"), node("b", depends_on=["a", "a"])))
    assert by_pair == parse_graph(graph(node("a", routing={"on_success": ["b"]}), node("b")))


def test_depends_on_adds_nothing_to_a_pair_in_edges() -> None:
    edge = {"from": "a", "to": "b", "on": "failure"}

    read = parse_graph(graph(node("a"), node("b", depends_on=["a"]), edges=[edge]))

    assert read.incoming["b"] == (Edge("a", "b", "failure"),)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_old_routing_says_more_than_depends_on(order: tuple[str, str]) -> None:
    nodes = {
        "a": node("a", routing={"on_failure": ["b"], "on_success": []}),
        "b": node("b", depends_on=["a"]),
    }

    read = parse_graph(graph(*(nodes[name] for name in order)))

    assert read.incoming["b"] == (Edge("a", "b", "failure"),)


def test_edges_keep_their_order() -> None:
    read = parse_graph(
        graph(
            node("a"),
            node("b"),
            node("c", depends_on=["b", "a", "d"]),
            node("d"),
            edges=[["d", "c"], ["a", "d"]],
        )
    )

    assert [edge.source for edge in read.incoming["c"]] == ["d", "b", "a"]
    assert [edge.target for edge in read.outgoing["a"]] == ["d", "c"]


def test_a_reference_alone_is_an_edge() -> None:
    read = parse_graph(graph(node("a"), node("b", inputs={"x": {"$from": "a"}, "y": {"$from": "a.z", "default": 0}})))

    assert read.incoming["b"] == read.outgoing["a"] == (Edge("a", "b", implied=True),)
    assert read.reads["b"] == read.readers["a"] == ()
    assert read.leaves == ("b",)


def test_a_reference_with_defaults_only_is_a_lenient_edge() -> None:
    inputs = [{"$from": "a", "default": None}, {"$from": "a.x", "default": 1}]

    read = parse_graph(graph(node("a"), node("b", inputs=inputs)))

    assert read.incoming["b"] == (Edge("a", "b", implied=True, lenient=True),)


def test_a_reference_beside_a_declared_edge_is_a_read() -> None:
    inputs = {"x": {"$from": "a"}, "y": {"$from": "b"}}

    read = parse_graph(graph(node("a"), node("b"), node("c", inputs=inputs), edges=[["b", "c"]]))

    assert read.incoming["c"] == (Edge("b", "c"),)
    assert read.reads["c"] == ("a",)
    assert read.readers["a"] == ("c",)
    assert read.leaves == ("c",)


def test_a_count_may_count_implied_edges() -> None:
    inputs = [{"$from": "a", "default": 0}, {"$from": "b", "default": 0}]

    read = parse_graph(graph(node("a"), node("b"), node("c", inputs=inputs, fan_in={"count": 2})))

    assert read.nodes["c"].fan_in == FanIn(2)


# What is refused: code and place.


def one(**more: Any) -> dict[str, Any]:
    return graph(node("a", **more))


def two(**more: Any) -> dict[str, Any]:
    return graph(node("a"), node("b"), **more)


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str, str]] = [
    (None, "E_TYPE", "graph"),
    ([], "E_TYPE", "graph"),
    ({}, "E_EMPTY", "nodes"),
    (graph(), "E_EMPTY", "nodes"),
    ({"nodes": "a"}, "E_TYPE", "nodes"),
    ({"nodes": [7]}, "E_TYPE", "nodes[0]"),
    (graph(node("a"), nods=[]), "E_KEY_UNKNOWN", "nods"),
    (graph(node("a"), **{"bad key": 1}), "E_KEY_UNKNOWN", "['bad key']"),
    (graph(node("a"), schema_version="3"), "E_VERSION", "schema_version"),
    (graph(node("a"), schema_version=2), "E_TYPE", "schema_version"),
    (graph(node("a"), meta=[]), "E_TYPE", "meta"),
    (graph(node("a"), fail_fast=1), "E_TYPE", "fail_fast"),
    (graph(node("a"), timeout_sec=0), "E_RANGE", "timeout_sec"),
    (graph(node("a"), timeout_sec=float("nan")), "E_RANGE", "timeout_sec"),
    (graph(node("a"), timeout_sec=float("inf")), "E_RANGE", "timeout_sec"),
    (graph(node("a"), timeout_sec=10**400), "E_RANGE", "timeout_sec"),
    (graph(node("a"), timeout_sec="9"), "E_TYPE", "timeout_sec"),
    (graph(node("a"), output={"x": {"$from": "b"}}), "E_REFERENCE_UNKNOWN", "output.x.$from"),
    # ids and types
    (graph({"type": "work"}), "E_KEY_MISSING", "nodes[0]"),
    (graph({"node_id": "a"}), "E_KEY_MISSING", "nodes[0]"),
    (one(type=None), "E_KEY_MISSING", "nodes[0]"),
    (graph(node("a"), node("b"), node("a")), "E_NODE_DUPLICATE_ID", "nodes[2].node_id"),
    (graph(node("")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("..")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("a#1")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("a[1]")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("a/b")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("a\n")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("é")), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node("a" * 129)), "E_NODE_ID", "nodes[0].node_id"),
    (graph(node(1)), "E_TYPE", "nodes[0].node_id"),  # type: ignore[arg-type]
    (one(type="a:b"), "E_NODE_TYPE", "nodes[0].type"),
    (one(type=""), "E_NODE_TYPE", "nodes[0].type"),
    (one(depnds_on=[]), "E_KEY_UNKNOWN", "nodes[0].depnds_on"),
    # edges
    (one(depends_on=["b"]), "E_PARENT_UNKNOWN", "nodes[0].depends_on[0]"),
    (one(depends_on="b"), "E_TYPE", "nodes[0].depends_on"),
    (one(depends_on=[1]), "E_TYPE", "nodes[0].depends_on[0]"),
    (graph(node("a"), edges={}), "E_TYPE", "edges"),
    (graph(node("a"), edges=["a"]), "E_TYPE", "edges[0]"),
    (graph(node("a"), edges=[["a"]]), "E_EDGE", "edges[0]"),
    (graph(node("a"), edges=[["a", None]]), "E_TYPE", "edges[0][1]"),
    (graph(node("a"), edges=[["z", "a"]]), "E_PARENT_UNKNOWN", "edges[0][0]"),
    (graph(node("a"), edges=[{"from": "a", "to": "z"}]), "E_CHILD_UNKNOWN", "edges[0].to"),
    (graph(node("a"), edges=[{"from": "a"}]), "E_KEY_MISSING", "edges[0]"),
    (two(edges=[{"from": "a", "to": "b", "on": "fail"}]), "E_CHOICE", "edges[0].on"),
    (two(edges=[["a", "b"], ["a", "b"]]), "E_EDGE_DUPLICATE", "edges[1]"),
    (graph(node("a", routing={"on_failure": ["b"]}), node("b"), edges=[["a", "b"]]), "E_EDGE_DUPLICATE",
     "nodes[0].routing.on_failure[0]"),
    (one(routing={"on_failure": ["z"]}), "E_CHILD_UNKNOWN", "nodes[0].routing.on_failure[0]"),
    (one(depends_on=["a"]), "E_CYCLE", "nodes[0]"),
    (one(inputs={"$from": "a"}), "E_CYCLE", "nodes[0]"),
    (graph(node("a", inputs={"$from": "b"}), node("b", depends_on=["a"])), "E_CYCLE", "nodes[0]"),
    (graph(node("r"), node("a", depends_on=["r"], inputs={"$from": "b"}), node("b", depends_on=["a"])),
     "E_CYCLE", "nodes[1]"),
    # policies
    (graph(node("a"), node("b", depends_on=["a"], fan_in={"count": 2})), "E_FAN_IN", "nodes[1].fan_in"),
    (one(fan_in={"count": 1}), "E_FAN_IN", "nodes[0].fan_in"),
    (one(fan_in="most"), "E_FAN_IN", "nodes[0].fan_in"),
    (one(fan_in="count:0"), "E_FAN_IN", "nodes[0].fan_in"),
    (one(fan_in=2), "E_TYPE", "nodes[0].fan_in"),
    (one(fan_in={}), "E_KEY_MISSING", "nodes[0].fan_in"),
    (one(fan_in={"count": True}), "E_TYPE", "nodes[0].fan_in.count"),
    (one(losers="cancel"), "E_FAN_IN", "nodes[0].losers"),
    (one(losers="kill"), "E_CHOICE", "nodes[0].losers"),
    (one(retry_policy={"max": 0}), "E_RANGE", "nodes[0].retry_policy.max"),
    (one(retry_policy={"max": 1.5}), "E_RANGE", "nodes[0].retry_policy.max"),
    (one(retry_policy={"max": 1_000_001}), "E_RANGE", "nodes[0].retry_policy.max"),
    (one(retry_policy={"backoff_sec": -1}), "E_RANGE", "nodes[0].retry_policy.backoff_sec"),
    (one(retry_policy={"maxx": 1}), "E_KEY_UNKNOWN", "nodes[0].retry_policy.maxx"),
    (one(retry_policy={"rules": [{"max": 1}]}), "E_KEY_MISSING", "nodes[0].retry_policy.rules[0]"),
    (one(retry_policy={"permanent_on": "x"}), "E_TYPE", "nodes[0].retry_policy.permanent_on"),
    (one(timeouts={"run_sec": 1}, timeout_sec=2), "E_KEY_CONFLICT", "nodes[0].timeout_sec"),
    (one(timeout_sec=True), "E_TYPE", "nodes[0].timeout_sec"),
    # inputs
    (one(inputs={"r": {"$from": "b.x"}}), "E_REFERENCE_UNKNOWN", "nodes[0].inputs.r.$from"),
    (one(inputs={"$from": ""}), "E_REFERENCE_UNKNOWN", "nodes[0].inputs.$from"),
    (one(inputs={"$from": 1}), "E_TYPE", "nodes[0].inputs.$from"),
    (graph(node("b"), node("a", inputs={"$from": "b..c"})), "E_REFERENCE", "nodes[1].inputs.$from"),
    (graph(node("b"), node("a", inputs={"$from": "b[x]"})), "E_REFERENCE", "nodes[1].inputs.$from"),
    (one(inputs={"$from": "a." + "x" * 1023}), "E_REFERENCE", "nodes[0].inputs.$from"),
    (graph(node("b"), node("a", inputs={"$from": "b", "x": 1})), "E_TEMPLATE", "nodes[1].inputs.x"),
    (one(inputs={"$param": "b", "$from": 1}), "E_TEMPLATE", "nodes[0].inputs.$from"),
    (one(inputs={"$param": "b["}), "E_REFERENCE", "nodes[0].inputs.$param"),
    (one(inputs={"$literal": 1, "default": 1}), "E_TEMPLATE", "nodes[0].inputs.default"),
    (one(inputs={"$param": "b", "default": {"$param": "c"}}), "E_TEMPLATE",
     "nodes[0].inputs.default.$param"),
    (one(inputs={"$form": "b"}), "E_TEMPLATE", "nodes[0].inputs.$form"),
    (one(inputs=float("nan")), "E_VALUE", "nodes[0].inputs"),
    (one(inputs={"x": [1, float("-inf")]}), "E_VALUE", "nodes[0].inputs.x[1]"),
    (one(inputs={"x": {1, 2}}), "E_VALUE", "nodes[0].inputs.x"),
    (one(inputs={"x": b"1"}), "E_VALUE", "nodes[0].inputs.x"),
    (one(inputs={1: 2}), "E_VALUE", "nodes[0].inputs"),
    (one(inputs=["\ud800"]), "E_VALUE", "nodes[0].inputs[0]"),
    (one(inputs={"\ud800": 1}), "E_VALUE", "nodes[0].inputs['\\ud800']"),
    (one(inputs=deep(65)), "E_DEPTH", "nodes[0].inputs" + "[0]" * 64),
    (one(meta={"x": object()}), "E_VALUE", "nodes[0].meta.x"),
    (one(**{"x-y": {1}}), "E_VALUE", "nodes[0].x-y"),
    (one(io={"input_inline": []}), "E_TYPE", "nodes[0].io.input_inline"),
    (one(io={"input_inline": {"x": {1}}}), "E_VALUE", "nodes[0].io.input_inline.x"),
    (one(io={"input_inline": {"x": 1}}, inputs=1), "E_KEY_CONFLICT", "nodes[0].io.input_inline"),
    (one(io={"fn": "vars.set"}, inputs={"x": 1}, type="coordinator_fn"), "E_KEY_CONFLICT", "nodes[0].inputs"),
    (one(io={"input_inline": {"input_adapter": "pull.artifacts", "input_args": {"from_nodes": ["a1"]}}}),
     "E_PARENT_UNKNOWN", "nodes[0].io.input_args.from_nodes[0]"),
]  # fmt: skip


def test_an_old_input_of_a_coordinator_function_means_nothing_as_ever() -> None:
    old = one(type="coordinator_fn", io={"fn": "vars.set", "fn_args": {"x": 1}, "input_inline": {"y": 2}})
    stored = normalise(old)["nodes"][0]
    assert stored["io"] == {"fn": "vars.set", "fn_args": {"x": 1}}
    assert "inputs" not in stored


@pytest.mark.parametrize(("raw", "code", "place"), REFUSED, ids=[f"{code}-{place}"[:60] for _, code, place in REFUSED])
def test_a_wrong_graph_is_refused_with_code_and_place(raw: Any, code: str, place: str) -> None:
    with pytest.raises(GraphError) as refused:
        parse_graph(raw)

    assert problems_of(refused.value) == [(code, place)]
    with pytest.raises(GraphError) as refused_again:
        normalise(raw)
    assert refused_again.value.problems == refused.value.problems


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(GraphError) as refused:
        parse_graph(
            graph(
                node("a", depends_on=["x", "b"], fan_in="most"),
                node("b", depends_on=["a"], timeout_sec=-1),
                node("b"),
                edges=[["b"]],
                foo=1,
            )
        )

    codes = {problem.code for problem in refused.value.problems}
    assert codes == {"E_PARENT_UNKNOWN", "E_FAN_IN", "E_CYCLE", "E_RANGE", "E_NODE_DUPLICATE_ID", "E_EDGE",
                     "E_KEY_UNKNOWN"}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (graph(node("load"), node("b", depends_on=["laod"])), "'load'"),
        (graph(node("load"), node("b", inputs={"$from": "laod.rows[0]"})), "'load'"),
        (graph(node("b", dependson=[])), "'depends_on'"),
        (graph(node("b"), edges=[{"from": "b", "to": "b", "on": "sucess"}]), "'success'"),
        (graph(node("b", inputs={"$pram": "x"})), "'$param'"),
    ],
)
def test_the_nearest_valid_name_is_told(raw: Any, meant: str) -> None:
    with pytest.raises(GraphError, match=f"did you mean {meant}".replace("$", r"\$")):
        parse_graph(raw)


def test_a_cycle_is_told_by_its_nodes_from_the_first_written() -> None:
    nodes = [
        node("in"),
        node("a", depends_on=["c", "in"]),
        node("b", depends_on=["a"]),
        node("c", depends_on=["b"]),
    ]

    with pytest.raises(GraphError, match="a -> b -> c -> a;"):
        parse_graph(graph(*nodes, node("out", depends_on=["c"])))


def test_every_cycle_is_told() -> None:
    pairs = [(f"a{number}", f"b{number}") for number in range(4)]
    nodes = [node(one, depends_on=[two]) for pair in pairs for one, two in (pair, pair[::-1])]

    with pytest.raises(GraphError) as refused:
        parse_graph(graph(*nodes))

    assert sorted(problems_of(refused.value)) == [("E_CYCLE", f"nodes[{place}]") for place in (0, 2, 4, 6)]


def test_after_fifty_problems_the_rest_is_only_mentioned() -> None:
    with pytest.raises(GraphError) as refused:
        parse_graph(graph(*(node(f"n{number}", bad=1) for number in range(1000))))

    assert len(refused.value.problems) == MAX_PROBLEMS + 1
    assert refused.value.problems[-1].code == "E_MORE"


# Values.


def test_any_json_value_is_a_literal_input() -> None:
    inputs = {
        "i": 10**5000,
        "f": -0.5,
        "t": "é😀",
        "n": None,
        "b": True,
        "l": [[]],
        "o": {"": {}, "$gt": 5, "$set": {}},
    }

    assert parse_graph(graph(node("a", inputs=inputs))).nodes["a"].inputs == inputs
    assert parse_graph(graph(node("a", inputs=None))).nodes["a"].inputs is None
    assert parse_graph(graph(node("a", inputs=deep(64)))).nodes["a"].inputs == deep(64)


def test_python_values_become_what_json_makes_of_them() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 3

    inputs = {"t": (1, (2,)), "c": Colour.RED, "s": Size.BIG, "d": OrderedDict(a=1), Colour.RED: 0}

    read = parse_graph(graph(node("a", inputs=inputs))).nodes["a"].inputs

    assert read == json.loads(json.dumps(inputs))
    assert {type(value) for value in read.values()} == {list, str, int, dict}
    assert all(type(key) is str for key in read)


def test_a_read_graph_shares_nothing_with_what_it_was_read_from() -> None:
    raw = graph(node("a", inputs={"x": [1]}, io={"input_ref": [1]}), meta={"m": [1]}, output=[1])
    read, stored = parse_graph(raw), normalise(raw)

    raw["nodes"][0]["inputs"]["x"].append(2)
    raw["nodes"][0]["io"]["input_ref"].append(2)
    raw["meta"]["m"].append(2)
    raw["output"].append(2)

    assert parse_graph(stored) == read
    assert read.nodes["a"].inputs == {"x": [1]} and read.meta == {"m": [1]} and read.output == [1]


@pytest.mark.parametrize(
    ("inline", "inputs"),
    [
        ({}, MISSING),
        (None, MISSING),
        ({"x": 1}, {"x": 1}),
        ({"x": {"$from": "a"}}, {"$literal": {"x": {"$from": "a"}}}),
        ({"$literal": 1}, {"$literal": {"$literal": 1}}),
        ({"$form": "a"}, {"$literal": {"$form": "a"}}),
    ],
)
def test_old_inputs_are_literal(inline: Any, inputs: Any) -> None:
    read = parse_graph(graph(node("a", io={"input_inline": inline, "batching": {"size": 2}}))).nodes["a"]

    assert read.inputs == inputs
    assert read.references == () and read.constant
    assert read.io == {"batching": {"size": 2}}


def test_old_inputs_may_be_as_deep_as_their_stored_form() -> None:
    inline = {"$from": deep(62)}

    read = parse_graph(one(io={"input_inline": inline}))

    assert parse_graph(normalise(one(io={"input_inline": inline}))) == read
    with pytest.raises(GraphError, match="E_DEPTH"):
        parse_graph(one(io={"input_inline": {"$from": deep(63)}}))


# The stored form.


def test_the_stored_form_says_everything_in_todays_words() -> None:
    stored = normalise(
        {
            "x-ui": {"zoom": 2},
            "edges": [{"from": "a", "to": "b", "on": "failure", "x-color": "red"}, {"from": "a", "to": "c"}],
            "nodes": [
                {
                    "type": "work",
                    "node_id": "a",
                    "status": "queued",
                    "io": {"input_inline": {"x": {"$from": 1}}},
                },
                node("b", depends_on=["a"], fan_in="count:1", **{"x-at": [1, 2]}),
                node("c", depends_on=("b",), inputs=None, retry_policy={"max": 2}, meta={"note": "hi"}),
                node("d", routing=None, timeout_sec=None),
            ],
            "edges_ex": [],
            "name": "old",
            "schema_version": "1.0",
        }
    )

    assert stored == {
        "schema_version": "2",
        "name": "old",
        "nodes": [
            {"node_id": "a", "type": "work", "inputs": {"$literal": {"x": {"$from": 1}}}},
            {"node_id": "b", "type": "work", "fan_in": {"count": 1}, "x-at": [1, 2]},
            {
                "node_id": "c",
                "type": "work",
                "inputs": None,
                "retry_policy": {"max": 2},
                "meta": {"note": "hi"},
            },
            {"node_id": "d", "type": "work"},
        ],
        "edges": [{"from": "a", "to": "b", "on": "failure", "x-color": "red"}, ["a", "c"], ["b", "c"]],
        "x-ui": {"zoom": 2},
    }
    assert list(stored["nodes"][0]) == ["node_id", "type", "inputs"]


@given(valid_graphs())
def test_the_stored_form_means_the_same_and_is_stable(raw: dict[str, Any]) -> None:
    read = parse_graph(raw)
    stored = normalise(raw)

    assert parse_graph(stored) == read
    assert normalise(stored) == stored
    assert parse_graph(json.loads(json.dumps(stored))) == read


@given(valid_graphs())
def test_a_read_graph_is_consistent(raw: dict[str, Any]) -> None:
    read = parse_graph(raw)

    edges = {edge for several in read.incoming.values() for edge in several}
    assert edges == {edge for several in read.outgoing.values() for edge in several}
    assert len(edges) == len({(edge.source, edge.target) for edge in edges})
    reads = {(source, target) for target, sources in read.reads.items() for source in sources}
    assert reads == {(source, target) for source, targets in read.readers.items() for target in targets}
    assert not reads & {(edge.source, edge.target) for edge in edges}
    for name, one in read.nodes.items():
        sources = {edge.source for edge in read.incoming[name]} | set(read.reads[name])
        assert {reference.source for reference in one.references} <= sources
        assert one.fan_in.need is None or one.fan_in.need <= len(read.incoming[name])


# Whatever comes, there is an answer, and only one kind of no.


def check_any(raw: Any) -> None:
    try:
        read = parse_graph(raw)
    except GraphError as error:
        assert error.problems
        assert all(problem.code and problem.place and problem.message for problem in error.problems)
        str(error).encode()
        return
    stored = normalise(raw)
    assert parse_graph(json.loads(json.dumps(stored, allow_nan=False))) == read
    assert read_graph(raw) == (read, stored)


@settings(max_examples=at_night(300))
@given(anything | strange)
def test_any_value_gives_a_graph_or_a_graph_error(raw: Any) -> None:
    check_any(raw)
    check_any({"nodes": raw})
    check_any({"nodes": [raw], "edges": raw})
    check_any(graph(node("a", inputs=raw), node("b", io={"input_inline": raw}), output=raw))


@settings(max_examples=at_night(400))
@given(broken_graphs())
def test_any_broken_graph_gives_a_graph_or_a_graph_error(raw: Any) -> None:
    check_any(raw)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20, unique=True))
def test_a_graph_is_refused_for_a_cycle_just_when_it_has_one(pairs: list[tuple[int, int]]) -> None:
    reachable = {number: {number} for number in range(8)}
    for _ in range(8):
        for source, target in pairs:
            reachable[source] |= reachable[target]
    has_cycle = any(source in reachable[target] for source, target in pairs)

    raw = graph(*(node(f"n{number}") for number in range(8)), edges=[[f"n{a}", f"n{b}"] for a, b in pairs])

    if has_cycle:
        with pytest.raises(GraphError, match="E_CYCLE"):
            parse_graph(raw)
    else:
        assert parse_graph(raw)


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring += [ring, ring]

    for raw in (graph(node("a", inputs=ring)), graph(node("a", meta={"x": ring})), {"nodes": ring}):
        with pytest.raises(GraphError):
            parse_graph(raw)


def test_a_few_shared_lists_that_stand_for_billions_are_refused_soon() -> None:
    bomb: Any = [0]
    for _ in range(40):
        bomb = [bomb, bomb]

    with pytest.raises(GraphError, match="E_SIZE"):
        parse_graph(graph(node("a", inputs=bomb)))


# Size.


def chain(size: int, backwards: bool = False) -> dict[str, Any]:
    nodes = [
        node(
            f"node-{number}",
            inputs={"n": number, "name": "x"},
            depends_on=[f"node-{number - 1}"] if number else [],
        )
        for number in range(size)
    ]
    return graph(*(reversed(nodes) if backwards else nodes))


def seconds(raw: Any) -> float:
    """Of this thread's own work: neither others' nor the garbage collector's, whose share depends on what lives."""
    gc.disable()
    try:
        start = time.thread_time()
        with suppress(GraphError):
            parse_graph(raw)
        return time.thread_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("backwards", [False, True])
def test_a_large_graph_costs_what_its_size_says(backwards: bool) -> None:
    small, large = chain(2_500, backwards), chain(25_000, backwards)

    ratio = min(seconds(large) for _ in range(3)) / min(seconds(small) for _ in range(5))

    assert ratio < 40  # a square would be 100


def test_a_wide_join_costs_what_its_size_says() -> None:
    nodes = [node(f"n{number}") for number in range(20_000)]

    assert seconds(graph(*nodes, node("join", depends_on=[one["node_id"] for one in nodes]))) < 5


def test_many_mistakes_in_a_large_graph_are_told_soon() -> None:
    raw = chain(20_000)
    for number in range(0, 20_000, 100):
        raw["nodes"][number]["depends_on"] = [f"nod-{number}"]

    assert seconds(raw) < 5


def test_a_large_cycle_is_told_in_a_few_words() -> None:
    raw = chain(20_000)
    raw["nodes"][0]["depends_on"] = ["node-19999"]

    with pytest.raises(GraphError, match=r"node-0 -> node-1 .* more\) .*-> node-0;") as refused:
        parse_graph(raw)

    assert len(str(refused.value)) < 500


def test_what_is_to_be_written_is_said_as_json() -> None:
    wrong = {"nodes": [{"node_id": "b", "type": "t", "depends_on": "it's", "inputs": {"x": {"$form": "a"}}}]}
    with pytest.raises(GraphError) as caught:
        parse_graph(wrong)

    messages = [problem.message for problem in caught.value.problems]
    assert any(message.endswith('write ["it\'s"]') for message in messages)
    assert any(message.endswith('wrap the object: {"$literal": {"$form": ...}}') for message in messages)


@pytest.mark.parametrize(
    ("key", "write"),
    [
        ("id", "write `node_id`"),
        ("needs", "write `depends_on`"),
        ("uses", "write `type`, the name of the handler"),
        ("with", "write `inputs`"),
        ("retries", 'write `retry_policy`, such as {"max": 3}'),
        ("timeout", "write `timeout_sec`"),
        ("if", "write `when`"),
        ("for_each", "write `foreach`, such as"),
        ("on_failure", "write an edge:"),
        ("concurrency", "write `limits`, such as"),
        ("rate_limit", "write `limits`, such as"),
        ("labels", 'write `worker_labels`, such as {"zone": "eu"}'),
        ("cache_key", "write `cache`, such as"),
        ("priority_weight", "write `priority`"),
        ("tags", "notes of your own go under `meta` or `x-...`"),  # and no key that is only dropped
    ],
)
def test_a_name_that_other_tools_have_says_what_it_is_called_here(key: str, write: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse_graph(graph(node("a", **{key: "x"})))

    assert f"E_KEY_UNKNOWN at nodes[0].{key}: a node has no key '{key}'; {write}" in str(caught.value)


def test_names_of_other_tools_for_the_whole_are_told_too() -> None:
    with pytest.raises(GraphError, match="a graph has no key 'steps'; write `nodes`"):
        parse_graph({"steps": [], "nodes": [node("a")]})


def test_names_of_other_tools_for_an_edge_are_told_too() -> None:
    with pytest.raises(GraphError, match="an edge has no key 'if'; write `when`"):
        parse_graph(graph(node("a"), node("b"), edges=[{"from": "a", "to": "b", "if": "true"}]))


def test_every_name_that_is_to_be_written_instead_is_a_key() -> None:
    for record, meant in (
        (keys.NODE, keys.NODE_MEANT), (keys.GRAPH, keys.GRAPH_MEANT), (keys.EDGE, keys.EDGE_MEANT),
        (keys.LIMIT_ENTRY, keys.LIMIT_MEANT),
    ):  # fmt: skip
        assert not record.keys.keys() & meant.keys()
        for say in meant.values():
            named = [name for name in re.findall(r"`(\w+)`", say) if name not in ("edges", "type")]
            assert record.keys.keys() >= set(named)


def test_code_that_is_no_object_is_told_so() -> None:
    with pytest.raises(GraphError, match=r"E_TYPE at nodes\[0\].code: expected an object, found 'def main"):
        parse_graph(graph(node("a", type="code", code="def main(inputs): ...")))
