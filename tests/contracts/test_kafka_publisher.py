"""How the publisher treats a producer that misbehaves: no lane may ever stand still for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from flowkit.adapters.kafka_publisher import Publisher
from flowkit.ports import Record
from tests.worker.stand import virtual


class Batch:
    def __init__(self) -> None:
        self.size = 0

    def append(self, **_: Any) -> object:
        self.size += 1
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


class Slow(Producer):
    """Keeps who wants to send to a `strange` topic until `known`, and acknowledges nothing by itself."""

    def __init__(self, strange: str = "") -> None:
        super().__init__(stuck=False)
        self.strange, self.known = strange, asyncio.Event()
        self.sent: list[tuple[str, int, asyncio.Future[None]]] = []

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        if topic == self.strange:
            await self.known.wait()
        self.sent.append((topic, batch.size, asyncio.get_running_loop().create_future()))
        return self.sent[-1][2]

    def land(self) -> None:
        for _, _, future in self.sent:
            if not future.done():
                future.set_result(None)


class Clients:
    def __init__(self, producers: Sequence[Producer]) -> None:
        self.producers = list(producers)

    def producer(self) -> Producer:
        return self.producers.pop(0)


class Moody(Clients):
    """The second producer cannot be made."""

    def producer(self) -> Producer:
        found = super().producer()
        if len(self.producers) == 1:
            raise OSError("no broker")
        return found


def record(partition: int, topic: str = "t") -> Record:
    return Record(topic, partition, b"x")


@asynccontextmanager
async def publishing(clients: Any, timeout: float = 60.0) -> AsyncIterator[Publisher]:
    publisher = Publisher(clients, timeout=timeout)
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@virtual
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
        assert await publisher.publish([record(0), record(1)], 2) == [True, True], (
            "the good one was not given up as well"
        )
    finally:
        await publisher.stop()


async def test_what_is_published_in_one_turn_of_the_loop_is_one_batch_and_so_is_what_comes_until_it_lands() -> None:
    producer = Slow()
    async with publishing(Clients([producer])) as publisher:
        first = [asyncio.create_task(publisher.publish([record(0)], 1)) for _ in range(3)]
        await turns()
        later = [asyncio.create_task(publisher.publish([record(0), record(0)], 2)) for _ in range(3)]
        await turns()
        assert [size for _, size, _ in producer.sent] == [3]

        producer.land()
        assert await asyncio.gather(*first) == [[True]] * 3
        await turns()
        assert [size for _, size, _ in producer.sent] == [3, 6]
        producer.land()
        assert await asyncio.gather(*later) == [[True, True]] * 3


async def test_a_topic_that_is_not_known_yet_keeps_its_own_records_only() -> None:
    producer = Slow("new")
    async with publishing(Clients([producer])) as publisher:
        kept = asyncio.create_task(publisher.publish([record(0, "new")], 1))
        passed = asyncio.create_task(publisher.publish([record(0, "old")], 1))
        await turns()
        assert [topic for topic, _, _ in producer.sent] == ["old"]
        producer.land()
        assert await passed == [True]
        assert not kept.done()

        producer.known.set()
        await turns()
        producer.land()
        assert await kept == [True]


async def test_a_stop_answers_all_who_wait() -> None:
    producer = Slow("new")
    async with publishing(Clients([producer])) as publisher:
        flying = asyncio.create_task(publisher.publish([record(0)], 1))
        entering = asyncio.create_task(publisher.publish([record(0, "new")], 1))
        await turns()
        waiting = asyncio.create_task(publisher.publish([record(0)], 1))
        await turns()
    assert await asyncio.gather(flying, entering, waiting) == [[False]] * 3


async def test_records_wait_for_the_next_producer_where_there_is_none_at_first() -> None:
    producers = [Slow(), Producer(stuck=False), Producer(stuck=False)]
    async with publishing(Moody(producers)) as publisher:
        lost = asyncio.create_task(publisher.publish([record(0)], 1))
        await turns()
        producers[0].sent[0][2].set_exception(RuntimeError("out of sequence"))  # type: ignore[attr-defined]
        assert await lost == [False]
        assert await publisher.publish([record(0), record(1)], 2) == [True, True]
