"""What a restart would do, and what it does: with other params, other inputs, an edited graph."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.inputs import task_output
from flowkit.core.replan import RestartPlan, plan_restart
from tests.core.builders import Play, edge, graph, node, once

CHAIN = graph(node("a"), once("b", "a"), node("c", "b"))


def failed() -> Play:
    play = Play(CHAIN)
    play.succeed("a", output=1)
    play.fail_for_good("b")
    return play


def plan(play: Play, edited: dict[str, Any] | None = None, **args: Any) -> RestartPlan:
    return plan_restart(play.task, args, None if edited is None else parse_graph(edited))


def restart(play: Play, edited: dict[str, Any], **args: Any) -> str:
    return play.ask("restart", graph_ref="ref-2", graph=parse_graph(edited), **args)


def test_a_task_that_runs_cannot_be_restarted() -> None:
    assert "only a task that has ended can be restarted" in plan(Play(CHAIN)).refused


def test_the_whole_runs_again_unless_less_is_asked_for() -> None:
    play = failed()

    assert plan(play) == RestartPlan(frozenset("abc"), whole=True)
    assert plan(play, failed_only=True) == RestartPlan(frozenset("bc"), frozenset("a"))
    assert plan(play, from_node="b") == RestartPlan(frozenset("bc"), frozenset("a"))


def test_a_plan_says_why_it_is_none() -> None:
    play = failed()

    assert (
        "did you mean 'b'" in plan(play, from_node="bb").refused or "no node 'bb'" in plan(play, from_node="bb").refused
    )
    assert "restart from there" in plan(play, from_node="c").refused
    done = Play(graph(node("a")))
    done.succeed("a")
    assert plan(done, failed_only=True).refused == "nothing in it failed"


def test_what_is_new_or_changed_or_did_not_finish_runs_and_what_follows_it() -> None:
    edited = graph(node("a"), once("b", "a"), node("c", "b"), node("d", "a"), node("e", "d"))

    assert plan(failed(), edited) == RestartPlan(frozenset("bcde"), frozenset("a"), frozenset("de"))


def test_what_is_gone_is_told() -> None:
    assert plan(failed(), graph(node("a"), node("x", "a"))).removed == frozenset("bc")


@pytest.mark.parametrize(
    ("edited", "again"),
    [
        (graph(node("a", inputs={"x": 1}), node("b", "a")), {"a", "b"}),
        (graph(node("a"), node("b", "a", type="other")), {"b"}),
        (graph(node("a"), node("b")), {"b"}),
        (graph(node("a"), node("b"), edges=[edge("a", "b", "end")]), {"b"}),
        (graph(node("a", retry_policy={"max": 9}, timeout_sec=5), node("b", "a")), set()),
        (graph(node("a", limits=[{"key": "k", "max": 1}]), node("b", "a")), set()),
    ],
)
def test_a_node_is_changed_if_it_would_do_something_else(edited: dict[str, Any], again: set[str]) -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a")
    play.succeed("b")

    assert plan(play, edited).again == again


def test_an_edited_graph_goes_on_from_what_is_kept() -> None:
    play = failed()
    assert restart(play, graph(node("a"), node("b2", "a", inputs={"x": {"$from": "a"}}), node("c", "b2"))) == ""

    assert play.states == {"a": "finished", "b2": "ready", "c": "pending"}
    assert play.inputs("b2") == {"x": 1}
    play.succeed("b2", output=2)
    play.succeed("c", output=3)
    assert (play.status, task_output(play.task)) == ("finished", 3)
    assert play.facts(f.TaskRestarted)[0].graph == "ref-2"


def test_a_condition_that_is_new_is_decided_for_what_is_kept() -> None:
    play = failed()
    edges = [edge("a", "b") | {"when": "output > 5"}, edge("a", "d") | {"otherwise": True}]
    restart(play, graph(node("a"), once("b"), node("d"), edges=edges))

    assert play.states == {"a": "finished", "b": "skipped", "d": "ready"}


def test_items_of_a_group_that_is_kept_are_kept() -> None:
    play = Play(graph(node("m", foreach=[1, 2]), once("z", "m")))
    play.succeed("m[0]", "m[1]", output=1)
    play.fail_for_good("z")
    restart(play, graph(node("m", foreach=[1, 2]), node("z", "m", inputs={"x": {"$from": "m"}})))

    assert play.inputs("z") == {"x": [1, 1]}


def test_other_params_are_given_to_what_runs_again() -> None:
    play = Play(graph(once("a", inputs={"x": {"$param": "x"}})), params={"x": 1})
    play.fail_for_good("a")
    assert play.ask("restart", params={"x": 2}) == ""

    assert play.inputs("a") == {"x": 2}


def test_an_edited_graph_that_cannot_be_read_is_refused() -> None:
    assert failed().ask("restart", graph_ref="ref-2", graph=None) == "its edited graph cannot be read"


def test_a_graph_in_which_nothing_would_run_is_refused() -> None:
    play = Play(graph(node("a")))
    play.succeed("a")

    assert "say from_node" in plan(play, graph(node("a"))).refused
    assert plan(play, graph(node("a")), from_node="a").again == {"a"}


def test_where_no_condition_holds_is_decided_anew_once_the_conditions_are_others() -> None:
    """Another edge's condition says whether it is led to."""

    def choice(condition: str) -> dict[str, Any]:
        edges = [edge("a", "b") | {"when": condition}, edge("a", "c") | {"otherwise": True}]
        return graph(node("a"), node("b"), node("c"), node("d", "c"), edges=edges)

    play = Play(choice("output > 1"))
    play.succeed("a", output=2)
    play.succeed("b")
    assert (play.status, play.state("c")) == ("finished", "skipped")
    assert plan(play, choice("output > 2")).again == {"b", "c", "d"}

    restart(play, choice("output > 2"))
    assert (play.ready(), play.state("b")) == (["c"], "skipped")


def test_an_output_that_was_wrong_is_put_right_without_running_anything() -> None:
    play = Play(graph(node("a"), output={"n": {"$from": "a.m"}}))
    play.succeed("a", output={"n": 1})
    assert (play.task.error or {})["code"] == "bad_output"
    why = "nothing in it failed but its own output: restart it with a graph whose `output` is right"
    assert play.ask("restart", failed_only=True) == why

    right = graph(node("a"), output={"n": {"$from": "a.n"}})
    assert (plan(play, right).again, plan(play, right).kept) == (set(), {"a"})
    assert restart(play, right) == ""
    assert (play.status, task_output(play.task), play.attempt("a")) == ("finished", {"n": 1}, 1)


def test_what_the_targets_did_not_need_is_left_out_of_an_edited_graph_too_unless_it_is_needed_now() -> None:
    def edited(*before_a: str, **of_a: Any) -> dict[str, Any]:
        return graph(node("a", *before_a, **of_a), node("b", inputs={"x": 1}), node("c", "a", inputs={"x": 1}))

    play = Play(graph(node("a"), node("b"), node("c", "a")), targets=["a"])
    play.succeed("a")
    assert plan(play, edited()).refused
    assert plan(play, edited(inputs={"x": 2})).again == {"a"}
    assert plan(play, edited("b")).again == {"a", "b"}

    restart(play, edited("b"))
    assert play.states == {"a": "pending", "b": "ready", "c": "skipped"}
    play.succeed("b")
    play.succeed("a")
    assert (play.status, play.state("c")) == ("finished", "skipped")


def mapped(**more: Any) -> Play:
    """`m` maps over what `a` gave and has failed, or `z` behind it has; `a` can be undone."""
    undo = {"compensate": {"type": "undo"}} if more.pop("undone", False) else {}
    play = Play(
        graph(node("a", **undo), once("m", foreach={"$from": "a"}, inputs={"x": {"$item": ""}}), once("z", "m"))
    )
    play.succeed("a", output=[1, 2, 3])
    play.succeed("m[0]", "m[2]")
    if more.get("failing") == "z":
        play.succeed("m[1]")
        play.fail_for_good("z")
    else:
        play.fail_for_good("m[1]")
    if undo:
        play.succeed("a/compensate")
    assert play.status == "failed"
    return play


@pytest.mark.parametrize(("failing", "how"), [("m", {"failed_only": True}), ("z", {"from_node": "m[1]"})])
def test_items_do_not_run_again_before_what_makes_their_list_does(failing: str, how: dict[str, Any]) -> None:
    assert plan(mapped(failing=failing), **how).again == {"m", "m[1]", "z"}
    play = mapped(failing=failing, undone=True)
    assert plan(play, **how).again == {"a", "m", "z"}

    play.ask("restart", **how)
    assert (play.ready(), play.state("m")) == (["a"], "pending")
    play.succeed("a", output=[7])
    assert play.inputs("m[0]") == {"x": 7}
    play.succeed("m[0]", output=8)
    play.succeed("z")
    assert play.status == "finished"


@pytest.mark.parametrize(
    ("items", "again"),
    [
        ({"$param": "list"}, {"m"}),
        ([{"$expr": "params.list[0]"}, 2], {"m"}),
        ([1, 2], {"m", "m[1]"}),
        ([1, {"$literal": {"$param": "list"}}], {"m", "m[1]"}),
        ({"$expr": "[1, 2]"}, {"m", "m[1]"}),
    ],
)
def test_a_map_over_params_that_are_others_now_runs_as_a_whole(items: Any, again: set[str]) -> None:
    play = Play(graph(once("m", foreach=items, inputs={"x": {"$item": ""}})), params={"list": [1, 2]})
    play.succeed("m[0]")
    play.fail_for_good("m[1]")

    assert plan(play, failed_only=True).again == {"m", "m[1]"}
    assert plan(play, failed_only=True, params={"list": [3]}).again == again


@pytest.mark.parametrize(
    ("how", "count"), [({}, 1), ({"from_node": "z"}, 1), ({"from_node": "n"}, 2), ({"failed_only": True}, 1)]
)
def test_variables_begin_anew_only_where_everything_does(how: dict[str, Any], count: int) -> None:
    counting = node("n", type="coordinator_fn", io={"fn": "vars.incr", "fn_args": {"key": "n", "by": 1}})
    play = Play(graph(node("a"), counting, once("z", "n"), node("left", "a")), targets=["z", "a"])
    play.succeed("a")
    play.fail_for_good("z")
    assert (play.status, play.task.vars) == ("failed", {"n": 1})

    play.ask("restart", **how)
    assert play.task.vars == {"n": count}


def counts(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    io = {"fn": "vars.incr", "fn_args": {"key": "n"}}
    return node(name, *parents, type="coordinator_fn", io=io, **more)


@pytest.mark.parametrize(
    ("asked", "then"),
    [
        ({}, 2),  # the whole: as if it had never run
        ({"from_node": "a"}, 2),
        ({"from_node": "b"}, 3),  # what `a` has counted is kept, and `b` counts again
        ({"from_node": "z"}, 2),
    ],
)
def test_variables_begin_anew_where_all_that_ran_runs_again(asked: dict[str, Any], then: int) -> None:
    play = Play(graph(counts("a"), counts("b", "a"), node("z", "b")))
    play.succeed("z")
    assert play.task.vars == {"n": 2}

    assert play.ask("restart", **asked) == ""

    assert play.task.vars == {"n": then}
    play.check()


def test_variables_begin_anew_though_some_nodes_are_not_needed() -> None:
    play = Play(graph(counts("a"), node("z", "a"), node("other")), targets=["z"])
    play.succeed("z")
    assert play.ask("restart") == ""
    assert play.task.vars == {"n": 1}


def test_the_variables_that_kept_items_have_set_are_kept() -> None:
    io = {"fn": "vars.incr", "fn_args": {"key": "n", "by": {"$item": ""}}}
    play = Play(graph(node("m", type="coordinator_fn", foreach=[5, "x"], io=io)))
    assert (play.task.vars, play.states) == ({"n": 5}, {"m": "failed", "m[0]": "finished", "m[1]": "failed"})
    play.ask("restart", failed_only=True)
    assert play.task.vars == {"n": 5}
    play.ask("restart")
    assert play.task.vars == {"n": 5}  # once more


def test_an_edited_graph_whose_nodes_are_all_new_begins_with_no_variables() -> None:
    play = Play(graph(counts("a"), node("z", "a")))
    play.succeed("z")
    assert restart(play, graph(counts("b"), node("y", "b"))) == ""
    assert play.task.vars == {"n": 1}
