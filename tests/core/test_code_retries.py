"""Out of memory, code is tried again with more; what programs used is folded with their attempts."""

from __future__ import annotations

from typing import Any

from flowkit.core import reports as r
from flowkit.core.decide import decide
from flowkit.core.dialect import parse_graph
from flowkit.core.effects import Dispatch
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
from flowkit.core.payload import Payload
from flowkit.wire.snapshot import decode_snapshot, encode_snapshot

USAGE = {"verdict": "oom", "level": "L3", "wall_sec": 0.5, "cpu_sec": 0.1, "peak_memory_bytes": 64}


def task_of(**said: Any) -> Task:
    node = {"node_id": "c", "type": "code", "code": {"source": "x"}, "sandbox": {"memory_mb": 64}, **said}
    task = Task(task_id="t", graph=parse_graph({"nodes": [node]}), params={})
    decide(task, [r.Accepted()], 0.0)
    return task


def place(task: Task, number: int) -> dict[str, Any]:
    decision = decide(task, [r.Placed("c", f"token-{number}", "w", "i", 9.0)], float(number))
    (dispatch,) = [effect for effect in decision.effects if isinstance(effect, Dispatch)]
    assert dispatch.code is not None
    return dispatch.code


def out_of_memory(task: Task, number: int) -> None:
    failed = r.Failed("c", number, f"token-{number}", {"code": "oom", "message": "more"}, run_sec=0.5, usage=USAGE)
    decide(task, [failed], number + 0.5)


def test_each_attempt_has_more_memory_until_that_is_all_and_then_it_fails_for_good() -> None:
    task = task_of(on_oom={"memory": "*2", "max_mb": 200}, retry_policy={"max": 1})
    given = []

    for number in (1, 2, 3):
        given.append(place(task, number)["limits"]["memory_mb"])
        out_of_memory(task, number)

    assert given == [64, 128, 200]
    assert task.runs["c"].state is NodeState.FAILED
    assert task.runs["c"].usage == USAGE


def test_other_failures_between_them_have_the_policys_budget() -> None:
    task = task_of(on_oom={"max_mb": 256}, retry_policy={"max": 2, "backoff_sec": 0})
    place(task, 1)
    out_of_memory(task, 1)
    place(task, 2)
    decide(task, [r.Failed("c", 2, "token-2", {"code": "OSError", "message": "no"})], 2.5)

    assert place(task, 3)["limits"]["memory_mb"] == 128


def test_without_a_word_the_policy_decides_and_the_memory_stays() -> None:
    task = task_of(retry_policy={"max": 2, "backoff_sec": 0})
    place(task, 1)
    out_of_memory(task, 1)

    assert place(task, 2)["limits"]["memory_mb"] == 64
    out_of_memory(task, 2)
    assert task.runs["c"].state is NodeState.FAILED


def test_the_usage_of_an_end_is_kept_and_survives_a_snapshot() -> None:
    task = task_of()
    place(task, 1)
    usage = {"verdict": "finished", "level": "L1", "wall_sec": 0.1, "cpu_sec": 0.1}
    decide(task, [r.Succeeded("c", 1, "token-1", Payload(1), None, 0.1, usage)], 2.0)

    again = Task(task_id="t", graph=task.graph, params={})
    decode_snapshot(encode_snapshot(task, 3, "t:3"), again)

    assert task.runs["c"].usage == usage
    assert again.runs["c"].usage == usage


def test_what_was_given_back_or_cancelled_has_used_something_too() -> None:
    task = task_of()
    place(task, 1)
    decide(task, [r.Released("c", 1, "token-1", "drain", USAGE)], 1.5)
    assert task.runs["c"].usage == USAGE

    place(task, 2)
    decide(task, [r.Requested(1, "id", "cancel", {"reason": "enough"})], 2.5)
    cancelled = {**USAGE, "verdict": "cancelled"}
    decide(task, [r.Released("c", 2, "token-2", "enough", cancelled)], 3.0)

    assert task.runs["c"].state is NodeState.CANCELLED
    assert task.runs["c"].usage == cancelled
