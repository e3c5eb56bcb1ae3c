"""How the publisher treats a producer that misbehaves: no lane may ever stand still for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from flowkit.adapters.kafka_publisher import Publisher
from flowkit.ports import Record


class Batch:
    def append(self, **_: Any) -> object:
        return object()

    def close(self) -> None: ...


class Producer:
    """Acknowledges everything at once; a `stuck` one keeps whoever wants to send, and never lets go."""

    def __init__(self, *, stuck: bool) -> None:
        self.stuck = stuck
        self.client = SimpleNamespace(close=self._nothing)
        self._sender = SimpleNamespace(sender_task=None)

    async def _nothing(self) -> None: ...

    start = _nothing

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        if self.stuck:
            await asyncio.get_running_loop().create_future()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Clients:
    def __init__(self, producers: Sequence[Producer]) -> None:
        self.producers = list(producers)

    def producer(self) -> Producer:
        return self.producers.pop(0)


def record(partition: int) -> Record:
    return Record("t", partition, b"x")


async def test_a_lane_caught_in_a_producer_that_is_given_up_goes_on_with_the_next() -> None:
    clients: Any = Clients([Producer(stuck=True), Producer(stuck=False)])
    publisher = Publisher(clients, timeout=0.1)
    await publisher.start()
    try:
        assert await publisher.publish([record(0), record(1)], 2) == [False, False]
        async with asyncio.timeout(60):
            while await publisher.publish([record(0)], 1) != [True]:
                pass
        assert await publisher.publish([record(0), record(1)], 2) == [True, True]
        assert clients.producers == [], "each was made once"
        await asyncio.sleep(0.3)
        assert await publisher.publish([record(0), record(1)], 2) == [True, True], "the good one was not given up as well"
    finally:
        await publisher.stop()
