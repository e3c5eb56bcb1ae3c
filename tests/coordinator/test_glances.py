"""Waiters of tasks that only wait: one read tells for many whether anything has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from flowkit.adapters.memory import MemoryBus, MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import glances, results
from flowkit.coordinator.glances import Glances
from flowkit.coordinator.hub import Hub, Listener
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.errors import StoreUnavailable
from flowkit.ports import Commit, Head
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from tests.core.builders import graph, node

CREATED: Sequence[f.Fact] = [f.TaskCreated()]
ENDED: Sequence[f.Fact] = [f.TaskCancelling("x", "cancelled", 9.0), f.TaskEnded("cancelled")]


class Counting(MemoryStore):
    """Counts the tasks that each read of commits is about. `away`: reads of this many are not answered."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []
        self.away = 0

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        self.reads.append((len(task_ids), after))
        if len(task_ids) == self.away:
            raise StoreUnavailable("away")
        return await super().read_commits(task_ids, after=after)


def commit(task_id: str, seq: int, facts: Sequence[f.Fact]) -> Commit:
    return Commit(task_id, seq, f"c.{seq}", f"c.{seq - 1}" if seq > 1 else "", 5.0, "c", body_of(encode_facts(facts)))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glances, "GATHER_SEC", 0.01)


async def poked(store: Counting, asked: dict[str, int]) -> set[str]:
    supervisor = Supervisor("test", Telemetry())
    looks, hub = Glances(store, supervisor), Hub()
    listeners: dict[str, Listener] = {task_id: hub.listen(task_id) for task_id in asked}
    for task_id, seen in asked.items():
        looks.ask(task_id, seen, listeners[task_id])
    assert looks._answering is not None
    await looks._answering
    return {task_id for task_id, listener in listeners.items() if listener.missed}


async def test_one_read_for_all_that_have_seen_as_much_and_those_that_moved_are_poked() -> None:
    store = Counting()
    await store.insert_commits([commit(name, 1, CREATED) for name in "abc"] + [commit("b", 2, ENDED)])

    assert await poked(store, {"a": 1, "b": 1, "c": 0, "d": 1}) == {"b", "c"}
    assert sorted(store.reads) == [(1, 0), (3, 1)]


async def test_many_are_asked_about_in_several_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glances, "BATCH", 2)
    store = Counting()

    assert await poked(store, dict.fromkeys("abcde", 1)) == set()
    assert store.reads == [(2, 1), (2, 1), (1, 1)]


async def test_where_nobody_can_tell_they_look_for_themselves() -> None:
    store = Counting()
    store.away = 2

    assert await poked(store, {"a": 1, "b": 1, "c": 2}) == {"a", "b"}


async def test_waiters_miss_no_end_that_no_event_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "REREAD_SEC", 0.05)
    store = Counting()
    await store.put_blob("g", dumps(graph(node("a"))), kind="graph")
    names = [f"t{place}" for place in range(20)]
    await store.insert_heads([Head(name, 0, "g", tenant="default") for name in names])
    await store.insert_commits([commit(name, 1, CREATED) for name in names])
    runtime = CoordinatorRuntime(store=store, bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig())
    clock = asyncio.get_running_loop().time
    monkeypatch.setattr(runtime.clock, "mono", clock, raising=False)
    await runtime.bus.ensure_topics(runtime.topics.specs())
    waiting = [asyncio.create_task(runtime.api.wait(name, 30.0)) for name in names]
    try:
        while (20, 1) not in store.reads:  # each has been read once, and now all are looked at together
            await asyncio.sleep(0.01)
        assert sum(size for size, after in store.reads if not after) == len(names), "each was read once"
        store.reads.clear()

        await store.insert_commits([commit("t7", 2, ENDED)])
        result = await waiting[7]

        assert result.status == "cancelled"
        assert [read for read in store.reads if not read[1]] == [(1, 0)], "only the one that moved is read again"
        assert not any(one.done() for one in waiting if one is not waiting[7])
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        await runtime.supervisor.stop()
        await runtime.api.stop()
