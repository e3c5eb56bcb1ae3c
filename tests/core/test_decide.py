"""What reports mean for a task: placements, fencing, time, requests, and what is recorded about them."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.decide import decide
from flowkit.core.desk import CANCEL_GRACE_SEC, Decision
from flowkit.core.effects import Dispatch, Revoke
from flowkit.core.payload import Payload
from tests.core.builders import START, Play, edge, graph, new_task, node, once

TWO = graph(node("a"), node("b", "a"))


def kinds(decision: Decision) -> list[str]:
    return [type(fact).__name__ for fact in decision.recorded]


# Beginning.


def test_a_task_begins_when_its_acceptance_is_seen() -> None:
    play = Play(TWO, begin=False)
    assert (play.status, play.states) == ("queued", {"a": "pending", "b": "pending"})

    decision = play.tell(r.Accepted())

    assert decision.recorded == [f.TaskCreated()]
    assert (play.status, play.states) == ("running", {"a": "ready", "b": "pending"})
    assert play.task.created_at == play.now


def test_an_acceptance_that_is_seen_again_changes_nothing() -> None:
    play = Play(TWO)

    assert play.tell(r.Accepted()) == Decision()


def test_all_roots_are_ready_at_once_in_the_order_written() -> None:
    assert Play(graph(node("c"), node("a"), node("b"))).ready() == ["c", "a", "b"]


def test_ready_nodes_wait_by_role() -> None:
    play = Play(graph(node("a", type="x"), node("b", type="y"), node("c", type="x")))

    assert {role: list(names) for role, names in play.task.ready.items()} == {"x": ["a", "c"], "y": ["b"]}


# Placing.


def test_a_placement_is_a_lease_and_a_dispatch() -> None:
    play = Play(TWO, params={"p": 1})

    decision = play.tell(r.Placed("a", "tok", "w1", "i1", 77.0))

    assert decision.recorded == [f.AttemptLeased("a", 1, "tok", "w1", "i1", 77.0)]
    a = play.task.graph.nodes["a"]
    assert decision.effects == [Dispatch("a", a, 1, "tok", "w1", "i1", 77.0, {"p": 1})]
    assert play.states == {"a": "running", "b": "pending"}
    assert play.ready() == []


@pytest.mark.parametrize("name", ["b", "leased", "ended"])
def test_a_placement_of_a_node_that_is_not_ready_is_unused(name: str) -> None:
    play = Play(graph(node("a"), node("b", "a"), node("leased"), node("ended")))
    play.place("leased")
    play.succeed("ended")
    placed = r.Placed(name, "tok", "w", "i", 1.0)

    assert play.tell(placed) == Decision(unused=[placed])


def test_the_second_of_two_placements_of_a_node_is_unused() -> None:
    play = Play(TWO)
    second = r.Placed("a", "two", "w", "i", 1.0)

    decision = play.tell(r.Placed("a", "one", "w", "i", 1.0), second)

    assert decision.unused == [second]
    assert play.task.runs["a"].lease is not None
    assert play.task.runs["a"].lease.token == "one"


@pytest.mark.parametrize("kind", ["pause", "cancel"])
def test_nothing_is_placed_in_a_task_that_does_not_run(kind: str) -> None:
    play = Play(graph(node("a"), node("b")))
    play.place("b")
    play.ask(kind)
    placed = r.Placed("a", "tok", "w", "i", 1.0)

    assert play.tell(placed).unused == [placed]


def test_a_hop_is_one_decision_result_and_next_lease() -> None:
    play = Play(TWO)
    play.place("a")

    decision = play.tell(r.Succeeded(*play.attempt_of("a"), Payload(5)), r.Placed("b", "tok", "w", "i", 1.0))

    assert kinds(decision) == ["AttemptSucceeded", "AttemptLeased"]
    assert play.dispatches()["b"].inputs == 5  # I7: the inputs are the applied results


# Chosen successors.


def test_a_choice_that_is_no_successor_fails_the_attempt_for_good_with_the_nearest() -> None:
    play = Play(graph(node("a"), node("review", "a"), node("ship", "a"), node("c", "ship")))

    play.succeed("a", output=1, next=["ship", "reveiw"])

    assert play.states == {"a": "failed", "review": "skipped", "ship": "skipped", "c": "skipped"}
    assert play.task.error == {
        "code": "bad_output",
        "message": "Next names 'reveiw', which is no successor of 'a' (did you mean 'review'?); "
        "they are: 'review', 'ship'",
        "node_id": "a",
    }
    assert play.task.runs["a"].output is None


def test_only_direct_successors_can_be_chosen_those_by_reference_included() -> None:
    def chosen(name: str) -> str:
        play = Play(graph(node("a"), node("b", inputs={"x": {"$from": "a"}}), node("c", "b")))
        play.succeed("a", next=[name])
        return play.state("a")

    assert [chosen(name) for name in "bca"] == ["finished", "failed", "failed"]


# Fencing.


@pytest.mark.parametrize("token", ["", "a#1 ", "b#1", "A#1"])
def test_a_report_with_another_token_changes_nothing(token: str) -> None:
    play = Play(TWO)
    play.place("a")

    assert play.tell(r.Succeeded("a", 1, token, Payload("forged"))) == Decision(stale=1)


def test_a_report_of_a_lower_attempt_changes_nothing_even_with_the_current_token() -> None:
    play = Play(graph(node("a", retry_policy={"backoff_sec": 0})))
    play.fail("a")
    play.place("a")

    assert play.tell(r.Succeeded("a", 1, "a#2", Payload(1))) == Decision(stale=1)
    assert play.tell(r.Succeeded("a", 1, "a#1", Payload(1))) == Decision(stale=1)


def test_a_report_of_a_higher_attempt_says_that_the_state_is_behind() -> None:
    play = Play(TWO)
    play.place("a")
    ahead = r.Succeeded("a", 2, "a#2", Payload(1))

    assert play.tell(ahead) == Decision(ahead=[ahead])


def test_a_report_about_a_node_that_is_not_there_changes_nothing() -> None:
    assert Play(TWO).tell(r.Started("zz", 1, "t")) == Decision(stale=1)


def test_a_report_before_any_lease_says_that_the_state_is_behind() -> None:
    play = Play(TWO, begin=False)
    report = r.Succeeded("a", 1, "t", Payload(1))

    assert play.tell(report) == Decision(ahead=[report])


def test_the_result_of_a_lost_lease_changes_nothing() -> None:
    play = Play(TWO)
    play.place("a")
    play.lose("a")

    assert play.tell(r.Succeeded("a", 1, "a#1", Payload("late"))) == Decision(stale=1)
    assert play.state("a") == "ready"


def test_a_result_is_applied_once() -> None:
    play = Play(TWO)
    play.place("a")
    result = r.Succeeded(*play.attempt_of("a"), Payload(1))

    decision = play.tell(result, result)

    assert kinds(decision) == ["AttemptSucceeded"]
    assert decision.stale == 1


def test_a_success_that_arrives_before_its_own_start_is_taken() -> None:
    play = Play(TWO)
    play.place("a")
    play.tell(r.Succeeded(*play.attempt_of("a"), Payload(1)))

    assert play.tell(r.Started("a", 1, "a#1")) == Decision(stale=1)
    assert play.state("a") == "finished"


def test_reports_are_answered_in_order() -> None:
    play = Play(TWO)
    play.place("a")
    fails, succeeds = r.Failed(*play.attempt_of("a"), {"code": "x"}), r.Succeeded(*play.attempt_of("a"), Payload(1))

    decision = play.tell(fails, succeeds)

    assert kinds(decision) == ["AttemptFailed"]
    assert decision.stale == 1


def test_nothing_is_decided_without_reports() -> None:
    assert Play(TWO).tell() == Decision()


# Timeouts of nodes.


def queued(**more: Any) -> Play:
    return Play(graph(node("a", timeouts={"queued_sec": 10}, **more), node("b", "a")))


def test_a_node_that_nobody_takes_in_time_fails() -> None:
    play = queued()
    assert play.wait(9.9) == Decision()

    play.wait(0.1)

    assert play.states == {"a": "failed", "b": "skipped"}
    assert play.task.error == {"code": "queue_timeout", "message": "no worker took it within 10 s", "node_id": "a"}


def test_a_node_that_was_taken_in_time_does_not() -> None:
    play = queued()
    play.place("a")

    assert play.wait(100) == Decision()


def test_a_node_that_is_ready_again_may_wait_anew() -> None:
    play = queued(retry_policy={"backoff_sec": 0})
    play.wait(9)
    play.fail("a")

    play.wait(9)
    assert play.state("a") == "ready"
    play.wait(1)

    assert play.state("a") == "failed"


def test_a_worker_that_declines_or_never_hears_of_it_does_not_stop_the_time_in_the_queue() -> None:
    play = queued()
    play.wait(3)
    play.decline("a")
    play.wait(3)
    play.decline("a")
    play.lose("a", unaccepted=True)
    play.wait(3)
    assert play.state("a") == "ready"

    play.place("a")
    play.wait(5)
    assert play.state("a") == "running"  # who has taken it has it
    play.decline("a")
    play.wait(1)

    assert play.task.runs["a"].error == {"code": "queue_timeout", "message": "no worker took it within 10 s"}


def test_who_waits_for_a_permit_is_told_that_it_may_have_been_that() -> None:
    play = Play(graph(node("a", limits=[{"key": "db", "max": 1}], timeouts={"queued_sec": 10})))
    play.wait(10)

    say = "its limits gave it no permit, or no worker took it within 10 s"
    assert play.task.runs["a"].error == {"code": "queue_timeout", "message": say}


def test_an_attempt_that_began_stops_the_time_in_the_queue() -> None:
    for over in ("lose", "release"):
        play = queued()
        play.wait(9)
        getattr(play, over)("a")

        play.wait(9)
        assert play.state("a") == "ready"
        play.wait(1)

        assert play.state("a") == "failed"


def test_a_failure_in_the_queue_is_not_retried() -> None:
    play = queued(retry_policy={"max": 10})

    play.wait(10)

    assert play.state("a") == "failed"


def test_total_sec_bounds_all_attempts_together_from_first_ready() -> None:
    play = Play(
        graph(node("r"), node("a", "r", timeouts={"total_sec": 10}, retry_policy={"max": 99, "backoff_sec": 0}))
    )
    play.wait(100)
    play.succeed("r")
    for _ in range(9):
        play.fail("a")
        play.wait(1)
    play.place("a")

    decision = play.wait(1)

    assert kinds(decision)[0] == "NodeFailed"
    assert play.revokes()["a"] == Revoke(
        "a", 10, "a#10", "w", "i", "all its attempts together took longer than 10 s", 0.0
    )
    assert play.task.error is not None
    assert play.task.error["code"] == "total_timeout"


@pytest.mark.parametrize("state", ["ready", "waiting", "running"])
def test_total_sec_ends_a_node_in_every_state(state: str) -> None:
    play = Play(graph(node("a", timeouts={"total_sec": 10}, retry_policy={"jitter": False, "backoff_sec": 60})))
    if state == "waiting":
        play.fail("a")
    elif state == "running":
        play.start("a")
    assert play.state("a") == state

    play.wait(10)

    assert play.state("a") == "failed"
    assert play.task.next_wake() is None


def test_a_node_that_ended_in_time_is_left_alone() -> None:
    play = Play(graph(node("a", timeouts={"total_sec": 10}), node("b")))
    play.succeed("a")

    assert play.wait(100) == Decision()


def test_a_node_that_was_told_to_stop_does_not_fail_the_task_by_its_timeout() -> None:
    play = Play(graph(node("a", timeouts={"total_sec": 10}), node("b")))
    play.place("a")
    play.ask("cancel", node_id="a", grace_sec=30)

    assert play.wait(15) == Decision()
    play.wait(15)
    play.succeed("b")

    assert play.states == {"a": "cancelled", "b": "finished"}
    assert play.status == "finished"


def test_the_result_of_a_timed_out_attempt_changes_nothing() -> None:
    play = Play(graph(node("a", timeouts={"total_sec": 10}), node("b")))
    play.place("a")
    play.wait(10)

    assert play.tell(r.Succeeded("a", 1, "a#1", Payload(1))) == Decision(stale=1)


# The task's own timeout.


def test_a_task_that_takes_too_long_fails_with_timeout_and_its_unfinished_nodes_are_cancelled() -> None:
    play = Play(graph(node("a"), node("b"), node("c", "b"), timeout_sec=10))
    play.succeed("a")

    play.wait(10)

    assert play.states == {"a": "finished", "b": "cancelled", "c": "cancelled"}
    assert play.status == "failed"
    assert play.task.error == {"code": "timeout", "message": "the task did not end within 10 s"}


def test_the_callers_timeout_goes_before_the_graphs() -> None:
    play = Play(graph(node("a"), timeout_sec=10), timeout_sec=5)

    play.wait(5)

    assert play.status == "failed"


def test_a_running_node_is_told_to_stop_and_waited_for_when_the_task_times_out() -> None:
    play = Play(graph(node("a"), timeout_sec=10))
    play.place("a")

    play.wait(10)
    assert play.status == "cancelling"
    assert play.revokes()["a"].grace_sec == CANCEL_GRACE_SEC
    play.wait(CANCEL_GRACE_SEC)

    assert (play.status, play.state("a")) == ("failed", "cancelled")


def test_a_task_that_ended_in_time_is_left_alone() -> None:
    play = Play(graph(node("a"), timeout_sec=10))
    play.succeed("a")

    assert play.wait(10) == Decision()
    assert play.status == "finished"


def test_a_users_cancel_is_not_overtaken_by_the_timeout() -> None:
    play = Play(graph(node("a"), timeout_sec=10))
    play.place("a")
    play.ask("cancel")

    assert play.wait(10) == Decision()
    play.release("a")

    assert play.status == "cancelled"


# Pause and resume.


def test_a_paused_task_lets_what_runs_go_on() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c")))
    play.place("a")
    assert play.ask("pause", reason="lunch") == ""
    assert (play.status, play.task.paused, play.task.reason) == ("paused", True, "lunch")

    play.succeed("a")

    assert play.states == {"a": "finished", "b": "ready", "c": "ready"}
    assert play.status == "paused"


def test_a_paused_task_may_end() -> None:
    play = Play(graph(node("a")))
    play.place("a")
    play.ask("pause")

    play.succeed("a")

    assert (play.status, play.task.paused) == ("finished", False)


def test_a_resumed_task_runs() -> None:
    play = Play(TWO)
    play.ask("pause")

    assert play.ask("resume") == ""

    assert (play.status, play.task.paused, play.task.reason) == ("running", False, "")
    play.succeed("a")
    play.succeed("b")
    assert play.status == "finished"


def test_a_paused_task_can_be_cancelled() -> None:
    play = Play(TWO)
    play.ask("pause")

    assert play.ask("cancel") == ""

    assert (play.status, play.task.paused) == ("cancelled", False)


def test_a_paused_task_that_is_being_cancelled_is_not_paused() -> None:
    play = Play(TWO)
    play.place("a")
    play.ask("pause")

    play.ask("cancel")

    assert (play.status, play.task.paused) == ("cancelling", False)


def test_a_retry_that_falls_due_while_paused_waits_for_the_resume() -> None:
    play = Play(graph(node("a", retry_policy={"jitter": False})))
    play.fail("a")
    play.ask("pause")

    play.wait(1)

    assert play.state("a") == "ready"
    assert play.place("a").unused


# Cancelling a task.


def test_cancelling_reaches_pending_nodes_too() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", retry_policy={"jitter": False}), node("d")))
    play.fail("c")
    play.succeed("d")

    assert play.ask("cancel", reason="enough") == ""

    assert play.states == {"a": "cancelled", "b": "cancelled", "c": "cancelled", "d": "finished"}
    assert (play.status, play.task.reason) == ("cancelled", "enough")
    assert play.task.runs["b"].reason == "enough"


def test_cancelling_tells_running_attempts_and_waits_for_them() -> None:
    play = Play(graph(node("a"), node("b"), node("c")))
    play.place("a", "b")

    play.ask("cancel", grace_sec=5)

    assert play.status == "cancelling"
    assert play.states == {"a": "running", "b": "running", "c": "cancelled"}
    assert {name: revoke.grace_sec for name, revoke in play.revokes().items()} == {"a": 5, "b": 5}
    play.release("a")
    assert play.status == "cancelling"
    play.wait(5)
    assert (play.status, play.states["b"]) == ("cancelled", "cancelled")


def test_a_result_that_arrives_while_cancelling_is_not_taken() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.place("a")
    play.ask("cancel")

    play.succeed("a", output=1)

    assert play.states == {"a": "cancelled", "b": "cancelled"}
    assert play.status == "cancelled"


def test_cancelling_twice_is_accepted_and_changes_nothing() -> None:
    play = Play(graph(node("a")))
    play.place("a")
    play.ask("cancel", grace_sec=5)

    assert play.ask("cancel", grace_sec=50) == ""

    assert kinds(play.last) == ["RequestApplied"]
    play.wait(5)
    assert play.status == "cancelled"


def test_a_task_that_has_ended_cannot_be_cancelled() -> None:
    play = Play(graph(node("a")))
    play.succeed("a")

    assert play.ask("cancel") == "it has ended already"
    assert play.status == "finished"


def test_a_task_may_be_cancelled_before_it_began() -> None:
    play = Play(TWO, begin=False)

    assert play.ask("cancel") == ""

    assert play.status == "cancelled"
    assert play.tell(r.Accepted()) == Decision()


@pytest.mark.parametrize("grace", [None, "soon", True, [], -1, float("nan"), float("inf"), 1e300])
def test_a_grace_that_makes_no_sense_is_bent_into_one(grace: Any) -> None:
    play = Play(graph(node("a")))
    play.place("a")

    play.ask("cancel", grace_sec=grace)

    assert 0 <= play.revokes()["a"].grace_sec <= 1e9
    (fact,) = play.facts(f.TaskCancelling)
    assert play.now <= fact.until <= play.now + 1e9


def test_a_reason_is_kept_short() -> None:
    play = Play(graph(node("a"), node("b")))
    play.ask("cancel", reason="x" * 100_000)

    assert len(play.task.reason) == 1000


# Cancelling a node.


def test_cancelling_a_node_breaks_its_edges() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c")))

    assert play.ask("cancel", node_id="a", reason="not today") == ""

    assert play.states == {"a": "cancelled", "b": "skipped", "c": "ready"}
    assert play.skipped("b") == ("upstream_failed", True, "a")
    assert play.task.runs["a"].reason == "not today"
    assert play.status == "running"


def test_cancelling_a_running_node_waits_for_it() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c")))
    play.start("a")

    play.ask("cancel", node_id="a", grace_sec=5)

    assert play.states == {"a": "running", "b": "pending", "c": "ready"}
    assert play.revokes()["a"] == Revoke("a", 1, "a#1", "w", "i", "user_request", 5.0)
    play.release("a")
    assert play.states == {"a": "cancelled", "b": "skipped", "c": "ready"}


def test_a_worker_that_does_not_answer_is_waited_for_no_longer_than_the_grace() -> None:
    play = Play(graph(node("a"), node("b")))
    play.place("a")
    play.ask("cancel", node_id="a", grace_sec=5)

    play.wait(5)

    assert play.state("a") == "cancelled"
    assert play.tell(r.Released("a", 1, "a#1")) == Decision(stale=1)


def test_cancelling_a_node_twice_tells_the_worker_once() -> None:
    play = Play(graph(node("a"), node("b")))
    play.place("a")
    play.ask("cancel", node_id="a")

    assert play.ask("cancel", node_id="a") == ""

    assert play.revokes() == {}


@pytest.mark.parametrize("end", ["succeed", "fail_for_good"])
def test_a_node_that_has_ended_cannot_be_cancelled(end: str) -> None:
    play = Play(graph(node("a"), node("b")))
    getattr(play, end)("a")

    assert play.ask("cancel", node_id="a") == f"node 'a' is {play.state('a')} already"


def test_an_unknown_node_cannot_be_cancelled_and_the_nearest_is_named() -> None:
    play = Play(graph(node("report"), node("b")))

    assert play.ask("cancel", node_id="reprot") == "it has no node 'reprot' (did you mean 'report'?)"
    assert play.ask("cancel", node_id=["a"]) == "it has no node a list"


# Requests as such.


def test_a_request_is_answered_once_and_its_refusal_kept() -> None:
    play = Play(TWO)
    request = r.Requested(1, "id", "resume", {}, "ada")

    decision = play.tell(request, request)

    assert decision.recorded == [
        f.RequestApplied(1, "id", "resume", False, "it is running, not paused", "ada"),
    ]
    assert play.tell(request) == Decision()
    assert (play.task.applied, play.task.refusals) == (1, {1: "it is running, not paused"})


def test_a_request_that_nobody_knows_is_refused() -> None:
    assert Play(TWO).ask("dance") == "nobody knows a request 'dance'"


def test_pausing_a_paused_task_is_refused() -> None:
    play = Play(TWO)
    play.ask("pause")

    assert play.ask("pause") == "it is paused, not running"


def test_requests_are_recorded_with_who_asked() -> None:
    play = Play(TWO)
    play.ask("pause")

    (fact,) = play.facts(f.RequestApplied)
    assert (fact.principal, fact.accepted, fact.why) == ("ada", True, "")


# Restarts.


def failed() -> Play:
    """`a` finished, `b` failed, `c` skipped because of it, `d` finished."""
    play = Play(graph(node("a"), once("b", "a"), node("c", "b"), node("d", "a")))
    play.succeed("a", output=1)
    play.fail("b")
    play.succeed("d")
    assert play.status == "failed"
    return play


def test_a_restart_runs_the_whole_task_again() -> None:
    play = failed()

    assert play.ask("restart") == ""

    assert play.facts(f.TaskRestarted) == [f.TaskRestarted(1, None)]
    assert (play.status, play.task.generation, play.task.error) == ("running", 1, None)
    assert play.states == {"a": "ready", "b": "pending", "c": "pending", "d": "pending"}


def test_a_restart_of_the_failed_part_keeps_what_ran() -> None:
    play = failed()

    assert play.ask("restart", failed_only=True) == ""

    assert play.states == {"a": "finished", "b": "ready", "c": "pending", "d": "finished"}
    assert play.inputs("b") == 1
    play.succeed("b")
    play.succeed("c")
    assert play.status == "finished"


def test_a_restart_from_a_node_runs_it_and_all_after_it() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", "b"), node("d", "a")))
    play.succeed("a")
    play.succeed("b", "d")
    play.succeed("c")

    assert play.ask("restart", from_node="b") == ""

    assert play.states == {"a": "finished", "b": "ready", "c": "pending", "d": "finished"}
    assert play.facts(f.TaskRestarted) == [f.TaskRestarted(1, ("b", "c"))]


def test_attempt_numbers_never_repeat_over_generations() -> None:
    play = failed()
    play.ask("restart")

    play.place("a")

    assert play.attempt("a") == 2
    assert play.tell(r.Succeeded("a", 1, "a#1", Payload("old"))) == Decision(stale=1)


def test_budgets_begin_anew_with_each_generation() -> None:
    play = Play(graph(node("a", retry_policy={"max": 2, "backoff_sec": 0, "lost_max": 2})))
    play.lose("a")
    play.fail("a")
    play.fail("a")
    assert play.status == "failed"

    play.ask("restart")
    play.lose("a")
    play.fail("a")

    assert play.state("a") == "ready"


def test_timers_of_an_earlier_generation_mean_nothing() -> None:
    play = Play(graph(node("a", timeouts={"queued_sec": 10}), timeout_sec=50))
    play.wait(9)
    play.succeed("a")
    play.ask("restart")

    assert play.wait(1) == Decision()
    play.wait(9)

    assert play.task.error is not None
    assert play.task.error["code"] == "queue_timeout"


def test_the_tasks_timeout_begins_anew_with_a_restart() -> None:
    play = Play(graph(node("a"), timeout_sec=10))
    play.wait(9)
    play.succeed("a")
    play.ask("restart")

    assert play.wait(9) == Decision()
    play.wait(1)

    assert play.status == "failed"


def test_a_restart_of_a_paused_task_that_ended_is_not_paused() -> None:
    play = Play(graph(node("a")))
    play.place("a")
    play.ask("pause")
    play.succeed("a")

    play.ask("restart")

    assert (play.status, play.task.paused) == ("running", False)


def test_a_restart_leaves_out_what_no_target_needs() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", "a"), node("d")), targets=["b"])
    play.succeed("a")
    play.succeed("b")

    assert play.ask("restart") == ""
    assert play.states == {"a": "ready", "b": "pending", "c": "skipped", "d": "skipped"}
    play.succeed("a")
    play.succeed("b")
    assert play.status == "finished"

    assert play.ask("restart", from_node="a") == ""
    assert play.states == {"a": "ready", "b": "pending", "c": "skipped", "d": "skipped"}


def test_a_restart_from_a_node_that_no_target_needs_is_refused() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", "a")), targets=["b"])
    play.succeed("a")
    play.succeed("b")

    assert play.ask("restart", from_node="c") == "node 'c' could not start, the targets of the task do not need it"


def test_a_cancelled_task_can_be_restarted_where_it_was() -> None:
    play = Play(graph(node("a"), node("b", "a")))
    play.succeed("a", output=1)
    play.ask("cancel")

    assert play.ask("restart", failed_only=True) == ""

    assert play.states == {"a": "finished", "b": "ready"}
    assert (play.task.cancel_outcome, play.task.reason) == ("", "")
    play.succeed("b")
    assert play.status == "finished"


def test_restarts_recount_the_edges_of_what_ran() -> None:
    play = Play(
        graph(
            node("a"), once("b"), node("j", "a", "b", fan_in="any"), node("k", "a", "b"), node("m", fan_in={"count":
            2}),
            edges=[edge("a", "m"), edge("b", "m", "end")],
        )
    )  # fmt: skip
    play.succeed("a")
    play.fail("b")
    play.succeed("j", "m")

    assert play.ask("restart", failed_only=True) == ""

    counters = {n: (play.task.runs[n].undecided, play.task.runs[n].taken) for n in "jkm"}
    assert counters == {"j": (1, 1), "k": (1, 1), "m": (1, 1)}
    assert play.states == {"a": "finished", "b": "ready", "j": "ready", "k": "pending", "m": "pending"}


def test_a_restart_may_decide_at_once_that_a_node_is_skipped_again() -> None:
    play = Play(graph(once("a"), node("b"), node("j", "a", "b")))
    play.fail("a")
    play.succeed("b")

    assert play.ask("restart", from_node="b") == ""

    assert play.states == {"a": "failed", "b": "ready", "j": "skipped"}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"from_node": "zz"}, "it has no node 'zz'"),
        ({"from_node": 7}, "it has no node 7"),
        ({"from_node": "c"}, "node 'c' could not start, 'b' before it did not finish: restart from there"),
    ],
)
def test_restarts_are_refused_with_the_reason(args: dict[str, Any], why: str) -> None:
    play = failed()

    assert play.ask("restart", **args) == why
    assert (play.status, play.task.generation) == ("failed", 0)


def test_a_restart_of_the_failed_part_where_nothing_failed_is_refused() -> None:
    play = Play(graph(node("a")))
    play.succeed("a")

    assert play.ask("restart", failed_only=True) == "nothing in it failed"


def test_a_task_that_runs_cannot_be_restarted() -> None:
    play = Play(TWO)

    assert play.ask("restart") == "it is running: only a task that has ended can be restarted; cancel it first"


# Ends.


def test_terminal_is_final_per_generation() -> None:
    play = Play(graph(node("a")))
    play.place("a")
    play.fail_for_good("a")
    again = [r.Succeeded("a", 1, "a#1", Payload(1)), r.TimeReached(), r.Accepted(), r.Expired("a", 1, "a#1")]

    decision = play.tell(*again)

    assert decision == Decision(stale=2)
    assert play.status == "failed"


def test_a_long_chain_of_skips_is_settled_in_one_decision() -> None:
    chain = [once("n0"), *(node(f"n{n}", f"n{n - 1}") for n in range(1, 3000))]
    task = new_task(graph(*chain))
    decide(task, [r.Accepted(), r.Placed("n0", "t", "w", "i", 1.0)], START)

    decision = decide(task, [r.Failed("n0", 1, "t", {"code": "x"})], START)

    assert kinds(decision)[-1] == "TaskEnded"
    assert len(decision.recorded) == 3001
