"""Where a task's time went: waterfall, critical path, slowest nodes, bottlenecks, and a comparison."""

from __future__ import annotations

import pytest

from flowkit.core import facts as f
from flowkit.trace.analysis import bottlenecks, critical_path, slowest, waterfall
from flowkit.trace.comparison import compare
from flowkit.trace.task_trace import Recorded
from tests.core.builders import graph, node
from tests.trace.histories import failed, leased, recorded, succeeded, trace_of

DIAMOND = graph(node("start"), node("fast", "start"), node("slow", "start"), node("last", "fast", "slow"))


def diamond(slow: float = 6.0, task_id: str = "t", **params: object) -> Recorded:
    end = 2.0 + slow + 1.0
    return recorded(
        DIAMOND,
        (0.0, [f.TaskCreated()]),
        (1.0, [leased("start")]),
        (2.0, [succeeded("start", 0.75), leased("fast"), leased("slow")]),
        (3.0, [succeeded("fast", 1.0)]),
        (2.0 + slow, [succeeded("slow", slow - 0.5)]),
        (2.5 + slow, [leased("last")]),
        (end, [succeeded("last", 0.5), f.TaskEnded("finished")]),
        task_id=task_id, params=params,
    )  # fmt: skip


def test_the_critical_path_is_the_chain_that_decided_and_its_seconds_add_up() -> None:
    path = critical_path(trace_of(diamond()))

    assert [step.node for step in path.steps] == ["start", "slow", "last"]
    assert path.seconds == pytest.approx(9.0)
    assert path.before + sum(step.seconds for step in path.steps) + path.after == pytest.approx(9.0)
    start, slow, last = path.steps
    assert (start.waiting, start.queued, start.running) == pytest.approx((1.0, 0.25, 0.75))
    assert (slow.waiting, slow.queued, slow.running) == pytest.approx((0.0, 0.5, 5.5))
    assert (last.waiting, last.running, last.other) == pytest.approx((0.5, 0.5, 0.0))


def test_a_wait_before_another_try_is_on_the_path_as_what_it_is() -> None:
    history = recorded(
        graph(node("a")),
        (0.0, [f.TaskCreated(), leased("a")]),
        (1.0, [failed("a", 1.0, retry_at=5.0)]),
        (5.0, [f.RetryDue("a")]),
        (6.0, [leased("a", 2)]),
        (8.0, [succeeded("a", 2.0, attempt=2), f.TaskEnded("finished")]),
    )
    trace = trace_of(history)

    (step,) = critical_path(trace).steps
    assert (step.running, step.backoff, step.waiting, step.other) == pytest.approx((3.0, 4.0, 1.0, 0.0))
    assert [(row.attempt, [span.what for span in row.spans]) for row in waterfall(trace)] == [
        (1, ["running", "backoff"]),
        (2, ["waiting", "running"]),
    ]
    found = {one.what: one.seconds for one in bottlenecks(trace)}
    assert found == pytest.approx({"backoff": 4.0, "running": 2.0, "again": 1.0, "no_worker": 1.0})
    assert bottlenecks(trace)[0].what == "backoff"


def test_of_a_map_the_item_that_ended_last_counts_and_waited_for_its_turn() -> None:
    raw = graph(node("first"), node("each", "first", foreach=[1, 2, 3]), node("end", "each"))
    history = recorded(
        raw,
        (0.0, [f.TaskCreated(), leased("first")]),
        (1.0, [succeeded("first", 1.0), f.NodeExpanded("each", 3), leased("each[0]")]),
        (2.0, [succeeded("each[0]", 1.0), leased("each[1]")]),
        (3.0, [succeeded("each[1]", 1.0), leased("each[2]")]),
        (6.0, [succeeded("each[2]", 3.0), f.NodeGathered("each"), leased("end")]),
        (7.0, [succeeded("end", 1.0), f.TaskEnded("finished")]),
    )
    path = critical_path(trace_of(history))

    assert [step.node for step in path.steps] == ["first", "each[2]", "end"]
    item = path.steps[1]
    assert item.seconds == pytest.approx(5.0)
    assert item.running == pytest.approx(3.0)
    assert item.waiting + item.other == pytest.approx(2.0)


def test_repetitions_follow_one_another() -> None:
    raw = graph(node("poll", repeat={"until": "output == 3", "max": 5}))
    history = recorded(
        raw,
        (0.0, [f.TaskCreated(), f.NodeRepeated("poll", 1, 1000.0), leased("poll#1")]),
        (1.0, [succeeded("poll#1", 1.0, 1), f.NodeRepeated("poll", 2, 1001.0), leased("poll#2")]),
        (4.0, [succeeded("poll#2", 3.0, 3), f.NodeGathered("poll"), f.TaskEnded("finished")]),
    )
    path = critical_path(trace_of(history))

    assert [(step.node, step.running) for step in path.steps] == [("poll#1", 1.0), ("poll#2", 3.0)]


def test_a_task_of_which_nothing_has_ended_has_no_path_yet() -> None:
    path = critical_path(trace_of(recorded(graph(node("a")), (3.0, [f.TaskCreated()]))))

    assert (path.steps, path.seconds, path.before) == ((), 3.0, 3.0)


def test_the_slowest_come_first() -> None:
    found = slowest(trace_of(diamond()), limit=2)

    assert [(slow.node, slow.running, slow.attempts) for slow in found] == [("slow", 5.5, 1), ("fast", 1.0, 1)]


def test_a_bottleneck_says_what_was_missing() -> None:
    raw = graph(node("a", limits=[{"key": "db", "max": 1}]), node("b", "a"))
    history = recorded(
        raw,
        (0.0, [f.TaskCreated()]),
        (10.0, [leased("a")]),
        (11.0, [succeeded("a", 1.0)]),
        (31.0, [leased("b")]),
        (32.0, [succeeded("b", 1.0), f.TaskEnded("finished")]),
    )
    worst, second, *_ = bottlenecks(trace_of(history))

    assert (worst.what, worst.node, worst.seconds, worst.critical) == ("no_worker", "b", 20.0, 20.0)
    assert "role 'work'" in worst.hint
    assert (second.what, second.node, second.seconds) == ("limit", "a", 10.0)
    assert "'db'" in second.hint


def test_a_comparison_says_what_is_slower_and_what_ended_otherwise() -> None:
    one, two = trace_of(diamond(6.0, "one", day=1, same=1)), trace_of(diamond(16.0, "two", day=2, same=1))
    found = compare(one, two)

    assert (found.seconds, found.same_graph, found.params) == ((9.0, 19.0), True, ("day",))
    assert (found.nodes[0].node, found.nodes[0].slower) == ("slow", 10.0)
    assert not any(each.differs for each in found.nodes)

    broken = recorded(
        DIAMOND, (0.0, [f.TaskCreated(), leased("start")]), (1.0, [failed("start", 1.0)]), task_id="three"
    )
    differing = {each.node: each for each in compare(one, trace_of(broken)).nodes if each.differs}
    assert differing["start"].second is not None
    assert differing["start"].second.codes == {"boom": 1}


MB = 1024 * 1024


def used(cpu_sec: float, peak_mb: int, verdict: str = "finished", **sizes: int) -> f.Usage:
    return {"verdict": verdict, "level": "L3", "cpu_sec": cpu_sec, "peak_memory_bytes": peak_mb * MB, **sizes}


def programs() -> Recorded:
    """`busy` computes, `idle` waits for the network, `big` runs out of memory once, `plain` is no program."""
    oom = f.AttemptFailed("big", 1, "k-big-1", {"code": "oom"}, 1002.0, run_sec=1.0, usage=used(0.5, 64, "oom"))
    return recorded(
        graph(node("busy"), node("idle"), node("big"), node("plain")),
        (0.0, [f.TaskCreated(), *map(leased, ("busy", "idle", "big", "plain"))]),
        (1.0, [oom]),
        (2.0, [f.RetryDue("big"), leased("big", 2), succeeded("busy", 2.0, usage=used(1.9, 20))]),
        (3.0, [succeeded("big", 1.0, attempt=2, usage=used(0.5, 120, read_bytes=3 * MB, written_bytes=MB))]),
        (9.0, [succeeded("idle", 9.0, usage=used(0.1, 10, received_bytes=7 * MB, sent_bytes=MB))]),
        (10.0, [succeeded("plain", 10.0), f.TaskEnded("finished")]),
    )


def test_what_programs_used_is_summed_by_node_and_orders_them() -> None:
    trace = trace_of(programs())

    assert [slow.node for slow in slowest(trace)] == ["plain", "idle", "big", "busy"]
    assert [slow.node for slow in slowest(trace, by="cpu")] == ["busy", "big", "idle"]
    memory = slowest(trace, by="memory")
    assert [slow.node for slow in memory] == ["big", "busy", "idle"]
    big = memory[0].resources
    assert big is not None
    assert (big.attempts, big.cpu_sec, big.peak_memory_bytes, big.read_bytes, big.written_bytes, big.out_of_memory) == (
        2, 1.0, 120 * MB, 3 * MB, MB, 1,
    )  # fmt: skip
    assert {slow.node: slow.resources for slow in slowest(trace)}["plain"] is None
    with pytest.raises(ValueError, match="did you mean 'cpu'"):
        slowest(trace, by="cpus")


def test_a_bottleneck_of_a_program_says_what_it_spent_its_time_on() -> None:
    found = {(one.what, one.node): one for one in bottlenecks(trace_of(programs()))}

    assert "computed 1.9 s of the 2 s that they ran: faster code" in found["running", "busy"].hint
    assert "computed 0.1 s of the 9 s that they ran, and waited" in found["running", "idle"].hint
    assert "8.0 MiB of network" in found["running", "idle"].hint
    again = found["again", "big"]
    assert "1 of 1 programs that did not succeed ran out of memory, with 64 MiB at most" in again.hint
    assert again.resources is not None and again.resources.out_of_memory == 1
    plain = found["running", "plain"]
    assert (plain.resources, plain.hint) == (None, "node 'plain' itself runs so long")


def test_bars_and_comparisons_have_what_programs_used() -> None:
    trace = trace_of(programs())
    rows = {(row.node, row.attempt): row for row in waterfall(trace)}

    assert rows["big", 1].usage == used(0.5, 64, "oom")
    assert rows["plain", 1].usage is None
    sides = {each.node: each.first for each in compare(trace, trace).nodes}
    idle, plain = sides["idle"], sides["plain"]
    assert idle is not None and idle.resources is not None and idle.resources.received_bytes == 7 * MB
    assert plain is not None and plain.resources is None
