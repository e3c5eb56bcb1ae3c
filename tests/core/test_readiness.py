"""Which edges are taken, not taken or broken; when a node starts, and when and why it is skipped (graph.md, 3)."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.readiness import EdgeState, Start, count, counts_for_quorum, edge_state, missing_source, verdict
from tests.core.builders import Play, edge, graph, node, once


def edges_to(play: Play, target: str) -> dict[str, str]:
    return {e.source: edge_state(play.task, e).value for e in play.task.graph.incoming[target]}


def three_edges(*, source: dict[str, Any] | None = None) -> Play:
    """A source with an edge of each kind."""
    first = source or once("a")
    nodes = [first, *(node(target) for target in ("on_success", "on_failure", "on_end"))]
    edges = [edge("a", "on_success"), edge("a", "on_failure", "failure"), edge("a", "on_end", "end")]
    return Play(graph(*nodes, edges=edges))


def words(play: Play) -> dict[str, str]:
    """What the source's end made of its edges, by kind."""
    return {kind: edges_to(play, f"on_{kind}")["a"] for kind in ("success", "failure", "end")}


# Edges.


def test_an_edge_is_undecided_until_its_source_has_ended() -> None:
    play = three_edges()
    assert set(words(play).values()) == {"undecided"}

    play.start("a")

    assert set(words(play).values()) == {"undecided"}


def test_a_finished_source_takes_success_and_end_edges() -> None:
    play = three_edges()

    play.succeed("a")

    assert words(play) == {"success": "taken", "failure": "not taken", "end": "taken"}
    assert play.states == {"a": "finished", "on_success": "ready", "on_failure": "skipped", "on_end": "ready"}
    assert play.skipped("on_failure") == ("not_taken", False, "a")


def test_a_failed_source_takes_failure_and_end_edges_and_breaks_success_edges() -> None:
    play = three_edges()

    play.fail("a")

    assert words(play) == {"success": "broken", "failure": "taken", "end": "taken"}
    assert play.states == {"a": "failed", "on_success": "skipped", "on_failure": "ready", "on_end": "ready"}
    assert play.skipped("on_success") == ("upstream_failed", True, "a")


def test_a_cancelled_source_breaks_every_edge() -> None:
    play = three_edges()

    play.ask("cancel", node_id="a")

    assert set(words(play).values()) == {"broken"}
    assert play.skipped("on_end") == ("upstream_failed", True, "a")


def test_a_source_skipped_by_choice_takes_no_edge_and_breaks_none() -> None:
    play = three_edges(source=node("a"))
    play = Play(
        graph(
            node("r"), node("a", "r"), node("b"), node("c"), node("d"),
            edges=[edge("a", "b"), edge("a", "c", "failure"), edge("a", "d", "end")],
        )
    )  # fmt: skip

    play.succeed("r", next=[])

    assert play.state("a") == "skipped"
    assert {edges_to(play, target)["a"] for target in "bcd"} == {"not taken"}
    assert play.skipped("d") == ("not_taken", False, "a")


def test_a_source_skipped_because_of_a_failure_breaks_every_edge_a_node_in_between_changes_nothing() -> None:
    play = Play(
        graph(
            once("r"), node("a", "r"), node("b"), node("c"), node("d"),
            edges=[edge("a", "b"), edge("a", "c", "failure"), edge("a", "d", "end")],
        )
    )  # fmt: skip

    play.fail("r")

    assert {edges_to(play, target)["a"] for target in "bcd"} == {"broken"}
    assert play.skipped("d") == ("upstream_failed", True, "a")


def test_a_handler_that_chooses_among_the_successors_leaves_the_others_edges_not_taken() -> None:
    play = three_edges()

    play.succeed("a", next=["on_end"])

    assert words(play) == {"success": "not taken", "failure": "not taken", "end": "taken"}


def test_a_handler_that_chooses_nobody_ends_the_branch() -> None:
    play = three_edges()

    play.succeed("a", next=[])

    assert set(words(play).values()) == {"not taken"}
    assert play.status == "finished"


def test_a_choice_cannot_take_a_failure_edge_of_a_finished_node() -> None:
    play = three_edges()

    play.succeed("a", next=["on_failure"])

    assert words(play) == {"success": "not taken", "failure": "not taken", "end": "not taken"}


def test_continue_on_failure_takes_the_success_edges_too() -> None:
    play = three_edges(source=once("a", continue_on_failure=True))

    play.fail("a")

    assert words(play) == {"success": "taken", "failure": "taken", "end": "taken"}


def test_continue_on_failure_does_not_help_a_cancelled_node() -> None:
    play = three_edges(source=once("a", continue_on_failure=True))

    play.ask("cancel", node_id="a")

    assert set(words(play).values()) == {"broken"}


# fan_in: all.


def test_all_runs_when_every_edge_is_decided() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "a", "b")))
    play.succeed("a")
    assert play.state("c") == "pending"

    play.succeed("b")

    assert play.state("c") == "ready"


def test_all_runs_when_at_least_one_edge_is_taken_and_the_others_are_not() -> None:
    play = Play(graph(node("r"), node("a", "r"), node("b", "r"), node("c", "a", "b")))
    play.succeed("r", next=["a"])
    assert play.states == {"r": "finished", "a": "ready", "b": "skipped", "c": "pending"}

    play.succeed("a")

    assert play.state("c") == "ready"


def test_all_is_skipped_by_choice_when_no_edge_is_taken() -> None:
    play = Play(graph(node("r"), node("a", "r"), node("b", "r"), node("c", "a", "b")))

    play.succeed("r", next=[])

    assert play.skipped("c") == ("not_taken", False, "a")
    assert play.status == "finished"


def test_all_is_skipped_at_the_first_broken_edge_while_others_are_undecided() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b")))

    play.fail("a")

    assert play.skipped("c") == ("upstream_failed", True, "a")
    assert play.state("b") == "ready"


def test_all_is_skipped_for_a_broken_edge_though_others_were_taken() -> None:
    play = Play(graph(node("a"), once("b"), node("c", "a", "b")))
    play.succeed("a")

    play.fail("b")

    assert play.skipped("c") == ("upstream_failed", True, "b")


def test_all_counts_an_edge_that_is_null_by_continue_on_failure() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b", "a")))

    play.fail("a")

    assert play.state("b") == "ready"
    assert play.inputs("b") is None


def test_one_node_may_wait_for_failure_of_one_and_success_of_another() -> None:
    play = Play(graph(once("a"), node("b"), node("c"), edges=[edge("a", "c", "failure"), edge("b", "c")]))
    play.fail("a")
    assert play.state("c") == "pending"

    play.succeed("b")

    assert play.state("c") == "ready"


# fan_in: any and count.


def test_any_runs_on_the_first_taken_edge() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "a", "b", fan_in="any")))

    play.succeed("b")

    assert play.states == {"a": "ready", "b": "finished", "c": "ready"}


def test_any_runs_once_though_more_edges_are_taken() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "a", "b", fan_in="any")))
    play.succeed("b")
    play.succeed("c")

    play.succeed("a")

    assert play.attempt("c") == 1
    assert play.status == "finished"


def test_any_does_without_broken_edges() -> None:
    play = Play(graph(once("a"), node("b"), node("c", "a", "b", fan_in="any")))
    play.fail("a")
    assert play.state("c") == "pending"

    play.succeed("b")

    assert play.state("c") == "ready"


def test_count_runs_on_the_nth_taken_edge() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), node("d", "a", "b", "c", fan_in={"count": 2})))
    play.succeed("c")
    assert play.state("d") == "pending"

    play.succeed("a")

    assert play.states["d"] == "ready"


def test_a_quorum_is_decided_only_when_all_its_edges_are() -> None:
    play = Play(graph(once("a"), once("b"), node("c"), node("d", "a", "b", "c", fan_in={"count": 2})))
    play.fail("a")
    play.fail("b")
    assert play.state("d") == "pending"

    play.succeed("c")

    assert play.skipped("d") == ("quorum", True, "a")


def test_a_quorum_that_choices_left_too_small_is_skipped_by_choice() -> None:
    play = Play(graph(node("a"), node("b"), node("d", "a", "b", fan_in={"count": 2})))
    play.succeed("a", next=[])

    play.succeed("b")

    assert play.skipped("d") == ("quorum", False, "")


def test_an_edge_that_is_null_by_continue_on_failure_counts_for_no_quorum() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b"), node("c", "a", "b", fan_in="any")))
    play.fail("a")
    assert play.state("c") == "pending"
    assert not counts_for_quorum(play.task, play.task.graph.incoming["c"][0])

    play.succeed("b")

    assert play.state("c") == "ready"


def test_a_quorum_is_skipped_by_failure_if_it_lacked_an_edge_that_is_null_by_continue_on_failure() -> None:
    play = Play(graph(once("a", continue_on_failure=True), node("b"), node("c", "a", "b", fan_in={"count": 2})))
    play.succeed("b")

    play.fail("a")

    assert play.skipped("c") == ("quorum", True, "a")


def test_a_failure_edge_counts_for_a_quorum() -> None:
    play = Play(graph(once("a"), node("b"), node("c", fan_in="any"), edges=[edge("a", "c", "failure"), edge("b", "c")]))

    play.fail("a")

    assert play.state("c") == "ready"


# References.


def reading(reference: dict[str, Any], *parents: str, **more: Any) -> dict[str, Any]:
    return node("n", *parents, inputs={"x": reference}, **more)


def test_a_reference_alone_is_an_edge_that_starts_the_node() -> None:
    play = Play(graph(node("a"), reading({"$from": "a"})))
    assert play.state("n") == "pending"

    play.succeed("a", output=5)

    assert play.inputs("n") == {"x": 5}


def test_a_reference_beside_edges_must_have_finished_too() -> None:
    play = Play(graph(node("a"), node("b"), reading({"$from": "b"}, "a")))
    play.succeed("a")
    assert play.state("n") == "pending"

    play.succeed("b", output=5)

    assert play.inputs("n") == {"x": 5}


def test_a_reference_starts_no_node_that_has_edges() -> None:
    play = Play(graph(node("a"), node("b"), reading({"$from": "b"}, "a")))

    play.succeed("b")

    assert play.state("n") == "pending"


def test_a_reference_counts_for_no_quorum() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), reading({"$from": "c"}, "a", "b", fan_in="any")))
    play.succeed("c")
    assert play.state("n") == "pending"

    play.succeed("a")

    assert play.state("n") == "ready"


def test_a_quorum_that_is_met_still_waits_for_what_it_reads() -> None:
    play = Play(graph(node("a"), node("b"), node("c"), reading({"$from": "c"}, "a", "b", fan_in="any")))
    play.succeed("a")
    assert play.state("n") == "pending"

    play.succeed("c")

    assert play.state("n") == "ready"


def test_a_source_without_output_skips_its_reader_by_failure_if_that_was_the_cause() -> None:
    play = Play(graph(node("a"), once("b"), reading({"$from": "b"}, "a")))
    play.succeed("a")

    play.fail("b")

    assert play.skipped("n") == ("no_output", True, "b")


def test_a_source_skipped_by_choice_skips_its_reader_by_choice() -> None:
    play = Play(graph(node("r"), node("b", "r"), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a")

    play.succeed("r", next=[])

    assert play.skipped("n") == ("no_output", False, "b")
    assert play.status == "finished"


def test_a_source_skipped_because_of_a_failure_skips_its_reader_by_failure() -> None:
    play = Play(graph(once("r"), node("b", "r"), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a")

    play.fail("r")

    assert play.skipped("n") == ("no_output", True, "b")


def test_a_cancelled_source_skips_its_reader_by_failure() -> None:
    play = Play(graph(node("b"), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a")

    play.ask("cancel", node_id="b")

    assert play.skipped("n") == ("no_output", True, "b")


def test_a_skip_is_by_failure_if_any_of_the_references_that_lack_is_broken_not_only_the_first() -> None:
    inputs = {"x": {"$from": "chosen"}, "y": {"$from": "broken"}}
    play = Play(graph(node("r"), node("chosen", "r"), once("broken"), node("a"), node("n", "a", inputs=inputs)))
    play.succeed("a")
    play.succeed("r", next=[])

    play.fail("broken")

    assert play.skipped("n") == ("no_output", True, "broken")


def test_a_node_that_no_edge_leads_to_is_skipped_by_failure_if_a_reference_it_lacked_is_broken() -> None:
    play = Play(graph(once("b"), node("a"), reading({"$from": "b"}, "a")))
    play.fail("b")

    play.succeed("a", next=[])

    assert play.skipped("n") == ("not_taken", True, "b")


def test_whether_a_failure_is_behind_a_skip_does_not_hang_on_the_order() -> None:
    play = Play(graph(once("b"), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a", next=[])
    assert play.state("n") == "pending"

    play.fail("b")

    assert play.skipped("n") == ("not_taken", True, "b")


def test_a_node_is_skipped_by_choice_once_all_that_it_reads_has_ended_too() -> None:
    play = Play(graph(node("b"), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a", next=[])

    play.succeed("b")

    assert play.skipped("n") == ("not_taken", False, "a")


def test_a_quorum_decides_about_a_skip_when_its_edges_are_decided_whatever_it_reads() -> None:
    play = Play(graph(once("b"), node("a"), node("c"), reading({"$from": "b"}, "a", "c", fan_in="any")))

    play.succeed("a", "c", next=[])

    assert play.skipped("n") == ("quorum", False, "")


def test_a_quorum_that_is_too_small_is_skipped_by_failure_if_a_reference_it_lacked_is_broken() -> None:
    play = Play(graph(once("b"), node("a"), node("c"), reading({"$from": "b"}, "a", "c", fan_in="any")))
    play.fail("b")

    play.succeed("a", "c", next=[])

    assert play.skipped("n") == ("quorum", True, "b")


def test_a_reference_to_a_node_that_continues_on_failure_lacks_its_output_by_failure() -> None:
    play = Play(graph(once("b", continue_on_failure=True), node("a"), reading({"$from": "b"}, "a")))
    play.succeed("a")

    play.fail("b")

    assert play.skipped("n") == ("no_output", True, "b")
    assert play.status == "finished"


def test_a_reference_on_a_pair_that_has_an_edge_needs_the_output_too() -> None:
    play = Play(graph(once("a"), reading({"$from": "a"}), edges=[edge("a", "n", "end")]))

    play.fail("a")

    assert play.skipped("n") == ("no_output", True, "a")


def test_a_source_that_is_undecided_under_any_skips_the_node_that_reads_it() -> None:
    play = Play(graph(node("a"), node("b"), reading({"$from": "b"}, "a", "b", fan_in="any")))

    play.succeed("a")

    assert play.skipped("n") == ("no_output", False, "b")


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled", "skipped"])
def test_a_reference_with_a_default_is_met_however_its_source_ended_and_starts_the_node(end: str) -> None:
    play = Play(graph(node("r"), once("a", "r"), reading({"$from": "a", "default": "eu"})))

    if end == "skipped":
        play.succeed("r", next=[])
    else:
        play.succeed("r")
    if end == "finished":
        play.succeed("a", output="us")
    elif end == "failed":
        play.fail("a")
    elif end == "cancelled":
        play.ask("cancel", node_id="a")

    assert play.state("a") == end
    assert play.inputs("n") == {"x": "us" if end == "finished" else "eu"}


def test_a_reference_with_a_default_beside_edges_waits_for_the_end_of_its_source() -> None:
    play = Play(graph(node("a"), once("b"), reading({"$from": "b", "default": 1}, "a")))
    play.succeed("a")
    assert play.state("n") == "pending"

    play.fail("b")

    assert play.inputs("n") == {"x": 1}


def test_a_reference_with_a_default_does_not_hold_up_any_on_a_pair_that_has_an_edge() -> None:
    play = Play(graph(node("a"), node("b"), reading({"$from": "b", "default": 1}, "a", "b", fan_in="any")))

    play.succeed("a")

    assert play.inputs("n") == {"x": 1}


def test_a_value_wanted_once_without_a_default_is_wanted() -> None:
    inputs = {"x": {"$from": "a", "default": 1}, "y": {"$from": "a"}}
    play = Play(graph(once("a"), node("n", inputs=inputs)))

    play.fail("a")

    assert play.skipped("n") == ("upstream_failed", True, "a")


def test_implied_edges_of_a_mixed_node_are_lenient_one_by_one() -> None:
    inputs = {"x": {"$from": "a", "default": 1}, "y": {"$from": "b"}}
    play = Play(graph(once("a"), node("b"), node("n", inputs=inputs)))
    play.fail("a")
    assert play.state("n") == "pending"

    play.succeed("b", output=2)

    assert play.inputs("n") == {"x": 1, "y": 2}


def test_any_over_references_with_defaults_starts_on_the_first_that_ended() -> None:
    inputs = {"x": {"$from": "a", "default": None}, "y": {"$from": "b", "default": None}}
    play = Play(graph(node("a"), node("b"), node("n", inputs=inputs, fan_in="any")))

    play.succeed("b", output=2)

    assert play.inputs("n") == {"x": None, "y": 2}


# The functions themselves.


def test_verdict_and_missing_source_answer_from_the_counters() -> None:
    play = Play(graph(node("a"), node("b"), reading({"$from": "b"}, "a")))
    task, n = play.task, play.task.graph.nodes["n"]
    assert verdict(task, n, task.runs["n"]) is Start.WAIT
    assert missing_source(task, n) == "b"

    play.succeed("a", "b")

    assert verdict(task, n, task.runs["n"]) is Start.START
    assert missing_source(task, n) is None


def test_count_counts_a_decided_edge_once() -> None:
    play = Play(graph(once("a"), node("n"), edges=[edge("a", "n", "end")]))
    play.fail("a")
    run = play.task.runs["n"]
    before = (run.undecided, run.taken, run.broken)

    count(play.task, play.task.graph.incoming["n"][0], run)

    assert before == (0, 1, 0)
    assert (run.undecided, run.taken, run.broken) == (-1, 2, 0)
    assert edge_state(play.task, play.task.graph.incoming["n"][0]) is EdgeState.TAKEN
