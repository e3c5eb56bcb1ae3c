"""Hears the events of tasks that other coordinators own, from the first time somebody here wants to know."""

from __future__ import annotations

import asyncio

from flowkit.coordinator.hub import Hub
from flowkit.errors import Corrupt
from flowkit.ports import Bus, Tail
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.events import decode_event
from flowkit.wire.topics import Topics

FETCH_SEC = 0.5


class EventTail:
    """Opened once, then kept: whoever listens afterwards misses nothing from then on."""

    def __init__(self, bus: Bus, topics: Topics, hub: Hub, supervisor: Supervisor, telemetry: Telemetry) -> None:
        self._bus = bus
        self._topics = topics
        self._hub = hub
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._tail: Tail | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        async with self._opening:
            if self._tail is None:
                self._tail = await self._bus.tail(self._topics.events)
                self._supervisor.loop("events", self.step)

    async def step(self) -> None:
        assert self._tail is not None
        for record in await self._tail.fetch(FETCH_SEC):
            if record.key is None or not self._hub.wanted(record.key.decode("utf-8", "replace")):
                continue
            try:
                self._hub.heard(decode_event(record.value))
            except Corrupt:
                self._telemetry.count("unreadable_events")

    async def stop(self) -> None:
        if self._tail is not None:
            await self._tail.stop()
