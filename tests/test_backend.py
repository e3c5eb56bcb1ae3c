"""What a process runs on is connected whole, or not at all."""

from __future__ import annotations

import pytest

from flowkit.adapters.memory import MemoryBroker, MemoryBus, MemoryStore
from flowkit.backend import Backend
from flowkit.errors import BusUnavailable


class NoKafka(MemoryBus):
    async def start(self) -> None:
        raise BusUnavailable("no Kafka at nowhere:1")


class Doors(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")


async def test_a_store_whose_bus_is_away_is_left_again() -> None:
    store = Doors()
    backend = Backend(store, NoKafka(MemoryBroker()))

    for _ in range(2):
        with pytest.raises(BusUnavailable, match="nowhere:1"):
            await backend.start()

    assert store.calls == ["start", "stop"] * 2


async def test_the_first_one_connects_and_the_last_one_leaves() -> None:
    store = Doors()
    backend = Backend(store, MemoryBus(MemoryBroker()))

    await backend.start()
    await backend.start()
    await backend.stop()
    assert store.calls == ["start"]
    await backend.stop()
    assert store.calls == ["start", "stop"]
