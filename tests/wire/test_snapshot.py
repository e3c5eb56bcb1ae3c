"""The state of a task through bytes and back. That it is so after every decision, tests/core/test_machine.py sees."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import Corrupt
from flowkit.wire import snapshot
from flowkit.wire.snapshot import LINE_BYTES, LINE_ROWS, decode_snapshot, encode_snapshot, read_snapshot, write_snapshot
from tests.core.builders import Play, differences, graph, new_task, node, replayed, through_snapshot

SMALL = graph(node("a"), node("b", "a"), node("c", "a"))
OUTPUTS = [
    Payload(None), Payload({"x": 2**70, "\x00": "\ud800", "line": "a\nb\r\u2028"}),
    Payload([[], {}, 1.5, -(2**64), ""]),
    Payload(None, Artifact("r" * 64, 2**40, "json", ("a", 3, "\n"))), Payload("end 1\n"),
]  # fmt: skip


def succeeded(name: str, output: Payload) -> list[f.Fact]:
    return [f.AttemptLeased(name, 1, f"k-{name}", "w", "i", 1.0), f.AttemptSucceeded(name, 1, f"k-{name}", output)]


def state_of(raw: dict[str, Any], *recorded: f.Fact) -> Task:
    return replayed(new_task(raw), [(1000.0 + place, fact) for place, fact in enumerate(recorded)])


def some() -> Task:
    return state_of(SMALL, f.TaskCreated(), *succeeded("a", Payload({"n": 1})))


def empty() -> Task:
    return new_task(some().graph)


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_of_any_form_comes_back(output: Payload) -> None:
    task = state_of(SMALL, f.TaskCreated(), *succeeded("a", output))

    copy = through_snapshot(task)

    assert differences(task, copy) == []
    assert copy.runs["a"].output == output
    assert copy.runs["b"].output is None


def test_a_task_before_its_first_fact_comes_back() -> None:
    task = new_task(SMALL)

    assert differences(task, through_snapshot(task)) == []


def test_a_lease_and_what_a_bad_day_leaves_come_back() -> None:
    task = state_of(
        graph(node("a"), node("b"), node("c", "a"), timeout_sec=50.0), f.TaskCreated(),
        f.AttemptLeased("a", 1, "k1", "w", "i", 5.25), f.AttemptStarted("a", 1, "k1"),
        f.NodeCancelling("a", "why not", 2000.0, loser=True),
        f.AttemptLeased("b", 1, "k2", "w", "i", 5.5),
        f.AttemptFailed("b", 1, "k2", {"code": "Oops", "message": "\ud800"}, 3000.0, "Oops", 0.5),
        f.RequestApplied(3, "r", "resume", False, "it is not paused"), f.TaskPaused("lunch"),
    )  # fmt: skip

    copy = through_snapshot(task)

    assert differences(task, copy) == []
    assert copy.next_wake() == task.next_wake()
    assert copy.refusals == {3: "it is not paused"}
    lease = copy.runs["a"].lease
    assert lease is not None
    assert (lease.started, lease.cancelling) == (True, True)


def test_a_task_goes_on_from_its_snapshot() -> None:
    play = Play(SMALL)
    for name in "abc":
        play.place(name)
        play.task = through_snapshot(play.task)
        play.succeed(name)
        play.task = through_snapshot(play.task)

    assert play.task.status == "finished"


def test_nodes_that_nobody_looked_at_are_not_written() -> None:
    task = new_task(graph(*(node(f"n{i}") for i in range(1000))))
    _ = task.runs["n5"]

    data = encode_snapshot(task, 0, "")

    assert b'"n5"' in data
    assert b'"n6"' not in data


def test_lines_are_short_whatever_the_task_is_like() -> None:
    wide = graph(*(node(f"n{i}", **{"timeouts": {"total_sec": 9}}) for i in range(3 * LINE_ROWS)))
    task = state_of(wide, f.TaskCreated())
    lines = list(write_snapshot(task, 1, "c.1"))

    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert [line.split()[0] for line in lines] == [b"task", *[b"runs"] * 3, *[b"ready"] * 3, *[b"timers"] * 3, b"end"]

    for name in ("n1", "n2", "n3"):
        for fact in succeeded(name, Payload("x" * LINE_BYTES)):
            evolve(task, fact, 1001.0)
    assert max(map(len, write_snapshot(task, 1, "c.1"))) < 2 * LINE_BYTES


def test_reading_lets_others_in_after_every_line() -> None:
    lines = list(write_snapshot(some(), 2, "c.2"))

    assert len(list(read_snapshot(b"".join(lines), empty()))) == len(lines) - 1


# What must not be taken for a snapshot.


@pytest.mark.parametrize("missing", range(7))
def test_what_is_not_whole_is_refused(missing: int) -> None:
    lines = list(write_snapshot(some(), 2, "c.2"))
    assert len(lines) > 3

    with pytest.raises(Corrupt):
        decode_snapshot(b"".join(lines[: missing % len(lines)]), empty())
    with pytest.raises(Corrupt):
        decode_snapshot(b"".join(line for place, line in enumerate(lines) if place != missing % len(lines)), empty())


@pytest.mark.parametrize("tail", [b"x", b"end 1\n", b"\n"])
def test_what_goes_on_behind_its_end_is_refused(tail: bytes) -> None:
    with pytest.raises(Corrupt, match="not whole"):
        decode_snapshot(encode_snapshot(some(), 2, "c.2") + tail, empty())


def test_another_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_snapshot(some(), 2, "c.2")
    monkeypatch.setattr(snapshot, "MARK", "99.00000000")

    with pytest.raises(Corrupt, match=r"99\.00000000"):
        decode_snapshot(data, empty())


def test_the_mark_tells_of_every_fact_and_field(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = snapshot._mark()
    assert mark == snapshot.MARK

    monkeypatch.setattr(snapshot, "FORM", 99)
    assert snapshot._mark() != mark
    monkeypatch.undo()
    monkeypatch.setitem(f.TAGS, "from_the_future", f.TaskResumed)
    assert snapshot._mark() != mark


def test_another_tasks_is_refused() -> None:
    other = Task(task_id="other", graph=some().graph, params={})

    with pytest.raises(Corrupt, match="of task t"):
        decode_snapshot(encode_snapshot(some(), 2, "c.2"), other)


@pytest.mark.parametrize(
    "line",
    [
        b'leased ["z"]',
        b'runs [["z"]]',
        b'ready [["work","z"]]',
        b"runs 5",
        b"timers [[1]]",
        b"odd []",
        b"runs [",
        b"\xff []",
    ],
)
def test_a_line_that_makes_no_sense_is_refused(line: bytes) -> None:
    first, *_ = write_snapshot(some(), 2, "c.2")

    with pytest.raises(Corrupt):
        decode_snapshot(first + line + b"\nend 2\n", empty())


def test_a_node_with_a_field_of_the_future_is_refused() -> None:
    data = encode_snapshot(state_of(SMALL, f.TaskCreated(), f.NodeFailed("a", {"code": "x"})), 2, "c.2")
    assert b",null,null]" in data

    with pytest.raises(Corrupt):
        decode_snapshot(data.replace(b",null,null]", b",null,null,1]", 1), empty())
