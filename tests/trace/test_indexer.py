"""Ended attempts on their way into the index: behind their commits, once, and healed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.adapters.memory import MemoryStore
from flowkit.core import facts as f
from flowkit.monitor_ports import AttemptQuery, AttemptRecord
from flowkit.ports import Head, HeadUpdate, Outcome
from flowkit.telemetry import Telemetry
from flowkit.trace.indexer import PAGE, Indexer
from flowkit.trace.task_trace import Recorded
from tests.core.builders import graph, node
from tests.trace.histories import failed, leased, recorded, succeeded
from tests.worker.stand import LoopClock, virtual

RAW = graph(node("a"), name="one")
ALL = AttemptQuery("default", 0.0, 4e9)


class Office:
    """An indexer over histories in memory; of those in `unreadable` nothing can be read."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.histories: dict[str, Recorded] = {}
        self.unreadable: set[str] = set()
        self.loads: list[list[str]] = []
        self.telemetry = Telemetry()
        self.clock = LoopClock()
        self.indexer = self.fresh()

    def fresh(self) -> Indexer:
        return Indexer(
            load=self.load, store=self.store, traces=self.store.traces, clock=self.clock, telemetry=self.telemetry,
            owned=lambda: [0],
        )  # fmt: skip

    async def load(self, task_ids: Sequence[str]) -> Mapping[str, Recorded]:
        self.loads.append(list(task_ids))
        return {one: self.histories[one] for one in task_ids if one not in self.unreadable}

    async def end(self, task_id: str, *more: tuple[float, list[f.Fact]], **head: Any) -> None:
        commits = [
            (0.0, [f.TaskCreated(), leased("a")]),
            (1.0, [succeeded("a", 0.5), f.TaskEnded("finished")]),
            *more,
        ]
        self.histories[task_id] = history = recorded(RAW, *commits, task_id=task_id, **head)
        await self.store.insert_heads([history.head])
        seq = len(commits)
        await self.store.update_heads([HeadUpdate(task_id, "finished", seq, seq, False, None, 1.0, ended_at=1.0 + seq)])

    async def found(self) -> list[AttemptRecord]:
        return sorted(await self.store.traces.slowest_attempts(ALL, limit=9999), key=lambda one: (one.task_id, one.seq))

    async def rest(self, seconds: float) -> None:
        """Let the time go by, with the steps that come in it."""
        for _ in range(int(seconds / 0.1)):
            await self.indexer.step()
            await asyncio.sleep(0.1)


@virtual
async def test_what_is_noted_is_indexed_once() -> None:
    office = Office()
    await office.end("t1")
    await office.end("t2")
    for name in ("t1", "t2", "t1", "nobody"):
        office.indexer.note(name)
    await office.rest(2)

    assert [(one.task_id, one.node, one.run_sec) for one in await office.found()] == [
        ("t1", "a", 0.5),
        ("t2", "a", 0.5),
    ]
    office.indexer.note("t1")
    await office.rest(2)
    assert office.loads == [["t1", "t2"]]
    assert office.telemetry.counts["attempts_indexed"] == 2


@virtual
async def test_a_task_that_has_run_again_adds_what_is_new() -> None:
    office = Office()
    await office.end("t1")
    await office.indexer.index(["t1"])
    again = [
        (10.0, [f.TaskRestarted(1), leased("a", 2)]),
        (12.0, [failed("a", 1.5, 2), f.TaskEnded("failed")]),
    ]
    await office.end("t1", *again)
    await office.indexer.index(["t1"])

    assert [(one.attempt, one.generation, one.outcome) for one in await office.found()] == [
        (1, 0, "succeeded"), (2, 1, "failed"),
    ]  # fmt: skip
    assert office.telemetry.counts["attempts_indexed"] == 2


@virtual
async def test_what_nobody_noted_is_found_among_the_heads_with_its_children() -> None:
    office = Office()
    for number in range(PAGE + 50):
        await office.end(f"t{number}")
    await office.end("child", parent="t7")
    await office.end("grandchild", parent="child")
    await office.store.insert_heads([Head("running", 0, "g"), Head("foreign", 1, "g")])
    await office.rest(60)

    assert len(await office.found()) == PAGE + 52
    loads = len(office.loads)
    await office.rest(60)
    assert len(office.loads) == loads  # the next round is far, and would find nothing missing


@virtual
async def test_who_died_half_way_is_made_good_without_doubles() -> None:
    office = Office()
    for number in range(5):
        await office.end(f"t{number}")
    mark = office.store.traces.mark_indexed

    async def dies(seqs: Mapping[str, int]) -> Outcome:
        raise ConnectionError("gone")

    office.store.traces.mark_indexed = dies  # type: ignore[method-assign]
    office.indexer.note("t1")
    try:
        await office.indexer.step()
    except ConnectionError:
        pass
    else:
        raise AssertionError("it did not die")
    assert len(await office.found()) == 1

    office.store.traces.mark_indexed = mark  # type: ignore[method-assign]
    office.indexer = office.fresh()
    await office.rest(20)
    assert [one.task_id for one in await office.found()] == [f"t{number}" for number in range(5)]


@virtual
async def test_a_task_that_cannot_be_read_is_not_read_for_ever() -> None:
    office = Office()
    await office.end("t1")
    await office.end("t2")
    office.unreadable.add("t1")
    await office.rest(2000)

    assert [one.task_id for one in await office.found()] == ["t2"]
    assert sum("t1" in load for load in office.loads) == 1
