"""Which tasks a sweep takes into memory."""

from __future__ import annotations

import pytest

from flowkit.adapters.memory import MemoryBus, MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.coordinator.sweeper import AHEAD_SEC
from flowkit.ports import Head

NOW = 1_000_000.0


async def in_memory(*heads: Head, evict_after_sec: float = 60.0) -> set[str]:
    """After one sweep of partition 0."""
    store, cfg = MemoryStore(), CoordinatorConfig(evict_after_sec=evict_after_sec)
    runtime = CoordinatorRuntime(store=store, bus=MemoryBus(), clock=ManualClock(NOW), cfg=cfg)
    await store.insert_heads(heads)
    runtime.engine.owned = {0}

    woken = await runtime.sweeper.step()

    assert woken == len(runtime.engine.cells)
    return set(runtime.engine.cells)


def sleeper(name: str, wake: float | None, *, partition: int = 0, active: bool = True) -> Head:
    return Head(name, partition, "g", next_wake=wake, active=active, seq=1, published_seq=1)


async def test_sleepers_are_fetched_a_while_before_they_are_due() -> None:
    late, soon = sleeper("late", NOW - 1), sleeper("soon", NOW + AHEAD_SEC - 1)
    later, never = sleeper("later", NOW + AHEAD_SEC + 1), sleeper("never", None)

    assert await in_memory(late, soon, later, never) == {"late", "soon"}


async def test_but_not_before_they_would_be_evicted_again() -> None:
    assert await in_memory(sleeper("a", NOW + 0.9), sleeper("b", NOW + 1.1), evict_after_sec=2.0) == {"a"}


@pytest.mark.parametrize("head", [sleeper("t", NOW - 1, partition=1), sleeper("t", NOW - 1, active=False)])
async def test_others_tasks_and_ended_ones_are_left_alone(head: Head) -> None:
    assert await in_memory(head) == set()


async def test_an_event_that_is_not_published_makes_a_task_due() -> None:
    assert await in_memory(Head("t", 0, "g", next_wake=None, seq=2, published_seq=1)) == {"t"}
