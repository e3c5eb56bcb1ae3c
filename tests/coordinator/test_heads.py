"""Heads and marks of requests follow the commits, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator import heads
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.heads import Heads
from flowkit.errors import StoreUnavailable
from flowkit.ports import Head, HeadUpdate, Outcome, Request


class Moody(MemoryStore):
    """`marks` and `updates` say how many calls fail before one does not."""

    def __init__(self, *, marks: int = 0, updates: int = 0) -> None:
        super().__init__()
        self.marks, self.updates = marks, updates

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        self.marks -= 1
        return Outcome.UNKNOWN if self.marks >= 0 else await super().mark_applied(keys)

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        self.updates -= 1
        if self.updates >= 0:
            raise StoreUnavailable("away")
        return await super().update_heads(updates)


class Stand:
    def __init__(self, store: Moody, *names: str) -> None:
        self.store = store
        self.stored: list[str] = []
        self.heads = Heads(store, ManualClock(), lambda cell: self.stored.append(cell.task_id))
        self.cells = [Cell(name, 0) for name in names]
        for cell in self.cells:
            cell.acked = cell.published = 1
            self.heads.touch(cell)

    async def begin(self) -> Stand:
        await self.store.insert_heads([Head(cell.task_id, 0, "g") for cell in self.cells])
        return self

    async def step(self) -> None:
        with suppress(StoreUnavailable):  # as the supervisor does
            await self.heads.step()


async def test_a_request_is_marked_though_the_first_mark_was_lost() -> None:
    stand = await Stand(Moody(marks=1), "t").begin()
    await stand.store.insert_request(Request("t", 1, "r", "pause", "{}", 0, "default", "local", 0.0))
    [cell] = stand.cells
    cell.stored, cell.to_mark = (1, 1), [1]

    await stand.step()
    assert (cell.to_mark, stand.stored) == ([1], [])

    await stand.step()
    await stand.step()
    assert (cell.to_mark, stand.stored) == ([], ["t"])
    assert [request.applied for request in await stand.store.read_requests("t")] == [True]


async def test_every_head_is_written_though_the_first_batch_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "BATCH", 1)
    stand = await Stand(Moody(updates=1), "a", "b", "c").begin()

    for _ in range(3):
        await stand.step()

    assert stand.stored == ["a", "b", "c"]
    assert [head.seq for head in await stand.store.read_heads(["a", "b", "c"])] == [1, 1, 1]
