"""How tasks end: which failures count, which were handled, what fail_fast cancels, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core.outcome import handled, may_yet_be_handled
from tests.core.builders import Play, edge, graph, node, once


def end_of(play: Play) -> f.TaskEnded:
    (end,) = play.facts(f.TaskEnded)[-1:]
    return end


# The end.


def test_a_task_finishes_when_all_its_nodes_have_ended() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a")
    assert play.status == "running"

    play.succeed("b")

    assert end_of(play) == f.TaskEnded("finished")
    assert (play.task.ended_at, play.task.error) == (play.now, None)


def test_a_node_that_failed_for_good_fails_its_task_at_the_end() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "b")))
    play.fail("a", code="Boom")
    assert play.status == "running"

    play.succeed("b")  # independent branches run on
    play.succeed("c")

    assert end_of(play) == f.TaskEnded("failed", {"code": "Boom", "message": "no", "node_id": "a"})


def test_the_first_failure_that_nobody_handled_is_the_tasks_error() -> None:
    play = Play(graph(once("a", continue_on_failure=True), once("b"), once("c")))

    play.fail("a", code="First")
    play.fail("c", code="Second")
    play.fail("b", code="Third")

    assert play.task.error is not None
    assert (play.task.error["node_id"], play.task.error["code"]) == ("c", "Second")


# Handled.


@pytest.mark.parametrize("on", ["failure", "end"])
def test_a_failure_is_handled_by_a_failure_or_end_edge(on: str) -> None:
    play = Play(graph(once("a"), node("alert"), edges=[edge("a", "alert", on)]))
    play.fail("a")

    play.succeed("alert")

    assert play.status == "finished"


def test_a_failure_is_handled_though_a_success_edge_of_the_same_node_was_broken() -> None:
    play = Play(graph(once("a"), node("alert"), node("b", "a"), edges=[edge("a", "alert", "failure")]))
    play.fail("a")

    play.succeed("alert")

    assert play.states == {"a": "failed", "alert": "finished", "b": "skipped"}
    assert play.status == "finished"


def both_ways(**more: Any) -> Play:
    """Something to alert of when `merge` fails, or when `check` after it finds errors."""
    edges = [edge("merge", "check"), edge("check", "alert"), edge("merge", "alert", "failure")]
    return Play(graph(once("merge"), node("check"), node("alert", **more), edges=edges))


def test_a_failure_whose_handler_was_skipped_is_not_handled() -> None:
    play = both_ways()

    play.fail("merge", code="Boom")

    # The edge from `check` is broken, and `all` wants none broken: nobody was told, so the task must not look well.
    assert play.states == {"merge": "failed", "check": "skipped", "alert": "skipped"}
    assert end_of(play) == f.TaskEnded("failed", {"code": "Boom", "message": "no", "node_id": "merge"})


def test_a_handler_of_two_edges_runs_with_any() -> None:
    play = both_ways(fan_in="any")
    play.fail("merge")

    play.succeed("alert")

    assert play.states == {"merge": "failed", "check": "skipped", "alert": "finished"}
    assert play.status == "finished"


def test_one_handler_that_runs_is_enough() -> None:
    edges = [edge("a", "x", "failure"), edge("b", "x"), edge("a", "y", "failure")]
    play = Play(graph(once("a"), node("b", "a"), node("x"), node("y"), edges=edges))
    play.fail("a")

    play.succeed("y")

    assert play.states == {"a": "failed", "b": "skipped", "x": "skipped", "y": "finished"}
    assert play.status == "finished"


def test_fail_fast_cancels_once_the_handler_of_a_failure_is_skipped() -> None:
    edges = [edge("a", "x", "failure"), edge("b", "x")]
    play = Play(graph(once("a"), node("r"), node("b", "r"), node("x"), node("z", "r"), edges=edges, fail_fast=True))
    play.fail("a")
    assert play.status == "running"

    play.ask("cancel", node_id="b")

    assert (play.state("x"), play.status) == ("skipped", "failed")


def test_the_handler_of_a_failure_may_fail_itself() -> None:
    play = Play(graph(once("a"), once("alert"), edges=[edge("a", "alert", "failure")]))
    play.fail("a")

    play.fail("alert")

    assert play.task.error is not None
    assert play.task.error["node_id"] == "alert"


def test_a_failure_edge_further_down_does_not_handle_a_failure() -> None:
    play = Play(graph(once("a"), node("b", "a"), node("alert"), edges=[edge("b", "alert", "failure")]))

    play.fail("a")

    assert play.states == {"a": "failed", "b": "skipped", "alert": "skipped"}
    assert play.status == "failed"


def test_a_failure_is_handled_by_a_join_that_ran_without_it() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b", fan_in="any")))
    play.fail("a")
    play.succeed("b")

    play.succeed("c")

    assert play.status == "finished"


def test_a_failure_is_handled_by_a_join_behind_nodes_skipped_because_of_it() -> None:
    play = Play(graph(once("a"), node("x", "a"), node("y", "x"), node("b"), node("c", "y", "b", fan_in="any")))
    play.fail("a")
    play.succeed("b")

    play.succeed("c")

    assert play.states["y"] == "skipped"
    assert play.status == "finished"


def test_a_failure_is_handled_by_a_join_behind_a_node_skipped_for_want_of_its_output() -> None:
    reader = node("x", "r", inputs={"v": {"$from": "a"}})
    play = Play(graph(once("a"), node("r"), reader, node("b"), node("c", "x", "b", fan_in="any")))
    play.succeed("r", "b")
    play.fail("a")

    play.succeed("c")

    assert play.skipped("x") == ("no_output", True, "a")
    assert play.status == "finished"


def test_a_failure_is_handled_by_a_join_that_had_begun_before_it() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b", fan_in="any")))
    play.succeed("b")
    play.succeed("c")

    play.fail("a")

    assert play.status == "finished"


def test_a_join_behind_a_node_skipped_for_another_reason_does_not_handle_a_failure() -> None:
    inputs = {"x": {"$from": "a", "default": 1}, "y": {"$from": "b"}}
    reader = node("k", "r", inputs=inputs)
    play = Play(graph(once("a"), once("b"), node("r"), reader, node("ok"), node("j", "k", "ok", fan_in="any")))
    play.succeed("r", "ok")
    play.fail("a", code="Mine")
    play.fail("b")

    play.succeed("j")

    assert play.skipped("k") == ("no_output", True, "b")
    assert not handled(play.task, "a")
    assert handled(play.task, "b")
    assert play.status == "failed"


def test_a_join_that_was_skipped_itself_handles_nothing() -> None:
    play = Play(graph(once("a"), once("b"), node("c", "a", "b", fan_in="any")))

    play.fail("a")
    play.fail("b")

    assert play.skipped("c") == ("quorum", True, "a")
    assert play.status == "failed"


def test_a_join_behind_a_join_that_was_skipped_handles_the_failure() -> None:
    play = Play(
        graph(
            once("a"), once("b"), node("c", "a", "b", fan_in={"count": 2}), node("d"), node("e", "c", "d", fan_in="any")
        )
    )
    play.fail("a")
    play.succeed("b", "d")

    play.succeed("e")

    assert play.status == "finished"


def test_a_join_that_waits_for_all_handles_nothing() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b")))
    play.fail("a")

    play.succeed("b")

    assert play.status == "failed"


def test_continue_on_failure_handles_the_failure() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b", "a")))
    play.fail("a")

    play.succeed("b")

    assert play.status == "finished"


def test_a_reference_with_a_default_does_not_handle_its_sources_failure() -> None:
    play = Play(graph(once("a"), node("n", inputs={"x": {"$from": "a", "default": 1}})))
    play.fail("a")

    play.succeed("n")

    assert play.states == {"a": "failed", "n": "finished"}
    assert play.status == "failed"


def test_a_join_over_references_with_defaults_handles_no_failure() -> None:
    inputs = {"x": {"$from": "a", "default": 1}, "y": {"$from": "b", "default": 1}}
    play = Play(graph(once("a"), node("b"), node("n", inputs=inputs, fan_in="any")))
    play.fail("a")
    play.succeed("n")

    play.succeed("b")

    assert play.status == "failed"


def test_a_failure_edge_to_a_node_that_no_target_needs_handles_nothing() -> None:
    play = Play(graph(once("a"), node("b", "a"), node("alert"), edges=[edge("a", "alert", "failure")]), targets=["b"])

    play.fail("a")

    assert play.status == "failed"


def test_a_cancelled_node_does_not_fail_the_task() -> None:
    play = Play(graph(node("a"), node("b")))
    play.ask("cancel", node_id="a")

    play.succeed("b")

    assert play.states == {"a": "cancelled", "b": "finished"}
    assert play.status == "finished"


def test_many_failures_that_one_join_handles_are_looked_up_once() -> None:
    failing = [once(f"f{n}", continue_on_failure=False) for n in range(50)]
    chain = [node("x0", *[f["node_id"] for f in failing]), *(node(f"x{n}", f"x{n - 1}") for n in range(1, 50))]
    play = Play(graph(*failing, *chain, node("ok"), node("end", "x49", "ok", fan_in="any")))
    play.fail(*[f["node_id"] for f in failing])
    play.succeed("ok")
    play.succeed("end")

    known: set[str] = set()
    assert all(handled(play.task, f["node_id"], known) for f in failing)

    assert play.status == "finished"
    assert known == {f"x{n}" for n in range(50)} | {f["node_id"] for f in failing}


# fail_fast.


def test_fail_fast_cancels_independent_branches() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "b"), fail_fast=True))
    play.place("b")

    play.fail("a", code="Boom")

    assert play.status == "cancelling"
    assert play.states == {"a": "failed", "b": "running", "c": "cancelled"}
    assert play.revokes()["b"].token == "b#1"
    assert play.task.reason == "fail_fast: node 'a' failed"


def test_fail_fast_ends_as_failed_with_the_failures_error() -> None:
    play = Play(graph(once("a"), node("b"), fail_fast=True))
    play.place("b")
    play.fail("a", code="Boom")

    play.release("b")

    assert end_of(play) == f.TaskEnded("failed", {"code": "Boom", "message": "no", "node_id": "a"})
    assert play.state("b") == "cancelled"


def test_fail_fast_ends_at_once_what_does_not_run() -> None:
    play = Play(graph(once("a"), node("b"), fail_fast=True))

    play.fail("a")

    assert play.states == {"a": "failed", "b": "cancelled"}
    assert play.status == "failed"


@pytest.mark.parametrize(
    ("more", "edges"),
    [({"continue_on_failure": True}, []), ({}, [edge("a", "b", "failure")]), ({}, [edge("a", "b", "end")])],
)
def test_fail_fast_lets_handled_failures_be(more: dict[str, Any], edges: list[Any]) -> None:
    play = Play(graph(once("a", **more), node("b"), edges=edges, fail_fast=True))

    play.fail("a")

    assert play.status == "running"
    assert play.state("b") == "ready"


def test_fail_fast_waits_for_a_join_that_may_yet_run_without_the_failed_node() -> None:
    play = Play(graph(once("a"), node("x", "a"), node("b"), node("c", "x", "b", fan_in="any"), fail_fast=True))
    play.fail("a")
    assert play.status == "running"
    assert may_yet_be_handled(play.task, "a")

    play.succeed("b")

    assert handled(play.task, "a")
    play.succeed("c")
    assert play.status == "finished"


def test_fail_fast_cancels_once_the_last_join_is_lost() -> None:
    play = Play(graph(once("a"), once("b"), node("c", "a", "b", fan_in="any"), node("d"), fail_fast=True))
    play.fail("a")
    assert play.status == "running"

    play.succeed("b", next=[])

    assert play.states == {"a": "failed", "b": "finished", "c": "skipped", "d": "cancelled"}
    assert play.status == "failed"


def test_fail_fast_cancels_once_the_join_that_could_help_is_cancelled_by_hand() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b", fan_in="any"), fail_fast=True))
    play.fail("a")

    play.ask("cancel", node_id="c")

    assert play.states == {"a": "failed", "b": "cancelled", "c": "cancelled"}
    assert play.status == "failed"


def test_fail_fast_does_not_count_on_a_join_whose_reference_reads_the_failed_node() -> None:
    join = node("c", "b", "d", fan_in="any", inputs={"x": {"$from": "a"}})
    play = Play(graph(once("a"), node("b"), node("d"), join, fail_fast=True))

    play.fail("a")

    assert play.status == "failed"


def test_without_fail_fast_nothing_is_cancelled() -> None:
    play = Play(graph(once("a"), node("b")))

    play.fail("a")

    assert play.state("b") == "ready"
    assert play.facts(f.TaskCancelling) == []


# What a task gives back is checked at its end.


def test_an_output_mapping_that_leads_nowhere_fails_the_task() -> None:
    play = Play(graph(once("a", continue_on_failure=True), output={"x": {"$from": "a.rows"}}))

    play.fail("a")

    assert play.status == "failed"
    assert play.task.error is not None
    assert play.task.error["code"] == "bad_output"
    assert "'a' has no output" in play.task.error["message"]


def test_an_output_mapping_with_a_default_does_not() -> None:
    play = Play(graph(once("a", continue_on_failure=True), output={"x": {"$from": "a", "default": 0}}))

    play.fail("a")

    assert play.status == "finished"


def test_the_output_of_a_cancelled_task_is_not_asked_for() -> None:
    play = Play(graph(node("a"), output={"x": {"$from": "a"}}))

    play.ask("cancel")

    assert end_of(play) == f.TaskEnded("cancelled", {"code": "cancelled", "message": "user_request"})
