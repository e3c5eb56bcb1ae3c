"""A task's trace, as its commits tell it."""

from __future__ import annotations

import pytest

from flowkit.core import facts as f
from flowkit.core.payload import Artifact, Payload
from flowkit.trace.task_trace import read_ended
from tests.core.builders import graph, node
from tests.trace.histories import ACCEPTED, failed, finish, leased, recorded, succeeded, trace_of, values_of

CHAIN = graph(node("a"), node("b", "a"), name="chain")
HISTORY = recorded(
    CHAIN,
    (0.5, [f.TaskCreated()]),
    (2.0, [leased("a")]),
    (2.6, [f.AttemptStarted("a", 1, "k-a-1")]),
    (5.0, [failed("a", 2.5, retry_at=8.0)]),
    (8.0, [f.RetryDue("a"), leased("a", 2, "w2")]),
    (9.0, [succeeded("a", 0.75, {"x": 1}, 2), leased("b")]),
    (12.0, [succeeded("b", 2.0, "done"), f.TaskEnded("finished")]),
    params={"p": 7},
    flow="etl@3",
    tenant="acme",
)


def test_each_attempt_has_its_times_its_worker_and_its_end() -> None:
    trace = trace_of(HISTORY)

    first, second, third = trace.attempts
    assert (first.record.outcome, first.record.code, first.record.worker) == ("failed", "boom", "w1")
    assert first.record.waited_sec == 1.5
    assert first.record.queued_sec == 0.5
    assert (first.started_at, first.retry_at) == (ACCEPTED + 2.6, ACCEPTED + 8.0)
    assert first.error == {"code": "boom", "message": "no"}
    assert (second.attempt, second.record.worker, second.record.waited_sec) == (2, "w2", 0.0)
    assert (third.node, third.record.role, third.record.run_sec, third.record.seq) == ("b", "work", 2.0, 7)
    assert {one.record.flow for one in trace.attempts} == {"etl"}
    assert {one.record.tenant for one in trace.attempts} == {"acme"}
    assert (trace.status, trace.seq, trace.begun_at, trace.ended_at) == ("finished", 7, ACCEPTED + 0.5, ACCEPTED + 12.0)
    assert trace.path == ["a", "b"]
    assert trace.nodes["b"].because == "a"
    assert [one.attempt for one in trace.nodes["a"].attempts] == [1, 2]


def test_inputs_and_outputs_are_those_of_the_attempt() -> None:
    assert values_of(HISTORY, "b") == {("b", 1): values_of(HISTORY, "b")["b", 1]}
    given = values_of(HISTORY, "b")["b", 1]
    assert (given.inputs, given.output, given.note) == ({"x": 1}, "done", "")
    assert values_of(HISTORY, "a", 2)["a", 2].inputs == {"p": 7}
    assert list(values_of(HISTORY, "a")) == [("a", 1), ("a", 2)]
    assert values_of(HISTORY, "nobody") == {}


def test_a_large_value_stands_as_its_reference() -> None:
    big = Payload(None, Artifact("sha256:1", 70_000, "json"))
    history = recorded(
        CHAIN,
        (0.0, [f.TaskCreated(), leased("a")]),
        (1.0, [f.AttemptSucceeded("a", 1, "k-a-1", big), leased("b")]),
    )

    assert values_of(history, "b")["b", 1].inputs == {"artifact": "sha256:1", "size": 70_000}
    assert values_of(history, "a")["a", 1].output == {"artifact": "sha256:1", "size": 70_000}


def test_what_runs_still_is_there_and_has_not_ended() -> None:
    history = recorded(CHAIN, (0.0, [f.TaskCreated(), leased("a")]), (1.0, [f.AttemptStarted("a", 1, "k-a-1")]))
    trace = trace_of(history)

    (only,) = trace.attempts
    assert (only.ended, only.record.outcome, only.started_at) == (False, "running", ACCEPTED + 1)
    assert finish(read_ended(history)) == []
    assert trace.nodes["b"].started_at is None


@pytest.mark.parametrize(
    ("fact", "outcome", "code"),
    [
        (f.LeaseLost("a", 1, "k-a-1", "expired", ACCEPTED + 3, True), "lost", "expired"),
        (f.NodeCancelled("a", "enough"), "cancelled", "enough"),
        (f.NodeFailed("a", {"code": "timeout", "message": "late"}), "failed", "timeout"),
    ],
)
def test_an_attempt_may_end_otherwise(fact: f.Fact, outcome: str, code: str) -> None:
    trace = trace_of(recorded(CHAIN, (0.0, [f.TaskCreated(), leased("a")]), (2.0, [fact])))

    (only,) = trace.attempts
    assert (only.ended, only.record.outcome, only.record.code, only.record.ended_at) == (
        True,
        outcome,
        code,
        ACCEPTED + 2,
    )


def test_a_restart_begins_a_generation_and_the_attempts_of_the_one_before_stay() -> None:
    history = recorded(
        CHAIN,
        (0.0, [f.TaskCreated(), leased("a")]),
        (1.0, [succeeded("a", 1.0), leased("b")]),
        (2.0, [failed("b", 1.0), f.TaskEnded("failed")]),
        (10.0, [f.TaskRestarted(1, ("b",)), leased("b", 2)]),
        (11.0, [succeeded("b", 0.5, attempt=2), f.TaskEnded("finished")]),
    )
    trace = trace_of(history)

    assert [(one.node, one.attempt, one.record.generation) for one in trace.attempts] == [
        ("a", 1, 0), ("b", 1, 0), ("b", 2, 1),
    ]  # fmt: skip
    assert [one.attempt for one in trace.nodes["b"].attempts] == [2]
    assert [one.node for one in finish(read_ended(history, after=3))] == ["b"]
    assert (trace.generation, trace.status) == (1, "finished")


def test_items_are_nodes_of_their_own() -> None:
    raw = graph(node("each", foreach=[10, 20], inputs={"n": {"$item": ""}}))
    history = recorded(
        raw,
        (0.0, [f.TaskCreated(), f.NodeExpanded("each", 2), leased("each[0]"), leased("each[1]")]),
        (1.0, [succeeded("each[1]", 0.5)]),
        (3.0, [succeeded("each[0]", 2.5), f.NodeGathered("each"), f.TaskEnded("finished")]),
    )
    trace = trace_of(history)

    assert {one.record.base for one in trace.attempts} == {"each"}
    assert trace.nodes["each[1]"].because == "each"
    assert values_of(history, "each[1]")["each[1]", 1].inputs == {"n": 20}


def test_a_history_of_many_facts_lets_others_in() -> None:
    from flowkit.trace.task_trace import SLICE, read_trace

    raw = graph(node("each", foreach={"$param": "items"}))
    items = list(range(2 * SLICE))
    begin = [f.TaskCreated(), f.NodeExpanded("each", len(items)), *(leased(f"each[{n}]") for n in items)]
    history = recorded(raw, (0.0, begin), params={"items": items})

    assert sum(1 for _ in read_trace(history)) == 2


@pytest.mark.parametrize(
    ("fact", "outcome"),
    [
        (f.AttemptSucceeded("a", 1, "k-a-1", Payload(1), usage={"cpu_sec": 0.5}), "succeeded"),
        (f.AttemptFailed("a", 1, "k-a-1", {"code": "oom"}, None, usage={"cpu_sec": 0.5}), "failed"),
        (f.LeaseLost("a", 1, "k-a-1", "released", 2.0, False, usage={"cpu_sec": 0.5}), "lost"),
        (f.NodeCancelled("a", "enough", usage={"cpu_sec": 0.5}), "cancelled"),
    ],
)
def test_what_its_program_used_is_with_the_attempt_however_it_ended(fact: f.Fact, outcome: str) -> None:
    trace = trace_of(recorded(graph(node("a")), (0.0, [f.TaskCreated(), leased("a")]), (1.0, [fact])))

    (attempt,) = trace.attempts
    assert (attempt.record.outcome, attempt.record.usage, attempt.record.cpu_sec) == (outcome, {"cpu_sec": 0.5}, 0.5)
    assert attempt.record.memory_bytes is None
