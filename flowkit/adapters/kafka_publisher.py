"""Sends records to Kafka, and says of each within a bounded time whether Kafka has it.

aiokafka's `send` costs 10 us of CPU per record and a future each; a batch costs 1.5 us per record. So records wait
here, one lane per partition, and go out as one batch as soon as the batch before them is acknowledged. That needs no
task: a producer that knows the topic takes a batch at once, and tells later what became of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
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
class Flight:
    """A batch that is on its way. `entering` is there while the producer does not take it yet, which may last as long
    as the topic's metadata do."""

    producer: Any
    taken: list[tuple[Ticket, int]]
    sent_at: float
    entering: asyncio.Task[Any] | None = None


@dataclass(slots=True, eq=False)
class Lane:
    """The records for one partition that are not on their way yet, and the batch that is. `due`: the next leaves in
    this turn of the loop."""

    topic: str
    partition: int
    waiting: deque[tuple[Record, Ticket, int]] = field(default_factory=deque)
    flight: Flight | None = None
    due: bool = False


class Publisher:
    """One idempotent producer, replaced when it is fenced, out of sequence or stuck."""

    def __init__(self, clients: Clients, *, timeout: float) -> None:
        self._clients = clients
        self._timeout = timeout
        self._failed = False
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._ready: list[Lane] = []
        self._live: Any = None
        self._making = asyncio.Lock()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._remaking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[Any]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Raises what aiokafka raises when the broker is away."""
        await self._make()

    async def stop(self) -> None:
        self._stopped = True
        if self._remaking is not None:
            self._remaking.cancel()
            self._ending.add(self._remaking)
        if self._live is not None:
            self._discard(self._live)
        if self._ending:
            await asyncio.wait(set(self._ending))
        for lane in self._lanes.values():
            for _, ticket, index in lane.waiting:
                ticket.settle(index, False)
        self._lanes.clear()

    async def publish(self, records: Sequence[Record], size: int) -> list[bool]:
        """Which of them Kafka has. They weigh `size` bytes."""
        ticket = Ticket([False] * len(records), len(records), asyncio.get_running_loop().create_future())
        if not records or self._stopped:
            return ticket.acknowledged
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
        lanes = self._lanes
        for index, record in enumerate(records):
            key = record.topic, record.partition
            lane = lanes.get(key)
            if lane is None:
                lane = lanes[key] = Lane(*key)
            lane.waiting.append((record, ticket, index))
            if lane.flight is None and not lane.due:
                self._soon(lane)

    def _soon(self, lane: Lane) -> None:
        """Send what waits, with all that comes for it in this turn of the loop."""
        if not self._ready:
            asyncio.get_running_loop().call_soon(self._depart)
        lane.due = True
        self._ready.append(lane)

    def _free(self, size: int) -> None:
        self._bytes -= size
        if self._bytes <= MAX_BYTES_WAITING:
            self._room.set()

    def _withdraw_closed(self) -> None:
        for lane in self._lanes.values():
            if any(ticket.closed for _, ticket, _ in lane.waiting):
                lane.waiting = deque(entry for entry in lane.waiting if not entry[1].closed)

    def _depart(self) -> None:
        ready, self._ready = self._ready, []
        for lane in ready:
            lane.due = False
        for lane in ready:
            if lane.waiting and lane.flight is None and not self._stopped:
                if self._live is not None:
                    self._launch(self._live, lane)
                elif self._remaking is None:
                    self._remaking = asyncio.create_task(self._remake(), name="make a producer")

    def _launch(self, producer: Any, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        batch, taken = _fill(producer, lane)
        flight = lane.flight = Flight(producer, taken, loop.time())
        try:
            delivery = _at_once(producer.send_batch(batch, lane.topic, partition=lane.partition))
        except FAILURES as error:
            self._note(producer, error)
            self._land(lane, flight, False)
            return
        if delivery is not None:
            delivery.add_done_callback(partial(self._delivered, lane, flight))
            return
        flight.entering = loop.create_task(
            producer.send_batch(batch, lane.topic, partition=lane.partition),
            name=f"publish {lane.topic}/{lane.partition}",
        )
        self._ending.add(flight.entering)
        flight.entering.add_done_callback(partial(self._entered, lane, flight))

    def _entered(self, lane: Lane, flight: Flight, entering: asyncio.Task[Any]) -> None:
        self._ending.discard(entering)
        flight.entering = None
        if entering.cancelled():
            self._land(lane, flight, False)
        elif (error := entering.exception()) is not None:
            self._note(flight.producer, error)
            self._land(lane, flight, False)
        else:
            entering.result().add_done_callback(partial(self._delivered, lane, flight))

    def _delivered(self, lane: Lane, flight: Flight, delivery: asyncio.Future[Any]) -> None:
        error = None if delivery.cancelled() else delivery.exception()
        if error is not None:
            self._note(flight.producer, error)
        self._land(lane, flight, error is None and not delivery.cancelled())

    def _land(self, lane: Lane, flight: Flight, acknowledged: bool) -> None:
        """Say what became of a batch, once."""
        if lane.flight is not flight:
            return
        lane.flight = None
        for ticket, index in flight.taken:
            ticket.settle(index, acknowledged)
        if lane.waiting:
            self._soon(lane)

    def _note(self, producer: Any, error: BaseException) -> None:
        self._failed = True
        if not getattr(error, "retriable", False) and not isinstance(error, NOT_FATAL):
            self._discard(producer)

    def _oldest_flight(self) -> float:
        since = [lane.flight.sent_at for lane in self._lanes.values() if lane.flight is not None]
        return asyncio.get_running_loop().time() - min(since) if since else 0.0

    async def _remake(self) -> None:
        """Make a producer for as long as somebody waits: whoever waits too long withdraws."""
        try:
            while self._live is None and any(lane.waiting for lane in self._lanes.values()):
                try:
                    await self._make()
                except FAILURES:
                    await asyncio.sleep(RETRY_SEC)
        finally:
            self._remaking = None
        for lane in self._lanes.values():
            if lane.waiting and lane.flight is None and not lane.due:
                self._soon(lane)

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
            if (flight := lane.flight) is None:
                continue
            if flight.entering is not None:  # it would wait for ever for metadata that the closed client never gets
                flight.entering.cancel()
            self._land(lane, flight, False)
        task = asyncio.create_task(discard_producer(producer), name="discard a producer")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _fill(producer: Any, lane: Lane) -> tuple[Any, list[tuple[Ticket, int]]]:
    batch = producer.create_batch()
    taken: list[tuple[Ticket, int]] = []
    waiting, append = lane.waiting, batch.append
    for record, ticket, index in waiting:
        if append(key=record.key, value=record.value, timestamp=None, headers=list(record.headers)) is None:
            break
        taken.append((ticket, index))
    for _ in taken:
        waiting.popleft()
    batch.close()
    return batch, taken


def _at_once(entering: Coroutine[Any, Any, Any]) -> Any:
    """Its answer where it need not wait for anything; else None, and it has not happened."""
    try:
        entering.send(None)
    except StopIteration as done:
        return done.value
    entering.close()
    return None
