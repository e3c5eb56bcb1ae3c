"""Outputs that travel as artifacts: whoever decides by what is in them has it read first."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.effects import Fetch, Spawn
from flowkit.core.inputs import task_output
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Fetched, Succeeded
from flowkit.core.vars import MOST_BYTES
from tests.core.builders import START, Play, graph, node

LARGE = Artifact("ref", 100_000, "json")
CONTENT: dict[str, Any] = {"n": 5, "name": "go", "status": "cancelled", "text": "x" * 100, "huge": "y" * MOST_BYTES}


def from_large(*nodes: dict[str, Any], read: bool = True, **more: Any) -> Play:
    """`big` has ended with a large output, which was read where that was asked for."""
    play = Play(graph(node("big"), *nodes, **more))
    play.place("big")
    play.tell(Succeeded(*play.attempt_of("big"), Payload(None, LARGE)))
    if read:
        assert list(play.last.questions) == [Fetch("ref", "json")]
        play.tell(Fetched("ref", CONTENT))
    return play


def error_of(play: Play, name: str) -> dict[str, Any]:
    return play.task.runs[name].error or {}


def test_a_function_is_given_what_its_arguments_name() -> None:
    io = {"fn": "vars.set", "fn_args": {"n": {"$from": "big.n"}, "all": [{"$from": "big.text"}]}}
    play = from_large(node("fn", type="coordinator_fn", io=io))
    assert play.task.vars == {"n": 5, "all": ["x" * 100]}


def test_what_is_too_much_for_a_function_fails_its_node() -> None:
    io = {"fn": "vars.set", "fn_args": {"all": {"$from": "big.huge"}}}
    assert error_of(from_large(node("fn", type="coordinator_fn", io=io)), "fn")["code"] == "value_too_large"


def test_a_sleep_and_a_signal_know_what_their_inputs_name() -> None:
    play = from_large(node("s", type="sleep", inputs={"seconds": {"$from": "big.n"}}))
    assert (play.state("s"), play.task.next_wake()) == ("waiting", START + 5)

    play = from_large(node("s", type="signal", inputs={"name": {"$from": "big.name"}}))
    assert list(play.task.waiting) == ["go"]


def test_an_end_gives_a_large_output_as_it_is() -> None:
    end = node("end", type="end", inputs={"output": {"$from": "big.text"}})
    play = from_large(end, read=False)
    assert play.status == "finished"
    assert task_output(play.task) == LARGE.at(("text",))


def test_an_end_gives_what_it_makes_of_large_outputs() -> None:
    said = {"output": {"text": {"$from": "big.text"}}, "status": {"$from": "big.status"}}
    play = from_large(node("end", type="end", inputs=said))
    assert play.status == "cancelled"
    assert task_output(play.task) == {"text": "x" * 100}


def test_an_end_makes_no_output_that_is_too_large() -> None:
    play = from_large(node("end", type="end", inputs={"output": [{"$from": "big.huge"}]}))
    assert error_of(play, "end")["code"] == "bad_input"
    assert "make it in a node, and give that node's output" in error_of(play, "end")["message"]


def test_a_large_output_may_be_all_params_of_a_sub_graph() -> None:
    play = from_large(node("sub", "big", type="task", graph=graph(node("a"))), read=False)
    [spawn] = [effect for effect in play.last.effects if isinstance(effect, Spawn)]
    assert spawn.inputs == LARGE


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ({"$from": "big.n", "default": 3}, LARGE.at(("n",))),
        ({"$from": "big.nope", "default": 3}, 3),
        ({"$from": "big.n.deeper", "default": None}, None),
    ],
)
def test_a_default_takes_the_place_of_what_a_large_output_lacks(said: dict[str, Any], given: Any) -> None:
    play = from_large(node("reads", inputs={"x": said}), read=False)
    play.place("reads")
    assert list(play.last.questions) == [Fetch("ref", "json")]
    assert play.state("reads") == "ready"
    play.tell(Fetched("ref", CONTENT))
    assert play.inputs("reads") == {"x": given}


def test_bytes_hold_nothing_that_a_path_leads_to() -> None:
    play = Play(graph(node("big"), node("reads", inputs={"x": {"$from": "big.n", "default": 3}})))
    play.place("big")
    play.tell(Succeeded(*play.attempt_of("big"), Payload(None, Artifact("ref", 10, "bytes"))))
    assert play.inputs("reads") == {"x": 3}


def test_without_a_default_nobody_looks() -> None:
    play = from_large(node("reads", inputs={"x": {"$from": "big.nope"}}), read=False)
    assert play.inputs("reads") == {"x": LARGE.at(("nope",))}  # whoever reads it there finds that there is none
