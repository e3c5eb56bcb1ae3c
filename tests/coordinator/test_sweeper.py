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
    await runtime.store.insert_heads(
        [sleeper("b", NOW + AHEAD_SEC + 1), sleeper("c", NOW + 1.5), sleeper("d", NOW + 60)]
    )

    found = []
    for _ in range(int(AHEAD_SEC / 2)):
        clock.advance(1.0)
        await runtime.sweeper.step()
        found.append("".join(sorted(runtime.engine.cells)))

    assert found == ["a", "ac", "ac", "ac", "abc"]


def reads_of(runtime: CoordinatorRuntime, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The tasks that each read of what is due gives from now on, those without any left out."""
    read, found = runtime.store.due_heads, list[list[str]]()

    async def noting(*args: Any, **options: Any) -> list[Head]:
        heads = await read(*args, **options)
        if heads:
            found.append([head.task_id for head in heads])
        return heads

    monkeypatch.setattr(runtime.store, "due_heads", noting)
    return found


async def test_who_was_found_ahead_is_not_read_again_before_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NOW)
    sleepers = [sleeper("a", NOW + AHEAD_SEC), sleeper("b", NOW + AHEAD_SEC), sleeper("c", NOW + AHEAD_SEC + 2)]
    runtime = await begun(*sleepers, clock=clock)
    reads = reads_of(runtime, monkeypatch)

    for _ in range(int(AHEAD_SEC)):
        await runtime.sweeper.step()
        clock.advance(1.0)

    assert reads == [["a", "b"], ["c"]]
    await runtime.sweeper.step()
    assert reads[2] == ["a", "b"]  # due now: whoever has them in memory may have been overtaken


async def test_those_of_one_moment_who_are_too_many_for_a_read_are_fetched_by_the_next_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowkit.coordinator.sweeper.PAGE", 2)
    clock = ManualClock(NOW)
    names = [f"s{i}" for i in range(7)]
    runtime = await begun(*(sleeper(name, NOW + AHEAD_SEC / 2) for name in names), clock=clock)

    for _ in range(4):
        await runtime.sweeper.step()
        clock.advance(1.0)

    assert set(runtime.engine.cells) == set(names)


async def test_who_was_passed_over_in_a_full_memory_is_fetched_once_there_is_room() -> None:
    clock = ManualClock(NOW)
    runtime = await begun(clock=clock, cache_bytes=1000)
    await runtime.sweeper.step()
    about_to_wake = resting(runtime, "large", NOW + 1.5, 2000)
    await runtime.store.insert_heads([sleeper("soon", NOW + AHEAD_SEC - 1)])
    clock.advance(1.0)
    await runtime.sweeper.step()
    runtime.engine.drop(about_to_wake)

    clock.advance(AHEAD_SEC / 2)
    await runtime.sweeper.step()

    assert set(runtime.engine.cells) == {"soon"}


async def test_with_a_new_partition_all_of_it_is_looked_at() -> None:
    clock = ManualClock(NOW)
    runtime = await begun(sleeper("other", NOW + AHEAD_SEC - 1, partition=1), clock=clock)
    await runtime.sweeper.step()
    runtime.engine.owned = {0, 1}

    clock.advance(AHEAD_SEC / 2)
    await runtime.sweeper.step()

    assert set(runtime.engine.cells) == {"other"}


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
