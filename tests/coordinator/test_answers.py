"""What is kept of outputs, and how it is found again by those that come with the same key."""

from __future__ import annotations

import asyncio
import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator.answers import LARGE_CHARS, MOST_CHARS, Answers
from flowkit.coordinator.artifacts import materialise
from flowkit.coordinator.cell import Cell, Item
from flowkit.core.effects import Keep, LookUp
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Looked
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import dumps


class Desk:
    """`keep` an output under a key; `look` for what is kept, as a node of another task does."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock(1000.0)
        self.telemetry = Telemetry()
        self.supervisor = Supervisor("desk", self.telemetry)
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        engine: Any = SimpleNamespace(feed=self._feed, pump_dirty=lambda: None)
        self.answers = Answers(self.store, self.clock, engine, self.supervisor, self.telemetry)

    def _feed(self, cell: Cell, item: Item) -> None:
        self.heard.put_nowait(item.report)

    async def keep(self, value: Any, key: str = "k", ttl_sec: float = 60.0) -> None:
        output = Payload(value)
        if isinstance(value, bytes) or len(dumps(value)) > LARGE_CHARS:
            kind, data = ("bytes", value) if isinstance(value, bytes) else ("json", dumps(value))
            ref = hashlib.sha256(data).hexdigest()
            await self.store.put_blob(ref, data, kind="artifact", for_task="maker")
            output = Payload(None, Artifact(ref, len(data), kind))
        self.answers.keep(Keep(key, output, ttl_sec))
        async with asyncio.timeout(10):
            while self.supervisor._tasks:
                await asyncio.sleep(0)

    async def look(self, key: str = "k") -> Payload | None:
        self.answers.ask(Cell("asker", 0), LookUp("ask", key))
        async with asyncio.timeout(10):
            found = await self.heard.get()
        assert isinstance(found, Looked)
        return found.output


@pytest.mark.parametrize(
    "value", [None, 0, "tea", {"a": [1, None]}, "x" * (LARGE_CHARS + 1), b"", b"\x00\xff" * 30_000]
)
async def test_an_output_is_found_again_whatever_it_is(value: Any) -> None:
    desk = Desk()
    assert await desk.look() is None
    await desk.keep(value)
    found = await desk.look()
    assert found is not None
    assert await materialise(desk.store, found.get()) == value
    assert await desk.look("another key") is None


async def test_an_output_is_found_for_as_long_as_whoever_kept_it_said() -> None:
    desk = Desk()
    await desk.keep(1, ttl_sec=5.0)
    desk.clock.advance(4.9)
    assert await desk.look() is not None
    desk.clock.advance(0.2)
    assert await desk.look() is None


@pytest.mark.parametrize("value", ["x" * MOST_CHARS, b"x" * MOST_CHARS])
async def test_what_is_too_large_is_not_kept_and_that_is_counted(value: Any) -> None:
    desk = Desk()
    await desk.keep(value)
    assert await desk.look() is None
    assert desk.telemetry.counts["outputs_too_large_to_keep"] == 1
