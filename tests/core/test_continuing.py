"""A restart of what failed goes on inside the sub-graphs that failed: what the parent decides, and what the child."""

from __future__ import annotations

from typing import Any

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.effects import Continue, Spawn, Steer
from flowkit.core.opening import child_id
from flowkit.core.payload import Payload
from flowkit.core.replan import plan_restart
from flowkit.core.reports import ChildEnded, ChildGone
from tests.core.builders import Play, graph, node, once

INNER = graph(node("in"))
OOPS = {"code": "Oops", "message": "no"}
FIRST = child_id("t", "c", 1)


def parent(*before: dict[str, Any], **more: Any) -> Play:
    said = {"depends_on": [one["node_id"] for one in before]} if before else {}
    return Play(graph(*before, node("c", type="task", graph=INNER, **said, **more), node("z", "c")), params={"p": 1})


def ended(play: Play, status: str, name: str = "c", *, attempt: int | None = None, output: Any = None) -> None:
    run = play.task.runs[name]
    report = ChildEnded(name, attempt or run.attempt, run.child, status, Payload(output), None)
    play.tell(report)


def failed(**more: Any) -> Play:
    play = parent(**more)
    ended(play, "failed")
    assert play.status == "failed"
    return play


# ---- what the parent decides


def test_a_failed_child_goes_on_as_another_attempt_and_its_node_takes_what_it_gives_then() -> None:
    play = failed()

    assert play.ask("restart", failed_only=True) == ""
    assert play.facts(f.TaskRestarted) == [f.TaskRestarted(1, ("c", "z"), "", None, ("c",))]
    assert play.last.effects == [Continue("c", 2, FIRST, None)]
    assert (play.state("c"), play.attempt("c"), play.task.children) == ("running", 2, {"c": FIRST})
    ended(play, "finished", output={"n": 2})
    assert play.inputs("z") == {"n": 2}


def test_an_end_that_a_child_came_to_for_an_earlier_attempt_is_stale() -> None:
    play = failed()
    play.ask("restart", failed_only=True)

    ended(play, "failed", attempt=1)
    assert (play.last.recorded, play.last.stale, play.state("c")) == ([], 1, "running")


def test_a_child_may_go_on_again_and_again() -> None:
    play = failed()
    for attempt in (2, 3):
        play.ask("restart", failed_only=True)
        assert play.last.effects == [Continue("c", attempt, FIRST, None)]
        ended(play, "failed")
    assert play.status == "failed"


def test_a_restart_from_the_node_or_of_the_whole_makes_a_new_child() -> None:
    for options in ({"from_node": "c"}, {}):
        play = failed()
        play.ask("restart", **options)
        (spawn,) = play.last.effects
        assert isinstance(spawn, Spawn)
        assert spawn.child == child_id("t", "c", 2)
        ended(play, "failed")
        play.ask("restart", failed_only=True)
        assert play.last.effects == [Continue("c", 3, child_id("t", "c", 2), None)]


def test_a_retry_after_a_child_went_on_is_a_new_child() -> None:
    play = parent(retry_policy={"max": 2, "backoff_sec": 1, "jitter": False})
    ended(play, "failed")
    play.wait(1)
    ended(play, "failed")
    play.ask("restart", failed_only=True)
    assert play.last.effects == [Continue("c", 3, child_id("t", "c", 2), None)]

    ended(play, "failed")
    play.wait(1)
    assert play.task.children == {"c": child_id("t", "c", 4)}


def test_a_cancelled_child_goes_on() -> None:
    play = parent()
    play.ask("cancel")
    ended(play, "cancelled")
    assert play.status == "cancelled"

    play.ask("restart", failed_only=True)
    assert play.last.effects == [Continue("c", 2, FIRST, None)]


def test_a_child_begins_anew_where_something_before_it_runs_again() -> None:
    play = parent(once("a", continue_on_failure=True))
    play.fail_for_good("a")
    ended(play, "failed")

    plan = plan_restart(play.task, {"failed_only": True})
    assert (plan.again, plan.within) == ({"a", "c", "z"}, frozenset())


def test_new_params_go_to_a_child_that_goes_on() -> None:
    play = failed(inputs={"n": {"$param": "p"}})

    play.ask("restart", failed_only=True, params={"p": 2})
    assert play.last.effects == [Continue("c", 2, FIRST, {"n": 2})]


def test_of_a_map_only_the_failed_items_go_on() -> None:
    play = Play(graph(node("m", type="task", graph=INNER, foreach=[1, 2, 3], inputs={"n": {"$item": ""}})))
    ended(play, "finished", "m[0]", output=0)
    ended(play, "failed", "m[1]")
    ended(play, "failed", "m[2]")
    assert plan_restart(play.task, {"failed_only": True}).within == {"m[1]", "m[2]"}

    play.ask("restart", failed_only=True)
    (restarted,) = play.facts(f.TaskRestarted)
    assert (restarted.nodes, restarted.within) == (("m", "m[1]", "m[2]"), ("m",))
    assert play.last.effects == [Continue(name, 2, child_id("t", name, 1), None) for name in ("m[1]", "m[2]")]
    ended(play, "finished", "m[1]", output=1)
    ended(play, "failed", "m[2]")

    play.ask("restart", from_node="m[2]")
    (spawn,) = play.last.effects
    assert isinstance(spawn, Spawn)
    assert spawn.child == child_id("t", "m[2]", 3)
    ended(play, "finished", "m[2]", output=2)
    assert play.status == "finished"


def test_an_item_that_never_had_a_child_gets_a_first_one() -> None:
    play = Play(graph(node("m", type="task", graph=INNER, foreach=[1, 2], inputs={}, max_parallel=1), fail_fast=True))
    ended(play, "failed", "m[0]")
    assert (play.status, play.state("m[1]"), play.attempt("m[1]")) == ("failed", "cancelled", 0)

    play.ask("restart", failed_only=True)
    assert play.last.effects == [Continue("m[0]", 2, child_id("t", "m[0]", 1), None)]
    ended(play, "finished", "m[0]")
    (spawn,) = play.last.effects
    assert isinstance(spawn, Spawn)
    assert (spawn.name, spawn.child) == ("m[1]", child_id("t", "m[1]", 1))


def test_with_an_edited_graph_a_child_goes_on_unless_its_own_node_was_changed() -> None:
    play = Play(graph(node("c", type="task", graph=INNER), once("x")))
    ended(play, "failed")
    play.fail_for_good("x")

    def within(inner: Any, **options: Any) -> frozenset[str]:
        edited = parse_graph(graph(node("c", type="task", graph=inner), once("x", inputs={"n": 1})))
        return plan_restart(play.task, options, edited).within

    assert within(INNER, failed_only=True) == {"c"}
    assert within(INNER) == frozenset()
    assert within(graph(node("in", inputs={"n": 2})), failed_only=True) == frozenset()


def test_a_child_that_cannot_go_on_gives_way_to_a_new_one() -> None:
    play = failed()
    play.ask("restart", failed_only=True)

    play.tell(ChildGone("c", 1, FIRST, "it was deleted"))
    assert play.last.stale == 1
    play.tell(ChildGone("c", 2, FIRST, "it was deleted"))
    (spawn,) = play.last.effects
    assert isinstance(spawn, Spawn)
    assert (spawn.attempt, spawn.child) == (3, child_id("t", "c", 3))
    (lost,) = play.facts(f.LeaseLost)
    assert (lost.why, lost.error["code"]) == ("child_gone", "child_gone")


def test_a_cancel_reaches_the_attempt_that_went_on() -> None:
    play = failed()
    play.ask("restart", failed_only=True)
    play.ask("cancel", grace_sec=3)
    assert play.last.effects == [Steer("c", 2, FIRST, "cancel", "user_request", 3)]
    play.tell(ChildGone("c", 2, FIRST, "it was deleted"))
    assert play.status == "cancelled"


# ---- what the child decides


def test_a_child_that_failed_opens_a_generation_of_what_failed_and_keeps_the_rest() -> None:
    play = Play(graph(node("a"), once("b", "a")))
    play.succeed("a", output=1)
    play.fail_for_good("b")

    assert play.ask("continue", attempt=2) == ""
    assert play.facts(f.TaskRestarted) == [f.TaskRestarted(1, ("b",), "", None, (), 2)]
    assert (play.task.for_attempt, play.ready()) == (2, ["b"])


def test_a_child_in_which_no_node_failed_begins_anew_as_a_whole() -> None:
    play = Play(graph(node("a"), node("e", "a", type="end", inputs={"status": "failed"})))
    play.succeed("a")
    assert play.status == "failed"

    play.ask("continue", attempt=2)
    assert (play.facts(f.TaskRestarted)[0].nodes, play.ready()) == (None, ["a"])


def test_a_child_that_finished_or_runs_is_taken_as_it_is() -> None:
    done = Play(graph(node("a")))
    done.succeed("a")
    for play, status in ((done, "finished"), (Play(graph(node("a"))), "running")):
        play.ask("continue", attempt=2)
        assert play.last.recorded[1:] == [f.ParentWaits(2)]
        assert (play.status, play.task.for_attempt) == (status, 2)


def test_a_child_is_asked_to_go_on_once_for_each_attempt() -> None:
    play = Play(graph(node("a")))
    play.ask("continue", attempt=3)

    assert "its parent waits for attempt 3" in play.ask("continue", attempt=3)
    assert "its parent waits for attempt 3" in play.ask("continue", attempt=2)
    for nonsense in (None, True, "4", 0):
        assert "no attempt of its parent's node" in play.ask("continue", attempt=nonsense)


def test_a_child_that_is_being_cancelled_begins_again_when_that_is_over() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a", output=1)
    play.start("b")
    play.ask("cancel")
    play.ask("continue", attempt=2, params={"p": 2})
    assert (play.status, play.last.recorded[1:]) == ("cancelling", [f.ParentWaits(2, {"params": {"p": 2}})])

    play.release("b")
    assert [type(fact) for fact in play.last.recorded[-2:]] == [f.TaskEnded, f.TaskRestarted]
    assert (play.status, play.ready(), play.task.for_attempt, play.task.params) == ("running", ["b"], 2, {"p": 2})


def test_a_cancel_calls_that_off() -> None:
    play = Play(graph(node("a")))
    play.start("a")
    play.ask("cancel")
    play.ask("continue", attempt=2)
    play.ask("cancel")

    play.release("a")
    assert (play.status, play.task.for_attempt) == ("cancelled", 2)


def test_what_failed_in_a_child_of_the_child_goes_on_as_well() -> None:
    play = failed()

    play.ask("continue", attempt=2)
    assert play.last.effects == [Continue("c", 2, FIRST, None)]
