"""Sends records to Kafka, and says of each within a bounded time whether Kafka has it.

aiokafka's `send` costs 10 us of CPU per record and a future each; a batch costs 1.5 us per record. So records wait
here, one lane per partition, and go out as one batch as soon as the batch before them is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import errors

from flowkit.adapters.kafka_client import FAILURES, Clients, discard_producer
from flowkit.ports import Record

MAX_BYTES_WAITING = 64 * 1024 * 1024
RETRY_SEC = 0.2
TROUBLE_SEC = 0.5

# Not the producer's fault: another producer would fare no better.
NOT_FATAL = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.TopicAuthorizationFailedError,
    errors.InvalidTopicError,
    errors.KafkaTimeoutError,
)


@dataclass(slots=True, eq=False)
class Ticket:
    """One call of `publish`: which of its records are acknowledged, and how many are open."""

    acknowledged: list[bool]
    open: int
    settled: asyncio.Future[None]
    closed: bool = False

    def settle(self, index: int, acknowledged: bool) -> None:
        self.acknowledged[index] = acknowledged
        self.open -= 1
        if self.open == 0 and not self.settled.done():
            self.settled.set_result(None)


@dataclass(slots=True, eq=False)
class Lane:
    """The records for one partition that are not on their way yet, and the batch that is: first `entering` the
    producer, which may take as long as the topic's metadata do, then until it has `landed`."""

    topic: str
    partition: int
    waiting: deque[tuple[Record, Ticket, int]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    entering: asyncio.Timeout | None = None
    landed: asyncio.Future[bool] | None = None
    sent_at: float = 0.0


class Publisher:
    """One idempotent producer, replaced when it is fenced, out of sequence or stuck."""

    def __init__(self, clients: Clients, *, timeout: float) -> None:
        self._clients = clients
        self._timeout = timeout
        self._failed = False
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._live: Any = None
        self._making = asyncio.Lock()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._discarding: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Raises what aiokafka raises when the broker is away."""
        await self._make()

    async def stop(self) -> None:
        self._stopped = True
        lanes = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in lanes:
            task.cancel()
        if self._live is not None:
            self._discard(self._live)
        if lanes or self._discarding:
            await asyncio.wait({*lanes, *self._discarding})
        for lane in self._lanes.values():
            for _, ticket, index in lane.waiting:
                ticket.settle(index, False)
        self._lanes.clear()

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        ticket = Ticket([False] * len(records), len(records), asyncio.get_running_loop().create_future())
        if not records or self._stopped:
            return ticket.acknowledged
        size = sum(len(record.value or b"") + len(record.key or b"") for record in records)
        try:
            async with asyncio.timeout(self._timeout):
                while self._bytes > MAX_BYTES_WAITING:
                    self._room.clear()
                    await self._room.wait()
                self._bytes += size
                try:
                    self._send(records, ticket)
                    await ticket.settled
                finally:
                    self._free(size)
        except TimeoutError:
            # aiokafka tries an idempotent batch for ever; nobody waits for one as old as this any more.
            if self._oldest_flight() > 2 * self._timeout:
                self._discard(self._live)
        finally:
            ticket.closed = True
            if ticket.open:
                self._withdraw_closed()
        return ticket.acknowledged

    def is_in_trouble(self) -> bool:
        """Whether, since the last call, Kafka refused something, or keeps something waiting now."""
        failed, self._failed = self._failed, False
        return failed or self._oldest_flight() > TROUBLE_SEC

    def _send(self, records: Sequence[Record], ticket: Ticket) -> None:
        for index, record in enumerate(records):
            key = record.topic, record.partition
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(*key)
            lane.waiting.append((record, ticket, index))
            if lane.task is None and not self._stopped:
                lane.task = asyncio.create_task(self._drive(lane), name=f"publish {record.topic}/{record.partition}")

    def _free(self, size: int) -> None:
        self._bytes -= size
        if self._bytes <= MAX_BYTES_WAITING:
            self._room.set()

    def _withdraw_closed(self) -> None:
        for lane in self._lanes.values():
            if any(ticket.closed for _, ticket, _ in lane.waiting):
                lane.waiting = deque(entry for entry in lane.waiting if not entry[1].closed)

    async def _drive(self, lane: Lane) -> None:
        try:
            while lane.waiting:
                live = self._live or await self._try_to_make()
                if live is None:
                    continue  # whoever waits too long withdraws
                batch, taken = _fill(live, lane)
                acknowledged = False
                try:
                    acknowledged = await self._deliver(live, lane, batch)
                finally:
                    for ticket, index in taken:
                        ticket.settle(index, acknowledged)
        finally:
            lane.task = None

    async def _deliver(self, producer: Any, lane: Lane, batch: Any) -> bool:
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[bool] = loop.create_future()
        lane.landed = landed
        lane.sent_at = loop.time()

        def land(delivery: asyncio.Future[Any]) -> None:
            error = None if delivery.cancelled() else delivery.exception()
            if error is not None:
                self._note(producer, error)
            if not landed.done():
                landed.set_result(error is None and not delivery.cancelled())

        try:
            async with asyncio.timeout(None) as lane.entering:
                delivery = await producer.send_batch(batch, lane.topic, partition=lane.partition)
            delivery.add_done_callback(land)
            lane.entering = None
            return await landed
        except FAILURES as error:
            self._note(producer, error)
            return False
        finally:
            lane.entering = lane.landed = None

    def _note(self, producer: Any, error: BaseException) -> None:
        self._failed = True
        if not getattr(error, "retriable", False) and not isinstance(error, NOT_FATAL):
            self._discard(producer)

    def _oldest_flight(self) -> float:
        since = [lane.sent_at for lane in self._lanes.values() if lane.landed is not None]
        return asyncio.get_running_loop().time() - min(since) if since else 0.0

    async def _try_to_make(self) -> Any:
        try:
            return await self._make()
        except FAILURES:
            await asyncio.sleep(RETRY_SEC)
            return None

    async def _make(self) -> Any:
        async with self._making:
            if self._live is None:
                producer = self._clients.producer()
                try:
                    async with asyncio.timeout(self._timeout):
                        await producer.start()
                except BaseException:
                    await discard_producer(producer)
                    raise
                self._live = producer
            return self._live

    def _discard(self, producer: Any) -> None:
        if producer is None or producer is not self._live:
            return
        self._live = None
        for lane in self._lanes.values():
            if lane.landed is not None and not lane.landed.done():
                lane.landed.set_result(False)
            if lane.entering is not None:  # it would wait for ever for metadata that the closed client never gets
                lane.entering.reschedule(asyncio.get_running_loop().time())
                lane.entering = None
        task = asyncio.create_task(discard_producer(producer), name="discard a producer")
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


def _fill(producer: Any, lane: Lane) -> tuple[Any, list[tuple[Ticket, int]]]:
    batch = producer.create_batch()
    taken: list[tuple[Ticket, int]] = []
    while lane.waiting:
        record, ticket, index = lane.waiting[0]
        added = batch.append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers))
        if added is None:
            break
        lane.waiting.popleft()
        taken.append((ticket, index))
    batch.close()
    return batch, taken
