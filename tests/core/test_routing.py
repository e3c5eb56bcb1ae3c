"""Conditions: which edges are taken, which nodes start."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.effects import Fetch
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Fetched, Succeeded
from flowkit.errors import GraphError
from tests.core.builders import Play, edge, graph, node, once


def when(source: str, target: str, condition: str, on: str = "success") -> dict[str, Any]:
    return edge(source, target, on) | {"when": condition}


def otherwise(source: str, target: str) -> dict[str, Any]:
    return edge(source, target) | {"otherwise": True}


CHOICE = graph(
    node("a"), node("big"), node("small"), node("end", fan_in="any"),
    edges=[when("a", "big", "output.n > 10"), otherwise("a", "small"), ["big", "end"], ["small", "end"]],
)  # fmt: skip


@pytest.mark.parametrize(("n", "taken", "left"), [(11, "big", "small"), (10, "small", "big")])
def test_otherwise_is_taken_when_no_condition_holds(n: int, taken: str, left: str) -> None:
    play = Play(CHOICE)
    play.succeed("a", output={"n": n})

    assert play.ready() == [taken]
    assert play.skipped(left) == ("not_taken", False, "a")


def test_several_conditions_may_hold() -> None:
    edges = [when("a", "b", "output > 1"), when("a", "c", "output > 2"), otherwise("a", "d")]
    play = Play(graph(node("a"), node("b"), node("c"), node("d"), edges=edges))
    play.succeed("a", output=3)

    assert play.ready() == ["b", "c"]


def test_a_condition_sees_params_other_nodes_variables_and_the_task() -> None:
    condition = 'params.on && nodes["a"].output == 1 && size(vars) == 0 && task.generation == 0 && output == 2'
    play = Play(graph(node("a"), node("b", "a"), node("c"), edges=[when("b", "c", condition)]), params={"on": True})
    play.succeed("a", output=1)
    play.succeed("b", output=2)

    assert play.ready() == ["c"]


def test_a_condition_that_has_no_value_fails_the_node_that_its_edge_leads_to() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "a"), edges=[when("a", "b", "output.missing > 1")]))
    play.succeed("a", output={"n": 1})

    assert play.states == {"a": "finished", "b": "failed", "c": "ready"}
    error = play.task.runs["b"].error
    assert error is not None
    assert error["code"] == "expr_error"
    assert error["message"].startswith("edge a -> b: ")


def test_a_condition_is_true_or_false() -> None:
    play = Play(graph(node("a"), node("b"), edges=[when("a", "b", "output")]))
    play.succeed("a", output="yes")

    assert play.state("b") == "failed"
    assert "'yes', and a condition is true or false" in (play.task.runs["b"].error or {})["message"]


def test_the_condition_of_a_failure_edge_sees_the_error() -> None:
    edges = [when("a", "b", "output.error.code == 'Oops'", "failure"), when("a", "c", "false", "failure")]
    play = Play(graph(once("a"), node("b"), node("c"), edges=edges))
    play.fail_for_good("a")

    assert play.states == {"a": "failed", "b": "ready", "c": "skipped"}
    play.succeed("b")
    assert play.status == "finished"


def test_a_condition_of_an_edge_that_is_taken_despite_the_failure_sees_null() -> None:
    edges = [when("a", "b", "output == null"), when("a", "c", "output.error.code == 'Oops'", "failure")]
    play = Play(graph(once("a", continue_on_failure=True), node("b"), node("c"), edges=edges))
    play.fail_for_good("a")

    assert play.ready() == ["b", "c"]


def test_a_failure_is_not_handled_by_an_edge_whose_condition_was_false() -> None:
    play = Play(graph(once("a"), node("b"), edges=[when("a", "b", "false", "failure")]))
    play.fail_for_good("a")

    assert play.status == "failed"


def test_a_broken_edge_needs_no_condition() -> None:
    play = Play(graph(once("a"), node("b"), edges=[when("a", "b", "output.n > 1")]))
    play.fail_for_good("a")

    assert play.skipped("b") == ("upstream_failed", True, "a")


def test_what_the_handler_did_not_choose_is_not_asked_about() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), edges=[when("a", "b", "output.missing"), ["a", "c"]]))
    play.succeed("a", output={}, next=["c"])

    assert play.states == {"a": "finished", "b": "skipped", "c": "ready"}


def test_a_condition_about_a_large_output_waits_until_it_was_read() -> None:
    play = Play(CHOICE)
    play.place("a")
    large = Artifact("ref", 100_000, "json")
    play.tell(Succeeded(*play.attempt_of("a"), Payload(None, large)))

    assert list(play.last.questions) == [Fetch("ref", "json")]
    assert play.states == {"a": "finished", "big": "pending", "small": "pending", "end": "pending"}
    play.tell(Fetched("ref", {"n": 11}))
    assert play.ready() == ["big"]


def test_a_large_output_that_is_gone_fails_what_hangs_on_it() -> None:
    play = Play(CHOICE)
    play.place("a")
    play.tell(Succeeded(*play.attempt_of("a"), Payload(None, Artifact("ref", 100_000, "json"))))
    play.tell(Fetched("ref", error="it is not in the store any more"))

    assert play.state("big") == "failed"
    assert play.state("small") == "ready"  # no condition held


# A node's own condition.


def test_a_node_whose_condition_is_false_is_skipped_by_choice() -> None:
    play = Play(graph(node("a", when="params.on"), node("b", "a"), node("c")), params={"on": False})

    assert play.skipped("a") == ("condition", False, "")
    assert play.skipped("b") == ("not_taken", False, "a")
    assert play.ready() == ["c"]


def test_a_node_whose_condition_holds_waits_for_a_worker_and_is_tried_again_without_asking_again() -> None:
    play = Play(graph(node("a", when="params.on", retry_policy={"jitter": False})), params={"on": True})
    play.fail("a")
    play.wait(1)

    assert play.ready() == ["a"]


def test_the_condition_of_a_node_waits_for_the_nodes_that_it_names() -> None:
    play = Play(
        graph(node("a"), node("b", when='nodes["a"].output > 1'), node("c", when='has(nodes["d"].output)'), once("d"))
    )

    assert play.states == {"a": "ready", "b": "pending", "c": "pending", "d": "ready"}
    play.succeed("a", output=2)
    assert play.state("b") == "ready"
    play.fail_for_good("d")
    assert play.skipped("c") == ("condition", False, "")


def test_a_node_that_names_a_failed_one_without_asking_for_it_is_skipped_by_failure() -> None:
    play = Play(graph(once("a"), node("b", when='nodes["a"].output > 1')))
    play.fail_for_good("a")

    assert play.skipped("b")[1]


def test_nothing_starts_while_the_task_is_paused() -> None:
    play = Play(graph(node("a"), node("b", "a", when="true")))
    play.place("a")
    play.ask("pause")
    play.succeed("a")

    assert play.state("b") == "pending"
    play.ask("resume")
    assert play.ready() == ["b"]


# Inputs.


def test_an_expression_among_the_inputs_is_computed_when_the_node_is_placed() -> None:
    raw = graph(node("a"), node("b", inputs={"x": {"$expr": 'nodes["a"].output.n + params.m'}}))
    play = Play(raw, params={"m": 2})
    play.succeed("a", output={"n": 1})

    assert play.inputs("b") == {"x": 3}


def test_an_expression_that_has_no_value_fails_its_node() -> None:
    play = Play(graph(node("a", inputs={"x": {"$expr": "params.missing"}})))
    play.place("a")

    assert play.state("a") == "failed"
    assert (play.task.runs["a"].error or {})["code"] == "expr_error"


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"when": "params.x.y"}, "when: in `params.x.y`"),
        ({"inputs": {"q": [{"$expr": "params.x.y"}]}}, "inputs.q[0].$expr: in `params.x.y`"),
        ({"foreach": {"$expr": "params.x.y"}}, "foreach.$expr: in `params.x.y`"),
        ({"type": "sleep", "inputs": {"seconds": {"$expr": "params.x.y"}}}, "inputs.seconds.$expr: in `params.x.y`"),
        ({"cache": {"key": "params.x.y", "ttl_sec": 1}}, "cache.key: in `params.x.y`"),
    ],
)
def test_an_expression_without_a_value_says_where_it_stands(said: dict[str, Any], place: str) -> None:
    play = Play(graph(node("a") | said), params={"x": 1})
    if play.ready():
        play.place("a")

    error = play.task.runs["a"].error or {}
    assert (error["code"], error["message"].partition(": found")[0]) == ("expr_error", place)


# At the door.


@pytest.mark.parametrize(
    ("raw", "code", "place"),
    [
        (graph(node("a"), node("b"), edges=[when("a", "b", "output.n >")]), "E_EXPR_PARSE", "edges[0].when"),
        (graph(node("a"), node("b"), edges=[when("a", "b", "item > 1")]), "E_EXPR_PARSE", "edges[0].when"),
        (graph(node("a"), node("b"), edges=[when("a", "b", 'nodes["c"].output')]), "E_REFERENCE_UNKNOWN",
         "edges[0].when"),
        (graph(node("a"), node("b"), node("c"), edges=[when("a", "b", 'nodes["c"].output')]), "E_EXPR_NODE",
         "edges[0].when"),
        (graph(node("a"), node("b"), edges=[when("a", "b", "true") | {"otherwise": True}]), "E_KEY_CONFLICT",
         "edges[0].otherwise"),
        (graph(node("a", when="output.n")), "E_EXPR_PARSE", "nodes[0].when"),
        (graph(node("a", when=1)), "E_TYPE", "nodes[0].when"),
        (graph(node("a", inputs={"x": {"$expr": "parms.n"}})), "E_EXPR_PARSE", "nodes[0].inputs.x.$expr"),
        (graph(node("a", inputs={"x": {"$item": ""}})), "E_TEMPLATE", "nodes[0].inputs"),
        (graph(node("a", inputs={"x": {"$previous": ""}})), "E_TEMPLATE", "nodes[0].inputs"),
        (
            graph(node("a", compensate={"type": "work", "inputs": {"$item": ""}})),
            "E_TEMPLATE",
            "nodes[0].compensate.inputs",
        ),
        (
            graph(node("a", repeat={"until": "true"}, compensate={"type": "work", "inputs": {"$previous": ""}})),
            "E_TEMPLATE",
            "nodes[0].compensate.inputs",
        ),
        (graph(node("a", max_parallel=2)), "E_KEY_CONFLICT", "nodes[0].max_parallel"),
        (graph(node("a", type="task")), "E_SUBGRAPH", "nodes[0]"),
        (graph(node("a", graph=graph(node("b")))), "E_KEY_CONFLICT", "nodes[0].graph"),
        (graph(node("a", type="task", graph=graph(node("b", depnds_on=[])))), "E_KEY_UNKNOWN",
         "nodes[0].graph.nodes[0].depnds_on"),
        (graph(node("a", type="sleep")), "E_INPUTS", "nodes[0]"),
        (graph(node("a", type="sleep", inputs={"secs": 1})), "E_INPUTS", "nodes[0].inputs.secs"),
        (graph(node("a", type="sleep", inputs={"seconds": -1})), "E_INPUTS", "nodes[0].inputs.seconds"),
        (graph(node("a", type="sleep", inputs={"seconds": "5"})), "E_INPUTS", "nodes[0].inputs.seconds"),
        (graph(node("a", type="sleep", inputs={"until": "soon"})), "E_INPUTS", "nodes[0].inputs.until"),
        (graph(node("a", type="signal", inputs={"name": 5})), "E_INPUTS", "nodes[0].inputs.name"),
        (graph(node("a", type="signal", inputs={"name": ""})), "E_INPUTS", "nodes[0].inputs.name"),
        (graph(node("a", type="signal", timeout_sec=5)), "E_KEY_CONFLICT", "nodes[0].timeout_sec"),
        (graph(node("a", type="sleep", inputs={"seconds": 1}, timeouts={"run_sec": 5})), "E_KEY_CONFLICT",
         "nodes[0].timeouts.run_sec"),
        (graph(node("a", type="task", flow="f", timeouts={"queued_sec": 5})), "E_KEY_CONFLICT",
         "nodes[0].timeouts.queued_sec"),
        (graph(node("a", foreach="a, b")), "E_TYPE", "nodes[0].foreach"),
        (graph(node("a", foreach=[{"$expr": "item"}])), "E_TEMPLATE", "nodes[0].foreach"),
        (graph(node("a", repeat={"until": "index > 1"})), "E_TEMPLATE", "nodes[0].repeat.until"),
        (graph(node("a", cache={"key": "item", "ttl_sec": 1})), "E_TEMPLATE", "nodes[0].cache.key"),
        (graph(node("a", type="coordinator_fn", io={"fn": "vars.set", "fn_args": {"k": {"$item": ""}}})), "E_TEMPLATE",
         "nodes[0].io.fn_args"),
        (graph(node("a", type="end", inputs={"status": "done"})), "E_CHOICE", "nodes[0].inputs.status"),
        (graph(node("a", type="coordinator_fn")), "E_KEY_MISSING", "nodes[0].io"),
        (graph(node("a", compensate={"type": "sleep"})), "E_NODE_TYPE", "nodes[0].compensate.type"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_place(raw: Any, code: str, place: str) -> None:
    with pytest.raises(GraphError) as told:
        parse_graph(raw)

    assert (code, place) in [(problem.code, problem.place) for problem in told.value.problems]


@pytest.mark.parametrize(
    "fine",
    [
        node("a", type="sleep", inputs={"seconds": {"$param": "n"}}),
        node("a", type="sleep", inputs={"until": {"$expr": "params.at"}}),
        node("a", type="sleep", inputs={"until": "2020-01-01"}),
        node("a", type="signal", inputs={"name": {"$param": "n"}}),
        node("a", type="signal", inputs={"schema": {"type": "object"}}),
        node("a", foreach={"$param": "n"}),
        node("a", foreach=[{"$param": "n"}]),
        node("a", foreach=[1], repeat={"until": "index > 1"}, cache={"key": "item", "ttl_sec": 1}),
        node("a", repeat={"until": "previous == output"}, cache={"key": "params.k", "ttl_sec": 1}),
    ],
)
def test_what_is_told_only_when_it_runs_is_not_refused_at_the_door(fine: dict[str, Any]) -> None:
    assert parse_graph(graph(fine)).nodes["a"].type == fine["type"]


def test_what_is_wrong_inside_a_sub_graph_is_not_wrong_with_its_node_too() -> None:
    with pytest.raises(GraphError) as told:
        parse_graph(graph(node("a", type="task", graph=graph({"node_id": "b"}))))

    assert [problem.code for problem in told.value.problems] == ["E_KEY_MISSING"]


def test_the_stored_form_says_the_same() -> None:
    inside = graph(node("k"), output={"$from": "k"})
    raw = graph(
        node("a"),
        node("m", foreach={"$from": "a.list"}, inputs={"x": {"$item": "y"}, "i": {"$index": ""}}, gather="any",
             losers="cancel"),
        node("r", repeat={"until": "output.done", "every_sec": 1, "max": 3}, inputs={"last": {"$previous": ""}}),
        node("t", type="task", graph=inside, inputs={"p": {"$expr": "params.p"}}),
        node("c", compensate={"type": "undo", "inputs": {"id": {"$from": "c.id"}}}),
        node("f", type="coordinator_fn", io={"fn": "vars.set", "fn_args": {"n": {"$from": "a.n"}}}),
        edges=[when("a", "r", "output.n > 1"), otherwise("a", "c")],
        budget={"attempts": 5},
    )  # fmt: skip
    stored = normalise(raw)

    assert normalise(stored) == stored
    assert parse_graph(stored) == parse_graph(raw)
