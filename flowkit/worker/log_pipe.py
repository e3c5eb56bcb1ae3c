"""Brings what attempts say to `logs.v1`: in batches, in order, again until they are acknowledged; never in a handler's
way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from flowkit.ports import Bus, Record
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.logs import SaidBlock, encode_logs
from flowkit.wire.messages import Job
from flowkit.wire.topics import LOG_PARTITIONS, Topics, partition_of
from flowkit.worker.attempt_log import AttemptLog, LogBounds

LINGER_SEC: Final = 0.1
FULL_BYTES: Final = 256 * 1024
"""So much does not wait for more."""
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""What all attempts together have said and Kafka has not acknowledged."""
BLOCK_BYTES: Final = 32 * 1024
BLOCK_LINES: Final = 500
MESSAGE_BYTES: Final = 60 * 1024
FLIGHT_RECORDS: Final = 64
FIRST_PAUSE_SEC: Final = 0.3
LONGEST_PAUSE_SEC: Final = 5.0


class LogPipe:
    """One worker's. `open` gives an attempt its log; a loop over `step` sends; `flush` waits for the rest."""

    def __init__(self, *, bus: Bus, topics: Topics, supervisor: Supervisor, telemetry: Telemetry, worker_id: str,
                 incarnation: str, bounds: LogBounds, clock: Callable[[], float],
                 queue_bytes: int = QUEUE_BYTES) -> None:  # fmt: skip
        self._bus = bus
        self._topic = topics.logs
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._bounds = bounds
        self._clock = clock
        self._most = queue_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._speaking: dict[int, AttemptLog] = {}
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._something = asyncio.Event()
        self._much = asyncio.Event()
        supervisor.loop("logs", self.step)

    def open(self, job: Job) -> AttemptLog:
        """The log of an attempt that begins."""
        return AttemptLog(job, self._bounds, clock=self._clock, room=self._room, wake=self._wake)

    async def step(self) -> None:
        """Wait until somebody has said something, and a moment more; then send it, until it is acknowledged."""
        await self._something.wait()
        try:
            async with asyncio.timeout(LINGER_SEC):
                await self._much.wait()
        except TimeoutError:
            pass
        self._something.clear()
        self._much.clear()
        await self._send(self._take())

    async def flush(self, timeout: float) -> bool:
        """Wait until everything is acknowledged, `timeout` seconds at most; False if something is not."""
        try:
            async with asyncio.timeout(timeout):
                while self._bytes:
                    self._much.set()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self._telemetry.count("log_bytes_lost", self._bytes)
            return False
        return True

    # ------------------------------------------------------------------------------------------ from any thread

    def _room(self, size: int, always: bool) -> bool:
        with self._lock:
            if self._bytes + size > self._most and not always:
                return False
            self._bytes += size
            return True

    def _wake(self, log: AttemptLog) -> None:
        with self._lock:
            known = id(log) in self._speaking
            self._speaking[id(log)] = log
            much = self._bytes >= FULL_BYTES
        if known and not (much and not self._much.is_set()):
            return
        events = (self._something, self._much) if much else (self._something,)
        for event in events:
            if threading.get_ident() == self._thread:
                event.set()
            else:
                with suppress(RuntimeError):  # the loop is closed: nobody sends any more
                    self._loop.call_soon_threadsafe(event.set)

    # ------------------------------------------------------------------------------------------ sending

    def _take(self) -> list[tuple[Record, int]]:
        """Records, each with the bytes of room that its lines have taken."""
        with self._lock:
            speaking, self._speaking = list(self._speaking.values()), {}
        by_partition: dict[int, list[tuple[bytes, int]]] = {}
        for log in speaking:
            partition = partition_of(log.job.task_id, LOG_PARTITIONS)
            blocks = by_partition.setdefault(partition, [])
            blocks += [(block.encode(), sum(map(len, block.rows))) for block in _blocks(log)]
        return [pair for partition, blocks in by_partition.items() for pair in self._records(partition, blocks)]

    def _records(self, partition: int, blocks: Sequence[tuple[bytes, int]]) -> Iterator[tuple[Record, int]]:
        batch: list[bytes] = []
        size = room = 0
        for block, taken in blocks:
            if batch and size + len(block) > MESSAGE_BYTES:
                yield self._record(partition, batch), room
                batch, size, room = [], 0, 0
            batch.append(block)
            size += len(block) + 1
            room += taken
        if batch:
            yield self._record(partition, batch), room

    def _record(self, partition: int, blocks: Sequence[bytes]) -> Record:
        value = encode_logs(self._worker_id, self._incarnation, blocks)
        return Record(self._topic, partition, value, self._worker_id.encode())

    async def _send(self, waiting: list[tuple[Record, int]]) -> None:
        """Each record until it is acknowledged, those of a partition in order. What is said meanwhile has to find
        room, or is cut."""
        pause = FIRST_PAUSE_SEC
        while waiting:
            now, later = waiting[:FLIGHT_RECORDS], waiting[FLIGHT_RECORDS:]
            arrived = await self._bus.publish([record for record, _ in now])
            with self._lock:
                self._bytes -= sum(room for (_, room), there in zip(now, arrived, strict=True) if there)
            late = [pair for pair, there in zip(now, arrived, strict=True) if not there]
            waiting = late + later
            if not late:
                pause = FIRST_PAUSE_SEC
                continue
            self._telemetry.count("log_messages_again", len(late))
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SEC, 2 * pause)


def _blocks(log: AttemptLog) -> Iterator[SaidBlock]:
    taken = log.take()
    if taken is None:
        return
    first, level, until, rows = taken
    job, start = log.job, 0
    while start < len(rows):
        end, size = start, 0
        while end < len(rows) and end - start < BLOCK_LINES and (end == start or size + len(rows[end]) <= BLOCK_BYTES):
            size += len(rows[end]) + 1
            end += 1
        # The level and the time of the whole are those of each part, at most: a filter looks at the lines too.
        yield SaidBlock(job.task_id, job.tenant, job.node, job.attempt, first + start, level, until, rows[start:end])
        start = end
