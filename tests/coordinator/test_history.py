"""Tasks read back from the store: the fold of their commits, or the reason why there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import (
    BEGINNING,
    SLICE_WEIGHT,
    History,
    fold,
    fold_in_slices,
    new_task,
    unbroken,
)
from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.payload import Payload
from flowkit.errors import Corrupt, StoreUnavailable, UnknownFact
from flowkit.ports import Commit, Head, Outcome
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from tests.core.builders import START, differences, graph, node

RAW = graph(node("a"), node("b", "a"))
DATA = dumps(RAW)
REF = hashlib.sha256(DATA).hexdigest()
OUTPUT = Payload({"x": 2**70, "\x00": "\ud800"})
FACTS: list[list[f.Fact]] = [
    [f.TaskCreated(), f.AttemptLeased("a", 1, "k1", "w", "i", 1.0)],
    [f.AttemptSucceeded("a", 1, "k1", Payload({"x": 2**70, "\x00": "\ud800"})), f.AttemptLeased("b", 1, "k2", "w",
    "i", 1.0)],
    [f.AttemptSucceeded("b", 1, "k2", Payload(None)), f.TaskEnded("finished")],
]  # fmt: skip


def commits_of(task_id: str, facts: Sequence[Sequence[f.Fact]] = FACTS) -> list[Commit]:
    found: list[Commit] = []
    for seq, part in enumerate(facts, 1):
        body = body_of(encode_facts(part))
        found.append(Commit(task_id, seq, f"c.{seq}", f"c.{seq - 1}" if seq > 1 else "", START + seq, "c", body))
    return found


async def stored(*commits: Commit, heads: Sequence[Head] = ()) -> tuple[History, MemoryStore]:
    store = MemoryStore()
    await store.put_blob(REF, DATA, kind="graph")
    ids = dict.fromkeys(commit.task_id for commit in commits)
    await store.insert_heads(list(heads) or [Head(task_id, 0, REF, '{"p":1}', "acme") for task_id in ids])
    assert set(await store.insert_commits(commits)) <= {Outcome.OK}
    return History(store, Graphs(store)), store


# Loading.


async def test_a_task_is_the_fold_of_its_commits() -> None:
    history, _ = await stored(*commits_of("t"))

    past = (await history.load(["t"]))["t"]

    assert past.task is not None
    assert (past.error, past.newer, len(past.commits)) == ("", False, 3)
    assert (past.task.status, past.task.tenant, past.task.params) == ("finished", "acme", {"p": 1})
    assert past.task.runs["a"].output == OUTPUT
    assert past.task.runs["a"].ended_at == START + 2


async def test_a_store_that_does_not_give_the_graph_of_a_restart_is_no_fault_of_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edited = dumps(graph(node("a"), node("c", "a")))
    ref = hashlib.sha256(edited).hexdigest()
    restart: list[f.Fact] = [f.RequestApplied(1, "r", "restart", True), f.TaskRestarted(1, graph=ref)]
    history, store = await stored(*commits_of("t", [*FACTS, restart]))
    await store.put_blob(ref, edited, kind="graph")
    really = store.get_blob

    async def away(name: str, *, kind: str) -> bytes:
        if name == ref:
            raise StoreUnavailable("no answer")
        return await really(name, kind=kind)

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(store, "get_blob", away)
        await history.load(["t"])

    past = (await history.load(["t"]))["t"]
    assert past.error == ""
    assert past.task is not None
    assert set(past.task.graph.nodes) == {"a", "c"}


async def test_many_tasks_are_loaded_at_once_and_unknown_ones_left_out() -> None:
    history, _ = await stored(*commits_of("t"), *commits_of("u", FACTS[:1]))

    pasts = await history.load(["u", "t", "nobody"])

    assert {task_id: past.task and str(past.task.status) for task_id, past in pasts.items()} == {
        "t": "finished",
        "u": "running",
    }
    assert await history.load([]) == {}


async def test_a_task_without_commits_is_queued() -> None:
    history, _ = await stored(heads=[Head("t", 0, REF)])

    past = (await history.load(["t"]))["t"]

    assert past.task is not None
    assert (past.task.status, past.commits) == ("queued", [])


async def test_two_folds_of_one_history_are_the_same_state() -> None:
    history, _ = await stored(*commits_of("t", FACTS[:2]))

    one, other = [(await history.load(["t"]))["t"].task for _ in range(2)]

    assert one is not None
    assert other is not None
    assert differences(one, other) == []


async def test_commits_behind_a_gap_are_not_folded() -> None:
    first, _, third = commits_of("t")
    history, _ = await stored(first, third)

    past = (await history.load(["t"]))["t"]

    assert [commit.seq for commit in past.commits] == [1]
    assert past.task is not None
    assert past.task.status == "running"


async def test_the_commits_since_a_seq_follow_it_without_a_gap() -> None:
    first, second, third = commits_of("t")
    history, store = await stored(first, third)
    assert await history.since("t", 1) == []

    await store.insert_commits([second])

    assert await history.since("t", 1) == [second, third]


def test_unbroken_ends_at_the_first_gap() -> None:
    first, second, third = commits_of("t")

    assert unbroken([]) == []
    assert unbroken([first, third]) == [first]
    assert unbroken([second, third]) == []
    assert unbroken([second, third], after=1) == [second, third]


# Histories that cannot be folded.


def refused(raw: dict[str, Any]) -> bytes:
    return dumps(raw)


async def load_with(spoilt: Commit, *, place: int = 1) -> Any:
    commits = commits_of("t")
    commits[place] = spoilt
    history, _ = await stored(*commits, *commits_of("good"))
    pasts = await history.load(["t", "good"])
    assert pasts["good"].task is not None  # the others are not held up
    return pasts["t"]


async def test_a_foreign_predecessor_is_found_out() -> None:
    past = await load_with(replace(commits_of("t")[1], prev="another"))

    assert past.task is None
    assert "does not follow" in past.error


async def test_a_fact_of_a_newer_version_leaves_the_task_to_that_version() -> None:
    past = await load_with(replace(commits_of("t")[1], body='[["married","a"]]'))

    assert (past.task, past.newer) == (None, True)
    assert "unknown fact 'married'" in past.error


@pytest.mark.parametrize("body", ["", "null", "[5]", '[["succeeded","a"]]', '[["retry_due",5]]', "[" * 100_000])
async def test_a_body_that_cannot_be_read_is_said_to_be_so(body: str) -> None:
    past = await load_with(replace(commits_of("t")[1], body=body))

    assert (past.task, past.newer) == (None, False)
    assert past.error


async def test_a_fact_about_a_node_that_is_not_there_is_said_to_be_so() -> None:
    past = await load_with(replace(commits_of("t")[1], body='[["retry_due","zz"]]'))

    assert past.task is None
    assert "zz" in past.error


@pytest.mark.parametrize("params", ["", "{", "NaN"])
async def test_params_that_cannot_be_read_are_said_to_be_so(params: str) -> None:
    history, _ = await stored(*commits_of("good"), heads=[Head("t", 0, REF, params), Head("good", 0, REF)])

    pasts = await history.load(["t", "good"])

    assert pasts["t"].task is None
    assert pasts["good"].task is not None


async def test_a_graph_that_is_not_there_is_said_to_be_so() -> None:
    history, _ = await stored(*commits_of("good"), heads=[Head("t", 0, "missing"), Head("good", 0, REF)])

    pasts = await history.load(["t", "good"])

    assert pasts["t"].task is None
    assert "missing" in pasts["t"].error
    assert pasts["good"].task is not None


@pytest.mark.parametrize("data", [b"not json", b"\xff", *(refused(raw) for raw in ({}, RAW | {"from_the_future": 1}))])
async def test_a_graph_that_cannot_be_read_holds_up_nobody_else(data: bytes) -> None:
    history, store = await stored(*commits_of("good"), heads=[Head("t", 0, "odd"), Head("good", 0, REF)])
    await store.put_blob("odd", data, kind="graph")

    pasts = await history.load(["t", "good"])

    assert pasts["t"].task is None
    assert pasts["t"].error
    assert pasts["good"].task is not None


# The fold itself.


def test_folding_goes_on_only_from_the_beginning() -> None:
    commits = commits_of("t")
    task = new_task(Head("t", 0, REF), parse_graph(RAW))

    with pytest.raises(Corrupt, match="does not follow"):
        fold(task, commits[1:])


def test_folding_a_newer_fact_is_refused() -> None:
    task = new_task(Head("t", 0, REF), parse_graph(RAW))

    with pytest.raises(UnknownFact):
        fold(task, [replace(commits_of("t")[0], body='[["married"]]')])


def test_a_fact_that_reaches_many_nodes_fills_a_slice_by_itself() -> None:
    wide = parse_graph(graph(node("a"), node("b"), *(node(f"c{i}", "a") for i in range(SLICE_WEIGHT))))
    task = new_task(Head("t", 0, REF), wide)
    ended = [f.AttemptSucceeded(name, 1, "k", Payload(1)) for name in "ab"]

    slices = 0
    for _ in fold_in_slices(task, commits_of("t", [[f.TaskCreated()], ended]), BEGINNING):
        slices += 1
        assert (task.runs["a"].state, task.runs["b"].state) == ("finished", "ready")

    assert slices == 1
    assert task.runs["b"].state == "finished"


def test_a_new_task_takes_what_its_head_says() -> None:
    task = new_task(Head("t", 0, REF, '{"p":[1]}', "acme", timeout_sec=5.0), parse_graph(RAW))

    assert (task.task_id, task.tenant, task.params, task.timeout_sec) == ("t", "acme", {"p": [1]}, 5.0)
    assert task.status == "queued"
