"""Which tasks a sweep takes into memory."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.adapters.memory import MemoryBus, MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.history import new_task
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.coordinator.sweeper import AHEAD_SEC
from flowkit.core.decide import decide
from flowkit.core.dialect import parse_graph
from flowkit.core.reports import Accepted, Failed, Placed
from flowkit.ports import Head
from tests.core.builders import graph, node

NOW = 1_000_000.0


async def begun(*heads: Head, clock: ManualClock | None = None, **settings: Any) -> CoordinatorRuntime:
    store = MemoryStore()
    runtime = CoordinatorRuntime(
        store=store, bus=MemoryBus(), clock=clock or ManualClock(NOW), cfg=CoordinatorConfig(**settings)
    )
    await store.insert_heads(heads)
    runtime.engine.owned = {0}
    return runtime


async def in_memory(*heads: Head, evict_after_sec: float = 60.0) -> set[str]:
    """After one sweep of partition 0."""
    runtime = await begun(*heads, evict_after_sec=evict_after_sec)

    woken = await runtime.sweeper.step()

    assert woken == len(runtime.engine.cells)
    return set(runtime.engine.cells)


def sleeper(name: str, wake: float | None, *, partition: int = 0, active: bool = True) -> Head:
    return Head(name, partition, "g", next_wake=wake, active=active, seq=1, published_seq=1)


async def test_sleepers_are_fetched_a_while_before_they_are_due() -> None:
    late, soon = sleeper("late", NOW - 1), sleeper("soon", NOW + AHEAD_SEC - 1)
    later, never = sleeper("later", NOW + AHEAD_SEC + 1), sleeper("never", None)

    assert await in_memory(late, soon, later, never) == {"late", "soon"}


async def test_and_not_looked_for_in_every_sweep() -> None:
    clock = ManualClock(NOW)
    runtime = await begun(sleeper("a", NOW + 1), clock=clock)
    await runtime.sweeper.step()
    await runtime.store.insert_heads([sleeper("b", NOW + AHEAD_SEC), sleeper("c", NOW + 1.5), sleeper("d", NOW + 60)])

    found = []
    for _ in range(int(AHEAD_SEC / 2)):
        clock.advance(1.0)
        await runtime.sweeper.step()
        found.append("".join(sorted(runtime.engine.cells)))

    assert found == ["a", "ac", "ac", "ac", "abc"]


async def test_but_not_before_they_would_be_evicted_again() -> None:
    assert await in_memory(sleeper("a", NOW + 0.9), sleeper("b", NOW + 1.1), evict_after_sec=2.0) == {"a"}


@pytest.mark.parametrize("head", [sleeper("t", NOW - 1, partition=1), sleeper("t", NOW - 1, active=False)])
async def test_others_tasks_and_ended_ones_are_left_alone(head: Head) -> None:
    assert await in_memory(head) == set()


async def test_an_event_that_is_not_published_makes_a_task_due() -> None:
    assert await in_memory(Head("t", 0, "g", next_wake=None, seq=2, published_seq=1)) == {"t"}


# Too much of it.


def resting(runtime: CoordinatorRuntime, name: str, wake: float, weight: int) -> Cell:
    """A task in memory that waits for the retry of its node, its head written and its events out."""
    head = sleeper(name, wake)
    task = new_task(head, parse_graph(graph(node("a", retry_policy={"backoff_sec": wake - NOW, "jitter": False}))))
    decide(task, [Accepted(), Placed("a", "k", "w", "i", 1.0)], NOW)
    decide(task, [Failed("a", 1, "k", {"code": "x", "message": ""})], NOW)
    cell = runtime.engine.get(name, 0)
    cell.head, cell.task, cell.loading = head, task, False
    cell.acked = cell.published = 1
    cell.stored = (1, 1)
    runtime.engine.memory.add(cell, weight)
    runtime.engine.to_load.clear()
    return cell


async def test_where_there_is_room_those_that_wait_for_less_than_a_minute_stay() -> None:
    runtime = await begun(cache_bytes=1000)
    resting(runtime, "a", NOW + 30, 400)
    resting(runtime, "b", NOW + 30, 600)

    await runtime.sweeper.step()

    assert set(runtime.engine.cells) == {"a", "b"}


async def test_where_there_is_none_they_leave_until_there_is_and_not_those_about_to_wake() -> None:
    runtime = await begun(cache_bytes=1000)
    engine = runtime.engine
    resting(runtime, "soon", NOW + 0.5, 500)
    for name in "abcd":
        resting(runtime, name, NOW + 30, 300)

    await runtime.sweeper.step()

    assert set(engine.cells) == {"soon", "d"}
    assert engine.memory.bytes == 800
    engine.drop(engine.cells["d"])
    engine.drop(engine.cells["soon"])
    assert engine.memory.bytes == 0


async def test_and_sleepers_are_not_fetched_before_they_are_due() -> None:
    runtime = await begun(sleeper("soon", NOW + 5), sleeper("late", NOW - 1), cache_bytes=1000)
    resting(runtime, "soon enough", NOW + 0.5, 2000)

    await runtime.sweeper.step()

    assert set(runtime.engine.cells) == {"soon enough", "late"}
