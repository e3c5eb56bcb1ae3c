"""Rings between the workers that write and read streams: what is new, and small blocks themselves.

A ring may be lost, doubled, late: whoever waits for one looks into the store as well, from time to time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable

from flowkit.core.reports import Streams
from flowkit.errors import Corrupt
from flowkit.ports import Bus, Record, StreamId, Tail
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Job
from flowkit.wire.stream import RING_BYTES, Ring, decode_rings, encode_rings
from flowkit.wire.topics import MAX_MESSAGE_BYTES, STREAM_PARTITIONS, Topics, partition_of
from flowkit.worker.outbox import Letter, letter

FETCH_SEC = 5.0
FULL_BYTES = MAX_MESSAGE_BYTES - 4 * 1024
MOST_WAITING = 256

Worker = tuple[str, str]
"""A worker's id and its incarnation."""
Listener = Callable[[Ring], None]


class StreamHub:
    """`send` takes reports for the coordinators."""

    def __init__(self, *, bus: Bus, topics: Topics, supervisor: Supervisor, telemetry: Telemetry, worker_id: str,
                 incarnation: str, send: Callable[[Letter], None]) -> None:  # fmt: skip
        self.me: Worker = (worker_id, incarnation)
        self._bus = bus
        self._topics = topics
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._send = send
        self._key = worker_id.encode()
        self._tail: Tail | None = None
        self._listeners: dict[StreamId, list[Listener]] = {}
        self._waiting: dict[Worker, deque[Ring]] = {}
        self._sending: set[Worker] = set()

    async def open(self) -> None:
        """Begin to listen: what is rung from now on will be heard."""
        partition = partition_of(self.me[0], STREAM_PARTITIONS)
        self._tail = await self._bus.tail(self._topics.streams, [partition])
        self._supervisor.loop("rings", self.step)

    async def close(self) -> None:
        if self._tail is not None:
            await self._tail.stop()

    def report(self, job: Job, *, begun: bool) -> None:
        """Tell the coordinator that a stream has begun, or ask which of an attempt's partners have ended."""
        self._send(letter(job, Streams(job.node, job.attempt, job.token, begun)))

    # ------------------------------------------------------------------------------------------ hearing

    def listen(self, stream: StreamId, listener: Listener) -> Callable[[], None]:
        """Hear what is rung about a stream; the answer ends that."""
        self._listeners.setdefault(stream, []).append(listener)

        def leave() -> None:
            left = self._listeners.get(stream, [])
            if listener in left:
                left.remove(listener)
            if not left:
                self._listeners.pop(stream, None)

        return leave

    async def step(self) -> None:
        """One fetch of `streams`."""
        assert self._tail is not None
        for record in await self._tail.fetch(FETCH_SEC):
            if record.key != self._key:
                continue
            try:
                worker, incarnation, rings = decode_rings(record.value)
            except Corrupt:
                self._telemetry.count("unreadable_rings")
                continue
            if record.refused:  # of another pool, most likely: what it tells of is to be read in the store
                self._telemetry.count("unverified_rings", len(rings))
                rings = [ring.bare() for ring in rings]
            if (worker, incarnation) == self.me:
                for ring in rings:
                    self._hear(ring)

    def _hear(self, ring: Ring) -> None:
        for listener in list(self._listeners.get(ring.stream, ())):
            listener(ring)

    # ------------------------------------------------------------------------------------------ ringing

    def ring(self, ring: Ring, workers: Iterable[Worker], *, readers: Collection[Worker] = ()) -> None:
        """Tell these workers of a block; those among the `readers` get a small one whole."""
        self._hear(ring)  # in this process, whoever it concerns
        bare: Ring | None = None
        for worker in workers:
            if worker == self.me:
                continue
            if worker not in readers or len(ring.body) > RING_BYTES:
                bare = bare or ring.bare()
                self._queue(worker, bare)
            else:
                self._queue(worker, ring)

    def _queue(self, worker: Worker, ring: Ring) -> None:
        waiting = self._waiting.setdefault(worker, deque(maxlen=MOST_WAITING))
        waiting.append(ring)  # of too many the oldest go: the last one tells all that they do
        if worker not in self._sending:
            self._sending.add(worker)
            self._supervisor.spawn(self._deliver(worker), "rings")

    async def _deliver(self, worker: Worker) -> None:
        try:
            while waiting := self._waiting.get(worker):
                value = encode_rings(*worker, self._taken(waiting))
                partition = partition_of(worker[0], STREAM_PARTITIONS)
                record = Record(self._topics.streams, partition, value, worker[0].encode())
                if not (await self._bus.publish([record]))[0]:
                    self._telemetry.count("rings_lost")
        finally:
            self._sending.discard(worker)
            if not self._waiting.get(worker):
                self._waiting.pop(worker, None)

    @staticmethod
    def _taken(waiting: deque[Ring]) -> list[Ring]:
        rings, room = [waiting.popleft()], FULL_BYTES
        room -= rings[0].weight
        while waiting and waiting[0].weight <= room:
            rings.append(waiting.popleft())
            room -= rings[-1].weight
        return rings
