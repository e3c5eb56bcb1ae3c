"""The judge finds nothing in good histories, and every kind of violation in the history that was spoiled for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.model import Task
from flowkit.ports import Request
from flowkit.testing.evidence import UNKNOWN, Asked, Evidence, Frozen
from flowkit.testing.history import check_history, essence_of, state_of
from tests.testing.histories import CHAIN, Story, asked, cancelling, done, failed, good, leased, lost

ACKNOWLEDGED = [("t", 1, "c1"), ("t", 2, "c2"), ("t", 3, "c3")]
JOIN = {
    "nodes": [
        {"node_id": "a", "type": "work"},
        {"node_id": "b", "type": "work"},
        {"node_id": "c", "type": "work", "depends_on": ["a", "b"]},
    ]
}


def request(n: int, *, applied: bool = True) -> Request:
    return Request("t", n, f"r{n}", "cancel", "{}", 0, "default", "local", 0.0, applied)


class TestGood:
    def test_a_finished_task(self) -> None:
        assert good().check(acknowledged=ACKNOWLEDGED, events=set(ACKNOWLEDGED), strict=True) == []

    def test_retries_losses_and_waits(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a")).then(leased("a", 2))
        story.then(f.AttemptStarted("a", 2, "a.2")).then(done("a", 2), leased("b")).then(failed("b", retry_at=8.0))
        story.then(f.RetryDue("b"), leased("b", 2), at=8.0).then(done("b", 2), f.TaskEnded("finished"), at=9.0)
        story.run("a", at=1.1, until=1.9).run("a", 2, at=3.1, until=4.9, inputs={})

        assert story.check() == []

    def test_a_task_that_is_cancelled_and_restarted(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(asked(1, "cancel"), cancelling())
        story.then(f.NodeCancelled("a", "user_request"), f.TaskEnded("cancelled"))
        story.then(asked(2, "pause", accepted=False), asked(3, "restart"), f.TaskRestarted(1), leased("a", 2))
        story.then(done("a", 2), leased("b")).then(done("b"), f.TaskEnded("finished"))

        assert story.check(asked=[Asked("t", "r1", "cancel"), Asked("t", "r3", "restart")]) == []

    def test_a_failure_that_ends_the_task(self) -> None:
        story = (
            Story()
            .then(f.TaskCreated(), leased("a"))
            .then(failed("a"), f.NodeSkipped("b", "upstream_failed", True, "a"), f.TaskEnded("failed", {"code": "x"}))
        )

        assert story.check() == []

    def test_a_join_of_any_goes_on_without_the_failed(self) -> None:
        graph = {"nodes": [*JOIN["nodes"][:2], {**JOIN["nodes"][2], "fan_in": "any"}]}
        story = Story(graph).then(f.TaskCreated(), leased("a"), leased("b")).then(failed("a"))
        story.then(done("b"), leased("c")).then(done("c"), f.TaskEnded("finished"))

        assert story.check() == []

    def test_a_task_that_has_not_ended_where_nothing_is_settled(self) -> None:
        assert Story(active=True).then(f.TaskCreated(), leased("a")).check(settled=False) == []

    def test_nothing_at_all(self) -> None:
        assert check_history([], []) == []


class TestChains:
    def test_a_gap(self) -> None:
        story = good()
        del story.commits[1]

        assert "gap" in story.kinds()

    def test_a_foreign_predecessor(self) -> None:
        assert "fork" in good().spoil(3, prev="c9").kinds()

    def test_an_id_used_twice(self) -> None:
        other = Story(task_id="u").then(f.TaskCreated())

        found = check_history([*good().commits, *other.commits], [], Evidence(settled=False))

        assert "commit_id_reused" in {violation.kind for violation in found}

    def test_an_acknowledged_commit_that_is_gone(self) -> None:
        assert "commit_lost" in good().kinds(acknowledged=[("t", 3, "c9")])
        assert "commit_lost" in good().kinds(acknowledged=[("t", 4, "c4")])

    def test_a_fact_that_cannot_be_read(self) -> None:
        assert "unreadable_history" in good().spoil(2, body='[["no_such_fact"]]').kinds()
        assert "unreadable_history" in good().spoil(2, body="[").kinds()

    def test_a_fact_about_a_node_that_does_not_exist(self) -> None:
        assert "unreadable_history" in Story().then(f.TaskCreated(), leased("z")).kinds()

    def test_commits_without_a_head(self) -> None:
        assert "task_unknown" in good().kinds(heads={}, accepted=[])

    def test_two_folds_that_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flowkit.testing import walk

        times = iter(range(1000))
        evolve = walk.evolve
        monkeypatch.setattr(walk, "evolve", lambda task, fact, at: evolve(task, fact, at + next(times)))

        assert "not_deterministic" in good().kinds()

    def test_a_fold_that_ends_elsewhere_than_the_facts_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flowkit.testing import walk

        evolve = walk.evolve
        skip = f.TaskEnded
        monkeypatch.setattr(walk, "evolve", lambda task, fact, at: isinstance(fact, skip) or evolve(task, fact, at))

        assert "fold_differs" in good().kinds()


class TestDeletions:
    def test_a_task_that_was_deleted_when_it_had_ended(self) -> None:
        late = request(7, applied=False)

        assert good().deleted().check(acknowledged=ACKNOWLEDGED, events=set(ACKNOWLEDGED), requests=[late]) == []

    def test_a_commit_behind_the_tombstone(self) -> None:
        assert good().deleted().then(f.TaskRestarted(1)).kinds() == {"commit_after_deletion"}

    def test_a_task_that_was_deleted_while_it_ran(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).deleted()

        assert story.kinds() == {"deleted_unended"}

    def test_a_deletion_that_was_never_finished(self) -> None:
        assert good().deleted().kinds(heads={"t": _head(good())}) == {"head_wrong"}

    def test_what_the_task_did_before_is_judged_as_ever(self) -> None:
        assert "applied_twice" in good().then(done("b")).deleted().kinds()
        assert "event_missed" in good().deleted().kinds(events=set(ACKNOWLEDGED[:2]))


class TestFacts:
    def test_a_result_of_a_stale_token(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a"), leased("a", 2)).then(done("a", 1))

        assert "stale_applied" in story.kinds(settled=False)

    def test_a_result_applied_twice(self) -> None:
        assert "applied_twice" in good().then(done("b")).kinds()

    def test_anything_after_the_end(self) -> None:
        assert "after_terminal" in good().then(f.TaskPaused()).kinds()

    def test_a_task_that_does_not_begin_with_its_creation(self) -> None:
        assert "not_created_first" in Story().then(leased("a")).kinds(settled=False)

    def test_two_leases_of_one_node(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(leased("a", 2))

        assert "two_leases" in story.kinds(settled=False)

    def test_a_lease_of_what_has_ended(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(done("a")).then(leased("a", 2))

        assert "bad_lease" in story.kinds(settled=False)

    def test_an_attempt_number_that_comes_again(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a")).then(leased("a", 1))

        assert "bad_lease" in story.kinds(settled=False)

    def test_a_lease_while_the_task_is_paused(self) -> None:
        story = Story().then(f.TaskCreated(), asked(1, "pause"), f.TaskPaused()).then(leased("a"))

        assert "bad_lease" in story.kinds(settled=False)

    def test_a_node_before_its_source(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a"), leased("b"))

        assert "too_early" in story.kinds(settled=False)

    def test_a_join_before_all_have_ended(self) -> None:
        story = Story(JOIN).then(f.TaskCreated(), leased("a"), leased("b")).then(done("a"), leased("c"))

        assert "too_early" in story.kinds(settled=False)

    def test_inputs_that_are_not_the_applied_results(self) -> None:
        story = good()
        story.ledger[1].inputs = 2

        assert story.kinds() == {"wrong_inputs"}

    def test_an_output_that_the_inputs_do_not_give(self) -> None:
        assert good().kinds(fits=lambda task_id, node, inputs, output: node != "b") == {"wrong_value"}

    def test_a_result_that_is_not_what_the_attempt_gave(self) -> None:
        story = good()
        story.ledger[1].output = 2

        assert story.kinds() == {"wrong_result"}

    def test_a_retry_beyond_the_budget(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(done("a"), leased("b")).then(failed("b", retry_at=4.0))
        story.then(f.RetryDue("b"), leased("b", 2), at=4.0).then(failed("b", 2, retry_at=6.0))

        assert "over_budget" in story.kinds(settled=False)

    def test_a_failure_of_what_cannot_fail(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(failed("a"))

        assert "wrong_failure" in story.kinds(settled=False, may_fail=lambda task_id, node: False)

    def test_a_timer_before_its_time(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(done("a"), leased("b")).then(failed("b", retry_at=20.0))

        assert "timer_early" in story.then(f.RetryDue("b"), at=10.0).kinds(settled=False)

    def test_a_timeout_of_the_task_before_its_time(self) -> None:
        late = "the task did not end within 30 s"
        error = {"code": "timeout", "message": late}
        story = Story({**CHAIN, "timeout_sec": 30}).then(f.TaskCreated(), leased("a"))
        story.then(f.TaskCancelling(late, "failed", 99.0, error), at=20.0)

        assert "timer_early" in story.kinds(settled=False)
        assert "timer_early" not in story.spoil(2, at=31.0).kinds(settled=False)

    def test_a_restart_has_all_its_time_anew(self) -> None:
        late = "the task did not end within 30 s"
        story = Story({**CHAIN, "timeout_sec": 30}).then(f.TaskCreated()).then(asked(1, "cancel"), cancelling())
        story.then(f.TaskEnded("cancelled")).then(asked(2, "restart"), f.TaskRestarted(1), at=20.0)
        story.then(f.TaskCancelling(late, "failed", 99.0, {"code": "timeout", "message": late}), at=31.0)

        assert "timer_early" in story.kinds(settled=False)

    def test_a_timer_that_means_nothing_any_more(self) -> None:
        story = Story().then(f.TaskCreated()).then(f.RetryDue("a"))

        assert "timer_stale" in story.kinds(settled=False)

    def test_a_node_that_ends_twice(self) -> None:
        story = Story().then(f.TaskCreated()).then(f.NodeCancelled("a", "x")).then(f.NodeCancelled("a", "x"))

        assert "ended_twice" in story.kinds(settled=False)

    def test_an_end_before_all_nodes_have_ended(self) -> None:
        assert "ended_early" in Story().then(f.TaskCreated(), leased("a")).then(f.TaskEnded("finished")).kinds()

    def test_a_good_end_in_spite_of_a_failure(self) -> None:
        story = (
            Story()
            .then(f.TaskCreated(), leased("a"))
            .then(failed("a"), f.NodeSkipped("b", "upstream_failed", True, "a"), f.TaskEnded("finished"))
        )

        assert "wrong_end" in story.kinds()

    def test_a_bad_end_without_a_failure(self) -> None:
        story = good().spoil(3, body=good().commits[2].body.replace("finished", "failed"))

        assert "wrong_end" in story.kinds()

    def test_a_cancellation_that_nobody_asked_for(self) -> None:
        story = Story().then(f.TaskCreated()).then(cancelling(), f.TaskEnded("cancelled"))

        assert {"cancel_wrong", "wrong_end"} <= story.kinds()

    def test_a_restart_of_what_runs(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(asked(1, "restart"), f.TaskRestarted(1))

        assert "restart_of_running" in story.kinds(settled=False)

    def test_a_generation_left_out(self) -> None:
        story = good().then(asked(1, "restart"), f.TaskRestarted(2))

        assert "generation_wrong" in story.kinds(settled=False)


class TestStarts:
    def test_a_start_without_a_lease(self) -> None:
        assert good().run("b", 2, at=3.5, until=4.0).kinds() == {"start_without_commit"}

    def test_a_start_under_another_token_or_on_another_worker(self) -> None:
        for change in ({"token": "x"}, {"worker": "W9"}):
            story = good()
            story.ledger[0] = replace(story.ledger[0], **change)

            assert story.kinds() == {"start_without_commit"}

    def test_a_token_started_twice(self) -> None:
        assert good().run("b", at=3.5, until=4.0).kinds() == {"token_ran_twice"}

    def test_an_attempt_that_was_begun_and_lost_without_a_fault(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a")).run("a", at=1.1, until=1.5)

        assert "rerun_of_running" in story.kinds(settled=False, strict=True)
        assert story.kinds(settled=False) == set()

    def test_an_unjust_expiry(self) -> None:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a"))

        assert story.kinds(settled=False, unjust={("t", "a", 1): "wasted_result"}) == {"wasted_result"}


class TestOverlaps:
    @pytest.fixture
    def story(self) -> Story:
        story = Story().then(f.TaskCreated(), leased("a")).then(lost("a"), leased("a", 2, "W1"))
        return story.run("a", at=1.5, until=20.0, inputs=UNKNOWN).run("a", 2, at=15.0, until=16.0, worker="W1")

    def test_two_runs_at_once(self, story: Story) -> None:
        assert story.kinds(settled=False) == {"overlap"}

    def test_the_first_was_frozen(self, story: Story) -> None:
        for since, until in ((5.0, 30.0), (5.0, 14.5)):
            assert story.kinds(settled=False, frozen=[Frozen("W0", since, until)]) == set()

    def test_another_was_frozen_or_long_before(self, story: Story) -> None:
        for frozen in (Frozen("W1", 5.0, 30.0), Frozen("W0", 5.0, 10.0), Frozen("W0", 17.0, 30.0)):
            assert story.kinds(settled=False, frozen=[frozen]) == {"overlap"}

    def test_kafka_had_lost_everything(self, story: Story) -> None:
        assert story.kinds(settled=False, losses=[1.0]) == set()
        assert story.kinds(settled=False, losses=[16.0]) == {"overlap"}

    def test_one_after_the_other(self, story: Story) -> None:
        story.ledger[0].ended_at = 15.0

        assert story.kinds(settled=False) == set()

    def test_nobody_knows_when_the_first_ended(self, story: Story) -> None:
        story.ledger[0].ended_at = None

        assert story.kinds(settled=False) == set()


class TestPromises:
    def test_an_accepted_task_that_is_gone(self) -> None:
        assert "accepted_task_lost" in good().kinds(accepted=["t", "u"])

    def test_a_task_that_never_ended(self) -> None:
        assert Story().then(f.TaskCreated()).kinds() == {"not_ended"}
        assert Story().kinds() == {"not_ended"}

    def test_a_head_that_stays_open(self) -> None:
        story = good()
        story.active = True

        assert story.kinds() == {"head_open"}

    def test_a_head_that_says_something_else(self) -> None:
        heads = {"t": replace(_head(good()), seq=2)}

        assert good().kinds(heads=heads) == {"head_wrong"}

    def test_a_request_applied_twice(self) -> None:
        again = f.RequestApplied(1, "r1", "pause", False)

        assert "request_twice" in good().then(again).then(again).kinds()

    def test_requests_out_of_order(self) -> None:
        story = good().then(asked(2, "pause", accepted=False), asked(1, "pause", accepted=False))

        assert "request_twice" in story.kinds()
        assert "request_order" in story.kinds(asked=[Asked("t", "r2", "pause"), Asked("t", "r1", "pause")])

    def test_a_request_that_was_never_applied(self) -> None:
        assert good().kinds(asked=[Asked("t", "r1", "pause")]) == {"request_lost"}
        assert good().kinds(requests=[request(1)]) == {"request_lost"}

    def test_a_request_that_was_never_marked(self) -> None:
        story = good().then(asked(1, "pause", accepted=False))

        assert story.kinds(requests=[request(1, applied=False)]) == {"request_unmarked"}
        assert story.kinds(requests=[request(1)]) == set()

    def test_an_event_of_no_commit(self) -> None:
        assert good().kinds(events={*ACKNOWLEDGED, ("t", 3, "c9")}) == {"phantom_event"}

    def test_a_commit_that_nobody_saw(self) -> None:
        assert good().kinds(events=set(ACKNOWLEDGED[:2])) == {"event_missed"}


def _head(story: Story) -> object:
    from flowkit.ports import Head

    return Head("t", 0, "g", status="finished", seq=len(story.commits), published_seq=3, active=False)


def test_the_graph_of_the_stories_is_a_chain() -> None:
    assert [node["node_id"] for node in CHAIN["nodes"]] == ["a", "b"]


def test_the_graphs_that_a_task_could_go_on_with_are_no_part_of_what_is_compared() -> None:
    """Every task of a run knows those of all others: comparing them would cost the square of the run."""
    graph = parse_graph(JOIN)
    one, other = (Task(task_id="t", graph=graph, params={}) for _ in range(2))
    other.editions = {f"ref{n}": graph for n in range(3)}
    assert state_of(one) == state_of(other)
    assert essence_of(one) == essence_of(other)
