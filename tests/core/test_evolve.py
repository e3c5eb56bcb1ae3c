"""The fold: what each recorded fact does to a state, and that nothing else does."""

from __future__ import annotations

import pytest

from flowkit.core import facts as f
from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.core.payload import Payload
from tests.core.builders import START, Play, differences, graph, new_task, node, once, replayed

LEASED = f.AttemptLeased("a", 1, "tok", "w", "i", 7.0)


def folded(*facts: f.Fact, raw: object = None) -> Task:
    task = new_task(raw or graph(node("a"), node("b", "a")))  # type: ignore[arg-type]
    for second, fact in enumerate(facts):
        evolve(task, fact, START + second)
    return task


def test_the_same_facts_give_the_same_state() -> None:
    facts = [f.TaskCreated(), LEASED, f.AttemptSucceeded("a", 1, "tok", Payload(1))]

    task = folded(*facts)
    assert differences(task, replayed(task, [(START + n, fact) for n, fact in enumerate(facts)])) == []


def test_readiness_follows_from_the_facts_and_is_not_recorded() -> None:
    task = folded(f.TaskCreated(), LEASED, f.AttemptSucceeded("a", 1, "tok", Payload(1)))

    assert list(task.ready["work"]) == ["b"]
    assert task.runs["b"].ready_at == START + 2


def test_a_lease_is_remembered_whole() -> None:
    task = folded(f.TaskCreated(), LEASED)

    lease = task.runs["a"].lease
    assert lease is not None
    assert (lease.token, lease.worker, lease.incarnation, lease.accept_by) == ("tok", "w", "i", 7.0)
    assert (lease.leased_at, lease.started, lease.cancelling) == (START + 1, False, False)
    assert task.runs["a"].started_at == START + 1
    assert list(task.leased) == ["a"]


def test_a_start_is_noted_on_the_lease() -> None:
    lease = folded(f.TaskCreated(), LEASED, f.AttemptStarted("a", 1, "tok")).runs["a"].lease

    assert lease is not None
    assert lease.started


def test_started_at_is_the_first_attempts() -> None:
    failed = f.AttemptFailed("a", 1, "tok", {"code": "x"}, START)
    task = folded(f.TaskCreated(), LEASED, failed, f.AttemptLeased("a", 2, "two", "w", "i", 7.0))

    assert task.runs["a"].started_at == START + 1
    assert task.runs["a"].attempt == 2


def test_a_result_is_kept_with_its_choice_and_its_time() -> None:
    run = folded(f.TaskCreated(), LEASED, f.AttemptSucceeded("a", 1, "tok", Payload(1), ("b",), 0.5)).runs["a"]

    assert (run.output, run.next, run.run_sec, run.ended_at) == (Payload(1), ("b",), 0.5, START + 2)
    assert run.lease is None


def test_a_retry_that_is_already_due_makes_the_node_ready() -> None:
    task = folded(f.TaskCreated(), LEASED, f.AttemptFailed("a", 1, "tok", {"code": "x"}, START + 2))

    assert str(task.runs["a"].state) == "ready"
    assert task.next_wake() is None


def test_a_retry_to_come_is_a_timer() -> None:
    task = folded(f.TaskCreated(), LEASED, f.AttemptFailed("a", 1, "tok", {"code": "x"}, START + 9))

    assert str(task.runs["a"].state) == "waiting"
    assert task.next_wake() == START + 9


def test_what_needs_a_decision_is_put_on_the_agenda_and_survives_a_replay() -> None:
    play = Play(graph(once("a"), node("b", "a"), node("c", "b")))
    play.fail("a")
    cut = next(n for n, (_, fact) in enumerate(play.recorded) if isinstance(fact, f.NodeSkipped))

    task = replayed(play.task, play.recorded[:cut])  # as if the rest had not been stored

    assert "b" in task.agenda
    assert str(task.runs["b"].state) == "pending"


def test_every_prefix_of_a_decision_is_a_state_from_which_it_goes_on() -> None:
    play = Play(graph(once("a"), node("b", "a"), node("c", "b"), node("d"), node("j", "c", "d", fan_in="any"),
                      fail_fast=True))  # fmt: skip
    play.fail("a")
    play.succeed("d", next=[])

    for cut in range(1, len(play.recorded)):
        half = Play(play.task.graph, begin=False)
        half.recorded = play.recorded[:cut]
        half.task = replayed(half.task, half.recorded)
        half.tell()
        for name in half.ready():
            half.succeed(name, next=[])
        for name in list(half.task.leased):
            half.lose(name, unaccepted=True)
            half.fail(name) if name == "a" else half.succeed(name, next=[])
        assert half.task.ended, (cut, half.states)


def test_an_unknown_fact_is_no_fact() -> None:
    with pytest.raises(AssertionError, match="does not know"):
        evolve(new_task(graph(node("a"))), object(), START)  # type: ignore[arg-type]


def test_the_end_leaves_nothing_to_do() -> None:
    join = node("j", "p", "q", fan_in="any", losers="cancel")
    play = Play(graph(node("p", timeouts={"total_sec": 99}), node("q"), join, timeout_sec=500))
    play.succeed("q")
    play.succeed("j")

    assert play.status == "finished"
    assert not (play.task.ready or play.task.agenda or play.task.joined or play.task.timers or play.task.leased)


def test_a_cancel_that_is_folded_cancels_what_does_not_run_at_once() -> None:
    raw = graph(node("a"), node("b", "a"), node("c"))
    task = folded(f.TaskCreated(), LEASED, f.TaskCancelling("why", "cancelled", START + 30), raw=raw)

    assert {name: str(run.state) for name, run in task.runs.items()} == {
        "a": "running",
        "b": "cancelled",
        "c": "cancelled",
    }
    assert task.open == 1
    assert task.next_wake() == START + 30


def test_refusals_are_kept_and_acceptances_are_not() -> None:
    yes, no = f.RequestApplied(1, "x", "pause", True), f.RequestApplied(2, "y", "pause", False, "it is paused")

    task = folded(f.TaskCreated(), yes, no)

    assert (task.applied, task.refusals) == (2, {2: "it is paused"})
