"""What targets need, what restarts run again, what losers may be cancelled."""

from __future__ import annotations

import pytest

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.selection import (
    descendants,
    left_out,
    losers,
    not_needed,
    sources,
    unfinished_business,
    why_not_again,
)
from tests.core.builders import Play, edge, graph, node, once

DIAMOND = graph(node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"), node("e"))
READS = graph(node("a"), node("b"), node("c", "a", inputs={"x": {"$from": "b"}}), node("d"))


# Targets.


def test_targets_run_only_what_edges_lead_there_from() -> None:
    assert set(not_needed(parse_graph(DIAMOND), ["b"])) == {"c", "d", "e"}


def test_targets_need_what_they_read() -> None:
    assert set(not_needed(parse_graph(READS), ["c"])) == {"d"}


def test_several_targets_need_what_any_of_them_needs() -> None:
    assert set(not_needed(parse_graph(DIAMOND), ["b", "e"])) == {"c", "d"}


def test_without_targets_everything_is_needed() -> None:
    assert not_needed(parse_graph(DIAMOND), []) == ()


def test_the_others_are_skipped_as_not_needed() -> None:
    play = Play(DIAMOND, targets=["c"])
    assert play.states == {"a": "ready", "b": "skipped", "c": "pending", "d": "skipped", "e": "skipped"}
    assert {play.task.runs[name].reason for name in "bde"} == {"not_needed"}
    assert left_out(play.task) == {"b", "d", "e"}

    play.succeed("a")
    play.succeed("c", output=5)

    assert play.status == "finished"
    assert play.facts(f.TaskCreated) == [f.TaskCreated(("b", "d", "e"))]


def test_a_target_among_a_failures_handlers_is_reached() -> None:
    play = Play(
        graph(once("a"), node("b", "a"), node("alert"), edges=[edge("a", "alert", "failure")]), targets=["alert"]
    )

    play.fail("a")

    assert play.state("alert") == "ready"


# Followers.


def test_sources_and_descendants_follow_edges_and_references() -> None:
    read = parse_graph(READS)

    assert set(sources(read, "c")) == {"a", "b"}
    assert descendants(read, ["b"]) == {"b", "c"}
    assert descendants(parse_graph(DIAMOND), ["a"]) == set("abcd")


# Restarts.


def test_unfinished_business_is_what_failed_and_all_after_it() -> None:
    play = Play(graph(node("a"), once("b", "a"), node("c", "b"), node("d", "a"), node("e", "c", "d", fan_in="any")))
    play.succeed("a")
    play.fail("b")
    play.succeed("d")
    play.succeed("e")

    assert unfinished_business(play.task) == {"b", "c", "e"}


def test_unfinished_business_is_what_was_cancelled() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a")

    play.ask("cancel")

    assert unfinished_business(play.task) == {"b"}


@pytest.mark.parametrize("begun", [False, True])
def test_a_loser_that_a_join_went_on_without_is_no_unfinished_business(begun: bool) -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel"), once("k", "j")))
    if begun:
        play.place("p")
    play.succeed("q")
    if begun:
        play.release("p")
    play.succeed("j")
    play.fail("k")
    assert (play.states["p"], play.status) == ("cancelled", "failed")

    assert unfinished_business(play.task) == {"k"}
    assert play.ask("restart", failed_only=True) == ""
    play.succeed("k")

    assert play.status == "finished"
    assert play.attempt("j") == 1


def test_a_loser_that_outlived_its_grace_is_one_too_and_runs_again_with_the_whole() -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel")))
    play.place("p")
    play.succeed("q")
    play.wait(30)
    play.succeed("j")
    assert unfinished_business(play.task) == set()

    play.ask("restart")
    play.ask("cancel", node_id="p")

    assert unfinished_business(play.task) >= {"p"}


def test_what_was_skipped_by_choice_is_no_unfinished_business() -> None:
    play = Play(graph(node("a"), node("b", "a")))

    play.succeed("a", next=[])

    assert unfinished_business(play.task) == set()


def ended() -> Play:
    play = Play(graph(node("a"), once("b"), node("c", "a"), node("d", "a", "b"), node("e", "a", "b", fan_in="any")))
    play.succeed("a")
    play.fail("b")
    play.succeed("c", "e")
    assert play.status == "finished"
    return play


def test_a_node_that_could_start_may_be_restarted_from() -> None:
    play = ended()

    assert {name: bool(why_not_again(play.task, name)) for name in "abce"} == dict.fromkeys("abce", False)


def test_a_node_behind_a_failure_may_not_be_restarted_from() -> None:
    play = ended()

    assert why_not_again(play.task, "d") == "'b' before it did not finish: restart from there"


def test_a_join_that_ran_without_a_failed_parent_may_be_restarted_from() -> None:
    play = ended()

    assert play.ask("restart", from_node="e") == ""

    assert play.states == {"a": "finished", "b": "failed", "c": "finished", "d": "skipped", "e": "ready"}


def test_a_node_whose_reference_has_no_output_may_not_be_restarted_from() -> None:
    reader = node("c", "a", inputs={"x": {"$from": "b"}})
    play = Play(graph(node("a"), once("b"), reader))
    play.succeed("a")
    play.fail("b")

    assert play.ask("restart", from_node="c") == (
        "node 'c' could not start, 'b' before it did not finish: restart from there"
    )


def test_a_node_that_nothing_led_to_may_not_be_restarted_from() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a", next=[])

    assert play.ask("restart", from_node="b") == (
        "node 'b' could not start, 'a' before it did not lead to it: restart from there"
    )


# Losers.


def losing(play: Play, join: str = "j") -> set[str]:
    return set(losers(play.task, join))


def test_losers_are_unfinished_parents_and_what_only_they_were_waited_for() -> None:
    play = Play(graph(node("g"), node("p", "g"), node("q"), node("j", "p", "q", fan_in="any")))

    play.succeed("q")

    assert losing(play) == {"p", "g"}


def test_a_node_that_others_wait_for_is_no_loser() -> None:
    play = Play(graph(node("g"), node("p", "g"), node("other", "g"), node("q"), node("j", "p", "q", fan_in="any")))

    play.succeed("q")

    assert losing(play) == {"p"}


def test_a_node_that_others_read_is_no_loser() -> None:
    reader = node("r", "x", inputs={"v": {"$from": "p"}})
    play = Play(graph(node("x"), node("p"), reader, node("q"), node("j", "p", "q", fan_in="any")))

    play.succeed("q")

    assert losing(play) == set()


def test_a_parent_that_feeds_only_another_parent_and_the_join_is_a_loser() -> None:
    play = Play(graph(node("p"), node("p2", "p"), node("q"), node("j", "p", "p2", "q", fan_in="any")))

    play.succeed("q")

    assert losing(play) == {"p", "p2"}


def test_what_losers_alone_read_is_lost_too() -> None:
    play = Play(graph(node("s"), node("x"), node("p", "x", inputs={"v": {"$from": "s"}}), node("q"),
                      node("j", "p", "q", fan_in="any")))  # fmt: skip

    play.succeed("q")

    assert losing(play) == {"p", "x", "s"}


def test_losers_are_left_alone_by_default() -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any")))
    play.place("p")

    play.succeed("q")

    assert play.states == {"p": "running", "q": "finished", "j": "ready"}


@pytest.mark.parametrize("begun", [False, True])
def test_losers_are_cancelled_begun_or_not(begun: bool) -> None:
    play = Play(graph(node("g"), node("p", "g"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel")))
    if begun:
        play.place("g")

    play.succeed("q")

    assert play.states == {"g": "running" if begun else "cancelled", "p": "cancelled", "q": "finished", "j": "ready"}
    assert {fact.reason for fact in play.facts(f.NodeCancelled)} == {"node 'j' went on without it"}
    if begun:
        assert play.revokes()["g"].token == "g#1"
        play.release("g")
        assert play.state("g") == "cancelled"


def test_a_loser_that_waits_for_its_retry_is_cancelled() -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel")))
    play.fail("p")
    assert play.state("p") == "waiting"

    play.succeed("q")

    assert play.state("p") == "cancelled"
    assert play.task.next_wake() is None


def test_cancelled_losers_fail_no_task() -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel"), node("k", "j")))
    play.succeed("q")
    play.succeed("j")

    play.succeed("k")

    assert play.status == "finished"


def test_the_result_of_a_loser_that_comes_too_late_is_not_taken() -> None:
    play = Play(graph(node("p"), node("q"), node("j", "p", "q", fan_in="any", losers="cancel")))
    play.place("p")
    play.succeed("q")

    play.succeed("p", output="late")

    assert play.state("p") == "cancelled"
    assert play.task.runs["p"].output is None


def test_losers_of_a_count_go_when_it_is_reached() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), node("j", "a", "b", "c", fan_in={"count": 2}, losers="cancel")))
    play.succeed("a")
    assert play.state("c") == "ready"

    play.succeed("b")

    assert play.states == {"a": "finished", "b": "finished", "c": "cancelled", "j": "ready"}


def test_who_has_lost_is_decided_when_the_join_starts_and_not_again_when_its_history_is_read() -> None:
    join = once("e", "a", "b", "c", inputs={"x": {"$from": "a.v"}}, fan_in="any", losers="cancel")
    play = Play(graph(once("a"), once("b"), once("c", "a", "b"), join, once("f", "b", "c", "e")))
    play.succeed("a")

    play.place("e")  # it fails for want of `v`, and with it `f`, for which `b` and `c` were waited for too

    assert play.states == {"a": "finished", "b": "ready", "c": "pending", "e": "failed", "f": "skipped"}
