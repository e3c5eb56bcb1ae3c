"""The state's own little helpers: who is ready, and which timers still mean something."""

from __future__ import annotations

import gc
from collections import deque

import pytest

from flowkit.core import facts as f
from flowkit.core.decide import decide
from flowkit.core.evolve import evolve
from flowkit.core.model import ENDED_TASK, TaskStatus, Timer
from flowkit.core.node_run import ENDED_NODE, NodeState
from flowkit.core.payload import Payload
from tests.core.builders import START, Play, graph, new_task, node


def test_states_are_the_words_that_users_read() -> None:
    assert [str(state) for state in NodeState] == [
        "pending", "ready", "running", "waiting", "finished", "failed", "skipped", "cancelled",
    ]  # fmt: skip
    assert [str(status) for status in TaskStatus] == [
        "queued", "running", "paused", "cancelling", "finished", "failed", "cancelled",
    ]  # fmt: skip
    assert {str(state) for state in ENDED_NODE} == {"finished", "failed", "skipped", "cancelled"}
    assert {str(status) for status in ENDED_TASK} == {"finished", "failed", "cancelled"}


def test_a_new_task_is_queued_and_knows_how_many_edges_each_node_waits_for() -> None:
    task = new_task(graph(node("a"), node("b", "a"), node("c", "a", "b", inputs={"x": {"$from": "a"}}), node("d", "c"),
                          node("e", "d", inputs={"x": {"$from": "a"}})))  # fmt: skip

    assert (task.status, task.created, task.ended, task.open) == ("queued", False, False, 5)
    assert {name: (run.undecided, run.unread) for name, run in task.runs.items()} == {
        "a": (0, 0), "b": (1, 0), "c": (2, 0), "d": (1, 0), "e": (1, 1),
    }  # fmt: skip


def test_ready_nodes_wait_oldest_first_and_leave_no_empty_role_behind() -> None:
    task = new_task(graph(node("a"), node("b"), node("c", type="other")))
    for name in ("b", "a", "c"):
        task.set_ready(name)

    task.unset_ready("c")
    task.unset_ready("c")

    assert {role: list(names) for role, names in task.ready.items()} == {"work": ["b", "a"]}


def test_the_next_wake_is_the_earliest_timer_that_means_something() -> None:
    play = Play(graph(node("a", timeouts={"queued_sec": 5, "total_sec": 50}), node("b", timeouts={"queued_sec": 20})))
    assert play.task.next_wake() == play.now + 5

    play.place("a")

    assert play.task.next_wake() == play.now + 20


def test_without_timers_there_is_no_wake() -> None:
    assert Play(graph(node("a"))).task.next_wake() is None


@pytest.mark.parametrize("kind", [Timer.RETRY, Timer.QUEUED, Timer.TOTAL, Timer.GRACE, Timer.TASK])
def test_timers_of_another_generation_mean_nothing(kind: str) -> None:
    play = Play(graph(node("a", timeouts={"queued_sec": 1})))

    assert not play.task.timer_live((play.now, 1, kind, "a"))


def test_a_retry_timer_means_something_only_for_the_wait_it_was_set_for() -> None:
    play = Play(graph(node("a", retry_policy={"jitter": False})))
    play.fail("a")

    assert play.task.timer_live((play.now + 1, 0, Timer.RETRY, "a"))
    assert not play.task.timer_live((play.now + 2, 0, Timer.RETRY, "a"))
    play.ask("cancel", node_id="a")
    assert not play.task.timer_live((play.now + 1, 0, Timer.RETRY, "a"))


def test_a_grace_timer_means_something_only_while_the_attempt_is_told_to_stop() -> None:
    play = Play(graph(node("a"), node("b")))
    timer = (play.now + 30, 0, Timer.GRACE, "a")
    play.place("a")
    assert not play.task.timer_live(timer)

    play.ask("cancel", node_id="a")
    assert play.task.timer_live(timer)
    play.release("a")

    assert not play.task.timer_live(timer)


def test_the_first_of_two_graces_counts() -> None:
    play = Play(graph(node("a"), node("b")))
    play.place("a")
    play.ask("cancel", node_id="a", grace_sec=10)

    play.ask("cancel", grace_sec=50)

    assert play.task.next_wake() == play.now + 10
    play.wait(10)
    assert play.status == "cancelled"


def test_a_new_task_has_few_containers_of_its_own() -> None:
    """Python's cycle collector looks at all of them, and there are thousands of tasks: there were twenty."""
    own = [part for part in gc.get_referents(new_task(graph(node("a")))) if type(part) in (dict, list, set, deque)]

    assert len(own) <= 6  # what every task comes to use


def test_what_is_put_into_one_task_is_in_no_other() -> None:
    shape = graph(node("a"), node("b", "a"))
    told: list[f.Fact] = [
        f.TaskCreated(), f.NodeHeld("b"), f.RequestApplied(1, "q", "pause", False, "no"),
        f.SignalReceived("s", Payload(1)),
        f.DeadlineSet("b", START + 9), f.NodeFailed("a", {"code": "x", "message": "y"}),
    ]  # fmt: skip
    one, other = new_task(shape), new_task(shape)
    for fact in told:
        evolve(one, fact, START)

    assert (list(one.held), one.refusals, list(one.signals)) == (["b"], {1: "no"}, ["s"])
    assert (one.deadlines, list(one.failed), list(one.agenda)) == ({"b": START + 9}, ["a"], ["a", "b"])
    assert not any((other.held, other.refusals, other.signals, other.deadlines, other.failed, other.agenda))


def test_a_task_whose_nodes_have_all_ended_needs_no_entry_on_its_agenda_to_end() -> None:
    task = new_task(graph(node("a")))
    for fact in (f.TaskCreated(), f.NodeFinished("a", Payload(1))):
        evolve(task, fact, START)
    assert (task.open, list(task.agenda)) == (0, [])

    assert decide(task, [], START).recorded == [f.TaskEnded("finished")]
