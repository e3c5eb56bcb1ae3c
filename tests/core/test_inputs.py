"""What nodes are given and what tasks give back (graph.md, 1 and 3)."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core.graph import MISSING
from flowkit.core.inputs import node_inputs, output_of, task_output
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Failed, Succeeded
from flowkit.errors import InputError
from tests.core.builders import Play, edge, graph, node, once

BIG = Artifact("ref", 100_000, "json")


# Without inputs.


def test_a_root_gets_the_params() -> None:
    assert Play(graph(node("a")), params={"name": "Ada"}).inputs("a") == {"name": "Ada"}


def test_a_node_with_one_parent_gets_its_output() -> None:
    play = Play(graph(node("a"), node("b", "a")))

    play.succeed("a", output=[1, 2])

    assert play.inputs("b") == [1, 2]


def test_a_node_with_several_parents_gets_the_outputs_of_those_whose_edge_was_taken() -> None:
    play = Play(graph(node("r"), node("a", "r"), node("b", "r"), node("c"), node("d", "a", "b", "c")))
    play.succeed("r", next=["a"])
    play.succeed("a", output=1)

    play.succeed("c", output=None)

    assert play.inputs("d") == {"a": 1, "c": None}


def test_a_join_gets_what_was_taken_when_it_is_placed() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), node("d", "a", "b", "c", fan_in="any")))
    play.succeed("a", output=1)
    play.succeed("b", output=2)

    assert play.inputs("d") == {"a": 1, "b": 2}


@pytest.mark.parametrize("on", ["failure", "end"])
def test_a_taken_edge_from_a_failed_node_gives_its_error(on: str) -> None:
    play = Play(graph(once("a"), node("b"), edges=[edge("a", "b", on)]))

    play.fail("a", code="Boom")

    assert play.inputs("b") == {"error": {"code": "Boom", "message": "no"}}


def test_the_error_given_to_a_successor_holds_no_traceback() -> None:
    play = Play(graph(once("a"), node("b"), edges=[edge("a", "b", "end")]))
    play.place("a")

    play.tell(Failed(*play.attempt_of("a"), {"code": "Boom", "message": "no", "traceback": "secret places"}))

    assert play.inputs("b") == {"error": {"code": "Boom", "message": "no"}}


def test_a_success_edge_that_continues_on_failure_gives_null() -> None:
    play = Play(
        graph(once("a", continue_on_failure=True), node("b", "a"), node("c"), edges=[edge("a", "c", "failure")])
    )

    play.fail("a", code="Boom")

    assert play.inputs("b") is None
    assert play.inputs("c") == {"error": {"code": "Boom", "message": "no"}}


def test_a_node_of_several_parents_gets_null_from_one_that_continues_on_failure() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b"), node("c", "a", "b")))
    play.fail("a")

    play.succeed("b", output=1)

    assert play.inputs("c") == {"a": None, "b": 1}


def test_an_end_edge_from_a_finished_node_gives_its_output() -> None:
    play = Play(graph(once("a"), node("b"), edges=[edge("a", "b", "end")]))

    play.succeed("a", output=7)

    assert play.inputs("b") == 7


# With inputs.


def test_literal_inputs_are_handed_over_as_they_are() -> None:
    assert Play(graph(node("a", inputs={"x": [1, {"y": None}]})), params={"p": 1}).inputs("a") == {
        "x": [1, {"y": None}]
    }


def test_null_inputs_are_inputs() -> None:
    assert Play(graph(node("a", inputs=None)), params={"p": 1}).inputs("a") is None


def test_a_literal_is_unwrapped() -> None:
    assert Play(graph(node("a", inputs={"x": {"$literal": {"$from": "zz"}}}))).inputs("a") == {"x": {"$from": "zz"}}


def test_params_and_outputs_are_filled_in() -> None:
    inputs = {"p": {"$param": "a.b"}, "o": {"$from": "first.rows[1].id"}, "l": 1}
    play = Play(graph(node("first"), node("n", inputs=inputs)), params={"a": {"b": 2}})

    play.succeed("first", output={"rows": [{}, {"id": 7}]})

    assert play.inputs("n") == {"p": 2, "o": 7, "l": 1}


def test_the_longest_known_node_id_wins() -> None:
    inputs = {"x": {"$from": "a.b.c"}}
    play = Play(graph(node("a"), node("a.b"), node("n", inputs=inputs)))

    play.succeed("a", output={"b": {"c": "wrong"}})
    assert play.state("n") == "pending"
    play.succeed("a.b", output={"c": "right"})

    assert play.inputs("n") == {"x": "right"}


def test_a_path_that_the_output_lacks_takes_the_default() -> None:
    play = Play(graph(node("a"), node("n", inputs={"x": {"$from": "a.region", "default": "eu"}})))

    play.succeed("a", output={})

    assert play.inputs("n") == {"x": "eu"}


def test_a_path_that_the_output_lacks_fails_the_node_with_bad_input() -> None:
    play = Play(graph(node("a"), node("n", inputs={"x": {"$from": "a.regoin"}})))
    play.succeed("a", output={"region": "eu"})

    decision = play.place("n")

    (fact,) = play.facts(f.NodeFailed)
    assert fact.error["code"] == "bad_input"
    assert "inputs.x.$from" in fact.error["message"]
    assert "did you mean 'region'?" in fact.error["message"]
    assert play.states == {"a": "finished", "n": "failed"}
    assert play.attempt("n") == 0
    assert [placed.node for placed in decision.unused] == ["n"]
    assert play.task.error is not None
    assert play.task.error["node_id"] == "n"


def test_a_param_that_is_not_there_fails_the_node_with_bad_input() -> None:
    play = Play(graph(node("n", inputs={"x": {"$param": "who"}})), params={"name": "Ada"})

    play.place("n")

    assert play.task.runs["n"].error is not None
    assert play.task.runs["n"].error["code"] == "bad_input"


def test_inputs_that_cannot_be_built_are_a_failure_like_any_other() -> None:
    bad = node("n", inputs={"x": {"$param": "who"}})
    play = Play(graph(bad, node("alert"), node("b", "n"), edges=[edge("n", "alert", "failure")]))

    play.place("n")

    assert play.states == {"n": "failed", "alert": "ready", "b": "skipped"}


def test_inputs_are_built_anew_for_every_attempt() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "a", "b", fan_in="any", retry_policy={"backoff_sec": 0})))
    play.succeed("a", output=1)
    assert play.inputs("c") == {"a": 1}
    play.fail("c")

    play.succeed("b", output=2)

    assert play.inputs("c") == {"a": 1, "b": 2}


# Artifacts.


def artifact_from(play: Play, name: str) -> None:
    play.place(name)
    play.tell(Succeeded(*play.attempt_of(name), Payload(None, BIG)))


def test_a_large_output_travels_on_as_a_reference() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", "a", inputs={"x": {"$from": "a.rows[0]"}})))

    artifact_from(play, "a")

    assert play.inputs("b") == BIG
    assert play.inputs("c") == {"x": Artifact("ref", 100_000, "json", ("rows", 0))}


# Outputs.


def test_output_of_a_node_is_missing_until_it_has_finished() -> None:
    play = Play(graph(node("a")))
    assert output_of(play.task, "a") is MISSING

    play.succeed("a", output=None)

    assert output_of(play.task, "a") is None


def finished(raw: dict[str, Any], outputs: dict[str, Any], params: Any = None) -> Play:
    play = Play(raw, params=params)
    for name, output in outputs.items():
        play.succeed(name, output=output)
    assert play.status == "finished"
    return play


def test_a_tasks_output_is_its_mapping_filled_in() -> None:
    raw = graph(node("a"), node("b"), output={"rows": {"$from": "a.rows"}, "who": {"$param": "name"}})

    assert task_output(finished(raw, {"a": {"rows": 3}, "b": 0}, {"name": "Ada"}).task) == {"rows": 3, "who": "Ada"}


def test_a_mapping_may_be_one_reference() -> None:
    raw = graph(node("a"), node("b", "a"), output={"$from": "a"})

    assert task_output(finished(raw, {"a": 1, "b": 2}).task) == 1


def test_else_the_single_leafs_output() -> None:
    assert task_output(finished(graph(node("a"), node("b", "a")), {"a": 1, "b": 2}).task) == 2


def test_else_a_dict_of_the_leaves_outputs() -> None:
    raw = graph(node("a"), node("b", "a"), node("c", "a"))

    assert task_output(finished(raw, {"a": 1, "b": 2, "c": None}).task) == {"b": 2, "c": None}


def test_leaves_without_output_are_left_out() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b")))
    play.fail("a")

    play.succeed("b", output=2)

    assert task_output(play.task) == {"b": 2}


def test_a_single_leaf_without_output_gives_null() -> None:
    play = Play(graph(once("a", continue_on_failure=True)))

    play.fail("a")

    assert task_output(play.task) is None


def test_a_mapping_that_leads_nowhere_says_where() -> None:
    play = Play(graph(node("a"), output={"x": {"$from": "a.rows"}}))

    play.succeed("a", output={})

    with pytest.raises(InputError, match=r"x\.\$from"):
        task_output(play.task)


def test_node_inputs_share_what_needs_no_copy() -> None:
    play = Play(graph(node("a", inputs={"big": [1, 2, 3]})))
    a = play.task.graph.nodes["a"]

    assert node_inputs(play.task, a.node_id) is a.inputs
