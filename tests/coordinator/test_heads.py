"""Heads follow the commits, and requests are marked behind them, whatever the store answers."""

from __future__ import annotations

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.heads import Heads
from flowkit.errors import StoreUnavailable
from flowkit.ports import Head, Outcome, Request


class Moody(MemoryStore):
    """A store that does not always answer clearly."""

    marks = Outcome.OK
    away = False

    async def mark_applied(self, keys: object) -> Outcome:
        return await super().mark_applied(keys) if self.marks is Outcome.OK else self.marks  # type: ignore[arg-type]

    async def read_heads(self, task_ids: object) -> list[Head]:
        if self.away:
            raise StoreUnavailable("away")
        return await super().read_heads(task_ids)  # type: ignore[arg-type]


@pytest.fixture
async def store() -> Moody:
    store = Moody()
    await store.start()
    await store.insert_heads([Head("t", 0, "ref")])
    await store.insert_request(Request("t", 1, "r1", "pause", "{}", 0, "default", "local", 0.0))
    return store


def a_cell() -> Cell:
    cell = Cell("t", 0)
    cell.loading, cell.acked, cell.published, cell.to_mark = False, 1, 1, [1]
    return cell


async def test_a_mark_that_the_store_did_not_confirm_is_made_again(store: Moody) -> None:
    heads, cell = Heads(store, ManualClock(), lambda cell: None), a_cell()
    heads.touch(cell)
    store.marks = Outcome.UNKNOWN
    await heads.step()
    await heads.step()
    assert cell.to_mark == [1]

    store.marks = Outcome.OK
    await heads.step()
    assert cell.to_mark == []
    assert [request.applied for request in await store.read_requests("t")] == [True]


async def test_a_store_that_is_away_makes_nobody_forget(store: Moody) -> None:
    heads, cell, other = Heads(store, ManualClock(), lambda cell: None), a_cell(), a_cell()
    other.task_id = "unknown"  # no head matches it: the store is asked why
    other.to_mark = []
    heads.touch(other)
    heads.touch(cell)
    store.away = True
    with pytest.raises(StoreUnavailable):
        await heads.step()

    store.away = False
    await heads.step()
    await heads.step()
    assert cell.to_mark == []
