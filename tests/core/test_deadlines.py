"""Deadlines: when a task and its nodes must have ended, what follows if they have not, and who inherits them."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core.deadlines import check, check_given, earliest
from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.effects import Continue, Spawn
from flowkit.core.moments import read_moment, show_moment
from flowkit.core.opening import child_id
from flowkit.core.payload import Payload
from flowkit.core.problems import Problems
from flowkit.core.replan import in_time, plan_restart
from flowkit.core.reports import ChildEnded
from flowkit.errors import GraphError, InputError
from tests.core.builders import START, Play, graph, node

DUE = START + 10
ISO = show_moment(DUE)


def error(play: Play, name: str) -> dict[str, Any]:
    return play.task.runs[name].error or {}


# ---- moments


def test_a_moment_is_a_time_with_its_zone_or_epoch_seconds() -> None:
    assert read_moment("1970-01-01T00:01:00Z") == read_moment("1970-01-01T01:01:00+01:00") == read_moment(60) == 60.0
    assert (show_moment(60.0), show_moment(60.5)) == ("1970-01-01T00:01:00Z", "1970-01-01T00:01:00.500000Z")
    for wrong, says in (
        ("2027-01-01T00:00:00", "with its zone"),
        ("soon", "a time such as"),
        (None, "a time such as"),
        (True, "a time such as"),
        (float("nan"), "epoch"),
        (-1, "epoch"),
        (1e18, "epoch"),
    ):
        with pytest.raises(InputError, match=says):
            read_moment(wrong)


# ---- nodes


@pytest.mark.parametrize("deadline", [DUE, ISO, {"$param": "due"}, {"$expr": "params.due"}])
def test_a_node_that_has_not_ended_by_its_deadline_fails(deadline: Any) -> None:
    play = Play(graph(node("a", deadline=deadline), node("b", "a")), params={"due": DUE})
    play.start("a")
    play.wait(9)
    assert play.state("a") == "running"

    play.wait(1)
    assert error(play, "a") == {"code": "deadline", "message": f"it had not ended by its deadline, {ISO}"}
    assert (play.status, list(play.revokes())) == ("failed", ["a"])


def test_a_node_that_still_waits_for_others_fails_all_the_same() -> None:
    play = Play(graph(node("a"), node("b", "a", deadline=DUE)))
    play.start("a")
    play.wait(10)
    assert (play.state("a"), error(play, "b")["code"]) == ("running", "deadline")
    play.succeed("a")
    assert play.status == "failed"


def test_a_node_is_not_tried_again_beyond_its_deadline() -> None:
    again = {"max": 9, "backoff_sec": 6, "factor": 1, "jitter": False}
    play = Play(graph(node("a", deadline=DUE, retry_policy=again)))
    play.fail("a")
    play.wait(6)
    play.fail("a", code="Busy")
    assert (play.state("a"), error(play, "a")["code"]) == ("failed", "deadline")
    assert "it failed with Busy: no" in error(play, "a")["message"]
    assert ISO in error(play, "a")["message"]


def test_the_deadline_of_a_group_is_that_of_its_items() -> None:
    play = Play(graph(node("m", foreach=[1, 2], deadline=DUE)))
    play.start("m[0]")
    assert play.task.deadline_of("m[0]") == DUE
    play.wait(10)
    assert (play.state("m"), error(play, "m")["code"]) == ("failed", "deadline")
    assert list(play.revokes()) == ["m[0]"]


def test_a_deadline_that_is_none_with_these_params_fails_its_node_at_once() -> None:
    play = Play(graph(node("a", deadline={"$param": "due"}), node("b")), params={"due": "soon"})
    assert play.facts(f.DeadlineSet) == [f.DeadlineSet("a", 0.0)]
    play.wait(0)
    assert error(play, "a")["code"] == "bad_input"
    assert "deadline: expected a time" in error(play, "a")["message"]
    assert play.state("b") == "ready"


def test_deadlines_that_a_crash_cut_off_are_told_when_the_task_is_looked_at_again() -> None:
    play = Play(graph(node("a", deadline=DUE)), begin=False)
    from flowkit.core.evolve import evolve

    evolve(play.task, f.TaskCreated(), START)
    play.recorded.append((START, f.TaskCreated()))
    play.wait(0)
    assert play.facts(f.DeadlineSet) == [f.DeadlineSet("a", DUE)]


# ---- the whole


def test_a_task_that_has_not_ended_by_its_deadline_fails() -> None:
    play = Play(graph(node("a"), node("b", "a"), deadline=ISO))
    play.start("a")
    play.wait(10)
    assert play.status == "cancelling"
    play.release("a")
    assert (play.status, (play.task.error or {})["code"]) == ("failed", "deadline")


def test_a_restart_after_the_deadline_needs_a_later_one() -> None:
    play = Play(graph(node("a", retry_policy={"max": 1}), deadline=DUE))
    play.wait(10)
    assert play.status == "failed"

    assert play.ask("restart") == f"its deadline, {ISO}, has passed: give it a later one with `deadline`"
    assert "has passed" in in_time(play.task, plan_restart(play.task, {}), {}, None, play.now).refused
    assert play.ask("restart", deadline=play.now + 5) == ""
    play.wait(5)
    assert play.status == "failed"

    edited = parse_graph(graph(node("a"), deadline=play.now + 7))
    assert play.ask("restart", graph_ref="g2", graph=edited, from_node="a") == ""
    assert play.task.deadline == play.now + 7


def test_other_params_of_a_restart_are_other_deadlines() -> None:
    play = Play(graph(node("a", deadline={"$param": "due"})), params={"due": DUE})
    play.wait(10)
    play.ask("restart", params={"due": DUE + 90})
    assert play.task.deadlines == {"a": DUE + 90}
    play.wait(89)
    assert play.state("a") == "ready"


# ---- children


def test_a_child_inherits_the_earliest_deadline() -> None:
    inner = graph(node("in"))
    play = Play(
        graph(node("c", type="task", graph=inner, deadline=DUE + 5), node("d", type="task", graph=inner), deadline=DUE)
    )
    assert [spawn.deadline for spawn in play.last.effects if isinstance(spawn, Spawn)] == [DUE, DUE]
    play = Play(graph(node("c", type="task", graph=inner, deadline=DUE), deadline=DUE + 5))
    assert [spawn.deadline for spawn in play.last.effects if isinstance(spawn, Spawn)] == [DUE]


def test_a_child_goes_on_with_the_deadline_of_its_parents_restart() -> None:
    play = Play(graph(node("c", type="task", graph=graph(node("in"))), deadline=DUE))
    child = child_id("t", "c", 1)
    play.tell(ChildEnded("c", 1, child, "failed", Payload(), None))
    play.now += 10
    play.ask("restart", failed_only=True, deadline=play.now + 30)
    assert play.last.effects == [Continue("c", 2, child, None, play.now + 30)]

    for own, comes_to in ((None, 30), (5, 30), (20, 20), (40, 30)):
        its = Play(graph(node("a"), **({} if own is None else {"deadline": START + own})))
        its.fail_for_good("a")
        its.now += 10
        its.ask("continue", attempt=2, deadline=START + 30)
        assert its.task.deadline == START + comes_to


# ---- at the door


def test_deadlines_that_make_no_sense_are_refused_with_their_place() -> None:
    for deadline, says in (
        ("2027-01-01T00:00:00", "with its zone"),
        ({"$from": "b"}, "is known when its task begins"),
        ({"$item": ""}, "is known when its task begins"),
        ({"$expr": "nodes['b'].output"}, "is known when its task begins"),
    ):
        with pytest.raises(GraphError) as refusal:
            parse_graph(graph(node("a", deadline=deadline), node("b")))
        assert says in str(refusal.value)
        assert "nodes[0].deadline" in str(refusal.value)
    with pytest.raises(GraphError, match="E_DEADLINE at deadline"):
        parse_graph(graph(node("a"), deadline="soon"))


def test_a_deadline_is_stored_as_it_was_written() -> None:
    raw = graph(node("a", deadline={"$param": "due"}), deadline=ISO)
    stored = normalise(raw)
    assert (stored["deadline"], stored["nodes"][0]["deadline"]) == (ISO, {"$param": "due"})
    assert normalise(stored) == stored


def test_what_has_passed_when_a_task_is_created_is_told() -> None:
    problems = Problems()
    raw = graph(
        node("a", deadline=DUE), node("b", deadline={"$param": "due"}), node("c", deadline=DUE + 9), deadline=DUE
    )
    check(parse_graph(raw), {"due": DUE}, DUE, problems)
    assert check_given(DUE, DUE, problems) is None
    assert check_given(DUE + 1, DUE, problems) == DUE + 1
    with pytest.raises(GraphError) as refusal:
        problems.raise_any()
    assert [problem.place for problem in refusal.value.problems] == [
        "deadline", "nodes[0].deadline", "nodes[1].deadline", "deadline",
    ]  # fmt: skip
    assert "has passed" in str(refusal.value.problems[0])


def test_the_earliest_of_what_there_is() -> None:
    assert (earliest(), earliest(None, 3.0), earliest(3.0, 2.0)) == (None, 3.0, 2.0)
