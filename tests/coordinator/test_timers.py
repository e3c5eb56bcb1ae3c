"""The timers of the tasks in memory."""

from __future__ import annotations

import gc
import weakref

from flowkit.clock import ManualClock
from flowkit.coordinator import timers
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.timers import Timers

NOW = 1000.0


class Loose(Cell):
    """A cell that can be watched."""

    __slots__ = ("__weakref__",)


async def test_cells_are_told_when_they_are_due_and_once() -> None:
    clock = ManualClock(NOW)
    some = Timers(clock)
    late, soon, moved, gone = (Cell(name, 0) for name in ("late", "soon", "moved", "gone"))
    for cell, at in ((late, 9.0), (soon, 5.0), (moved, 1.0), (gone, 5.0), (moved, 6.0), (soon, 4.0), (soon, 5.0)):
        some.set(cell, clock.wall() + at)
    gone.dead = True
    some.set(gone, None)

    clock.advance(7.0)
    assert [cell.task_id for cell in await some.due()] == ["soon", "moved"]

    clock.advance(2.0)
    assert await some.due() == [late]


async def test_cells_that_left_memory_do_not_stay_in_it_until_they_would_have_been_due() -> None:
    clock = ManualClock(NOW)
    some = Timers(clock)
    first = Cell("first", 0)
    some.set(first, clock.wall() + 1.0)
    watched: list[weakref.ref[Cell]] = []
    for place in range(3 * timers.MOST_STALE):
        cell = Loose(f"t{place}", 0)
        some.set(cell, clock.wall() + 1e6)
        cell.dead = True
        some.set(cell, None)
        watched.append(weakref.ref(cell))
    del cell
    gc.collect()

    assert sum(ref() is not None for ref in watched) <= timers.MOST_STALE
    clock.advance(1.0)
    assert await some.due() == [first]
