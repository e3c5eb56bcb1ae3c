"""Tasks that a sweep or a takeover has found are loaded with the heads that it read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryBus, MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.loader import FRESH_SEC
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.core.payload import Payload
from flowkit.ports import Commit, Head, HeadUpdate
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from tests.core.builders import graph, node

NOW = 1_000_000.0
DATA = dumps(graph(node("a"), node("b", "a")))
REF = hashlib.sha256(DATA).hexdigest()
FIRST: list[f.Fact] = [f.TaskCreated(), f.AttemptLeased("a", 1, "k", "w", "i", 60.0)]
SECOND: list[f.Fact] = [f.AttemptSucceeded("a", 1, "k", Payload(1))]


class Noting(MemoryStore):
    """Says whose heads were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def read_heads(self, task_ids: Any) -> list[Head]:
        self.asked += task_ids
        return await super().read_heads(task_ids)


class Stand:
    def __init__(self) -> None:
        self.store, self.clock = Noting(), ManualClock(NOW)
        self.runtime = CoordinatorRuntime(
            store=self.store, bus=MemoryBus(), clock=self.clock, cfg=CoordinatorConfig(), new_token_prefix="c"
        )
        self.runtime.engine.owned = {0}

    async def task(self, name: str, **more: Any) -> None:
        """One that has begun, and that a sweep has to look at."""
        await self.store.put_blob(REF, DATA, kind="graph")
        head = Head(name, 0, REF, next_wake=NOW - 1, seq=1, published_seq=1, **more)
        await self.store.insert_heads([head])
        await self.store.insert_commits([commit(name, 1, FIRST)])


def commit(name: str, seq: int, facts: list[f.Fact]) -> Commit:
    return Commit(
        name, seq, f"{name}.{seq}", f"{name}.{seq - 1}" if seq > 1 else "", NOW, "c", body_of(encode_facts(facts))
    )


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_what_a_sweep_has_just_read_is_not_read_again(stand: Stand) -> None:
    await stand.task("t")
    stand.runtime.engine.get("asked for by its name", 0)

    await stand.runtime.sweeper.step()
    await stand.runtime.loader.step()

    cell = stand.runtime.engine.cells["t"]
    assert (cell.loading, cell.acked, cell.sight) == (False, 1, None)
    assert stand.store.asked == ["asked for by its name"]


async def test_but_once_it_is_a_while_ago_it_is(stand: Stand) -> None:
    await stand.task("t")
    await stand.runtime.sweeper.step()
    stand.clock.advance(FRESH_SEC + 0.1)

    await stand.runtime.loader.step()

    assert stand.store.asked == ["t"]
    assert not stand.runtime.engine.cells["t"].loading


async def test_and_so_is_one_with_a_snapshot_which_may_have_another_by_now(stand: Stand) -> None:
    await stand.task("t", snapshot="1:gone")
    await stand.runtime.sweeper.step()
    await stand.runtime.loader.step()

    assert stand.store.asked == ["t"]
    assert stand.runtime.engine.cells["t"].acked == 1


async def test_what_was_committed_and_published_since_is_loaded_with_it(stand: Stand) -> None:
    await stand.task("t")
    await stand.runtime.sweeper.step()
    await stand.store.insert_commits([commit("t", 2, SECOND)])
    published = HeadUpdate("t", "running", 2, 2, True, NOW + 30, NOW, None, None)
    await stand.store.update_heads([published])

    await stand.runtime.loader.step()

    cell = stand.runtime.engine.cells["t"]
    assert cell.task is not None
    assert (cell.acked, cell.task.runs["a"].output) == (2, Payload(1))


async def test_a_task_that_was_deleted_since_is_not_taken_up(stand: Stand) -> None:
    await stand.task("t")
    await stand.runtime.sweeper.step()
    tombstones: list[str] = []

    async def tell(dead: Sequence[tuple[Head, Commit]]) -> None:
        tombstones.extend(stone.id for _, stone in dead)

    deletion = Deletion(stand.store, stand.clock, "somebody else", tell=tell)
    await deletion.bury(await stand.store.read_heads(["t"]))
    assert tombstones

    await stand.runtime.loader.step()

    assert "t" not in stand.runtime.engine.cells
