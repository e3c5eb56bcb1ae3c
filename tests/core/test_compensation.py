"""What is undone of a task that fails or is cancelled: nodes, items and runs that finished, the last of them first."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.payload import Payload
from flowkit.core.replan import plan_restart
from flowkit.core.reports import Succeeded
from flowkit.core.selection import unfinished_business
from tests.core.builders import START, Play, graph, node, once

UNDO = {"type": "work"}


def saga() -> Play:
    play = Play(graph(node("a", compensate=UNDO), node("b", "a", compensate=UNDO), once("c", "b")))
    play.succeed("a")
    play.succeed("b")
    play.fail("c")
    return play


def test_what_finished_is_undone_the_last_first() -> None:
    play = saga()

    assert (play.status, list(play.ready())) == ("cancelling", ["b/compensate"])
    play.succeed("b/compensate")
    assert list(play.ready()) == ["a/compensate"]
    play.succeed("a/compensate")
    assert play.status == "failed"


def items() -> Play:
    """A map of three of which the second fails and the others are undone."""
    load = once("load", foreach=["x", "y", "z"], compensate={"type": "work", "inputs": {"of": {"$item": ""}}})
    play = Play(graph(load, node("sum", "load")))
    play.succeed("load[0]")
    play.succeed("load[2]")
    play.fail("load[1]")
    return play


def test_items_that_finished_are_undone() -> None:
    play = items()

    assert list(play.ready()) == ["load[2]/compensate"]
    assert play.place("load[2]/compensate").effects[0].inputs == {"of": "z"}
    play.succeed("load[2]/compensate")
    play.succeed("load[0]/compensate")

    assert (play.status, play.states["load[1]"]) == ("failed", "failed")
    assert "load[1]/compensate" not in play.states


def test_items_that_were_undone_run_again_with_those_that_failed() -> None:
    play = items()
    play.succeed("load[2]/compensate")
    play.succeed("load[0]/compensate")
    every = {"load", "load[0]", "load[1]", "load[2]", "sum"}

    assert unfinished_business(play.task) == every
    assert plan_restart(play.task, {"from_node": "load[1]"}).again == every

    play.ask("restart", failed_only=True)
    play.succeed("load[0]", output=1)
    play.succeed("load[1]", output=2)
    play.succeed("load[2]", output=3)
    play.succeed("sum")
    assert (play.status, "load[0]/compensate" in play.states) == ("finished", False)


def test_the_items_of_a_map_that_finished_are_undone_when_the_task_fails_later() -> None:
    play = Play(graph(node("load", foreach=[1, 2], compensate=UNDO), once("sum", "load")))
    play.succeed("load[0]")
    play.succeed("load[1]")
    play.fail("sum")

    play.succeed("load[1]/compensate")
    play.succeed("load[0]/compensate")

    assert play.status == "failed"
    assert unfinished_business(play.task) == {"load", "sum"}


def test_each_run_of_a_repetition_is_undone() -> None:
    repeated = node("add", repeat={"until": "output == 2"}, compensate=UNDO)
    play = Play(graph(repeated, once("last", "add")))
    play.succeed("add#1", output=1)
    play.succeed("add#2", output=2)
    play.fail("last")

    play.succeed("add#2/compensate")
    play.succeed("add#1/compensate")

    assert play.status == "failed"


def test_a_report_about_what_is_to_be_undone_later_says_that_the_state_is_behind() -> None:
    play = Play(graph(node("load", foreach=[1, 2], compensate=UNDO), once("last", "load")))
    play.succeed("load[0]", "load[1]", output=1)
    play.fail("last")
    play.place("load[1]/compensate")
    early = Succeeded("load[0]/compensate", 1, "load[0]/compensate#1", Payload(1))
    play.tell(early)

    assert (play.last.ahead, play.last.stale) == ([early], 0)


@pytest.mark.parametrize("of", ["task", "node"])
def test_a_deadline_that_has_passed_does_not_bound_what_undoes(of: str) -> None:
    undo = {"type": "undo", "retry_policy": {"max": 3, "backoff_sec": 1, "jitter": False}}
    deadline = {"deadline": START + 10}
    own: dict[str, Any] = deadline if of == "node" else {}
    whole: dict[str, Any] = deadline if of == "task" else {}
    play = Play(graph(node("a", compensate=undo, **own), once("b", "a"), **whole))
    play.succeed("a")
    play.wait(20)
    if of == "node":
        play.fail_for_good("b")
    assert (play.ready(), play.task.deadline_of("a/compensate")) == (["a/compensate"], None)

    play.fail("a/compensate")
    play.wait(1)
    play.succeed("a/compensate")
    assert (play.status, "not_undone" in (play.task.error or {})) == ("failed", False)
