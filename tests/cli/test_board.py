"""What is known of a task's nodes while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.cli.board import Board, error_text, in_order, lineage, skip_text
from flowkit.coordinator.views import NodeView, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.dialect import parse_graph
from tests.cli.conftest import node


def board(*nodes: dict[str, Any]) -> Board:
    return Board(parse_graph({"nodes": list(nodes)}))


def event(kind: str, name: str, to: str, *, at: float = 10.0, attempt: int = 1, **data: Any) -> TaskEvent:
    return TaskEvent(1, at, kind, name, attempt, "", to, data)


def view(status: str, **nodes: tuple[str, str]) -> TaskView:
    views = {name: NodeView(name, "x", state, reason) for name, (state, reason) in nodes.items()}
    return TaskView("t", status, "", "", "", None, None, "", {}, {}, 0, 1, 0.0, None, 1, "g", views)


# The tree.


def tree(*nodes: dict[str, Any]) -> list[tuple[str, int]]:
    return list(lineage(parse_graph({"nodes": list(nodes)})))


def test_a_chain_is_a_staircase_of_bounded_depth() -> None:
    chain = [node("n0", "x"), *(node(f"n{i}", "x", f"n{i - 1}") for i in range(1, 20))]
    assert tree(*chain) == [(f"n{i}", min(i, 12)) for i in range(20)]


def test_a_join_hangs_under_the_last_of_its_deepest_sources() -> None:
    assert tree(node("a", "x"), node("b", "x", "a"), node("c", "x", "a"), node("d", "x", "a", "b", "c")) == [
        ("a", 0), ("b", 1), ("c", 1), ("d", 2),
    ]  # fmt: skip
    assert tree(node("d", "x", "a", "b"), node("b", "x", "a"), node("a", "x")) == [("a", 0), ("b", 1), ("d", 2)]


def test_a_reference_is_a_branch_too() -> None:
    assert tree(node("a", "x"), node("b", "x", inputs={"v": {"$from": "a"}})) == [("a", 0), ("b", 1)]


def test_a_deep_graph_needs_no_deep_stack() -> None:
    chain = [node("n0", "x"), *(node(f"n{i}", "x", f"n{i - 1}") for i in range(1, 5000))]
    assert len(tree(*chain)) == 5000


def test_sources_come_first() -> None:
    graph = parse_graph({"nodes": [node("c", "x", "b"), node("a", "x"), node("b", "x", "a")]})
    assert list(in_order(graph)) == ["a", "b", "c"]


# Events.


def test_an_attempt_is_followed_from_lease_to_end() -> None:
    on = board(node("a", "x"))
    row = on.rows["a"]

    assert on.apply(event("leased", "a", "running", at=10.0)) is row
    assert (row.state, row.attempts, row.seconds(12.5)) == ("running", 1, 2.5)

    on.apply(event("failed", "a", "waiting", at=13.0, error={"code": "E", "message": "no"}, retry_at=15.0))
    assert (row.state, row.reason) == ("waiting", "E: no; again in 2.0 s")

    on.apply(event("leased", "a", "running", at=15.0, attempt=2))
    assert (row.attempts, row.reason, row.seconds(16.0)) == (2, "", 1.0)

    on.apply(event("succeeded", "a", "finished", at=17.0, attempt=2, run_sec=1.5))
    assert (row.state, row.seconds(99.0)) == ("finished", 1.5)
    assert on.counts() == "1 finished"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (event("failed", "a", "failed", error={"code": "E", "message": "a\nb"}, retry_at=None), "E: a b"),
        (event("node_failed", "a", "failed", error={"code": "bad_input"}), "bad_input"),
        (event("lost", "a", "ready", why="expired", retry_at=10.0), "expired"),
        (event("skipped", "a", "skipped", reason="upstream_failed", cause="z"), "node 'z' before it failed"),
        (event("node_cancelled", "a", "cancelled", reason="user_request"), "user_request"),
        (event("node_cancelling", "a", "running", reason="enough"), "enough"),
    ],
)
def test_a_row_says_why(told: TaskEvent, reason: str) -> None:
    on = board(node("a", "x"))
    on.apply(told)
    assert on.rows["a"].reason == reason


def test_an_end_is_told_once() -> None:
    on = board(node("a", "x"))
    done = event("succeeded", "a", "finished", run_sec=0.1)
    assert on.apply(done) is on.rows["a"]
    assert on.apply(done) is None


def test_events_of_the_task_and_of_strangers_change_no_row() -> None:
    on = board(node("a", "x"))
    assert on.apply(event("created", "", "running")) is None
    assert on.status == "running"
    assert on.apply(event("leased", "a[3]", "running")) is None
    assert on.status == "running"


# The task's own state.


def test_a_view_is_taken_over_whole() -> None:
    on = board(node("a", "x"), node("b", "x"))
    on.sync(view("running", a=("finished", ""), b=("skipped", "not_needed")))
    assert (on.status, on.rows["a"].state, on.rows["b"].reason) == ("running", "finished", "no target needs it")
    assert on.counts() == "1 finished, 1 skipped"


def test_only_what_no_event_tells_is_caught_up_with() -> None:
    on = board(*(node(name, "x") for name in "abcd"))
    on.apply(event("leased", "d", "running"))

    changed = on.catch_up(
        view("running", a=("finished", ""), b=("skipped", "not_needed"), c=("ready", ""), d=("cancelled", "stop"))
    )

    assert [row.node_id for row in changed] == ["b", "c", "d"]
    assert [row.state for row in on.rows.values()] == ["pending", "skipped", "ready", "cancelled"]


def test_the_most_urgent_rows_come_first() -> None:
    on = board(*(node(name, "x") for name in "abcde"))
    for name, state, at in (
        ("a", "finished", 1.0),
        ("b", "finished", 2.0),
        ("c", "running", 3.0),
        ("d", "failed", 4.0),
    ):
        on.apply(event("succeeded" if state == "finished" else "x", name, state, at=at))
    assert [row.node_id for row in on.most_urgent(4)] == ["d", "c", "b", "a"]


# Words.


def test_reasons_in_words() -> None:
    assert error_text(None) == error_text({}) == ""
    assert error_text({"message": "m"}) == "m"
    assert skip_text("no_output", "b") == "node 'b' has no output for it"
    assert skip_text("no_output", "") == "a node has no output for it"
    assert skip_text("another_reason", "") == "another_reason"
