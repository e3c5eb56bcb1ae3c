"""A partition of the simulated Kafka, and who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from flowkit.ports import Record
from flowkit.testing.machine import Machine
from flowkit.testing.stage import Stage

MOST_RECORDS = 200
# A reader whose link is restored hears of it so much later.
AFTER_BLOCK_SEC = 0.05


class Partition:
    """Records in order, and the readers that want to hear of new ones."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.records: list[Record] = []
        self.readers: dict[Reader, None] = {}

    @property
    def end(self) -> int:
        return len(self.records)

    def append(self, record: Record, tell: Callable[[Reader], None]) -> None:
        self.records.append(Record(record.topic, record.partition, record.value, record.key, record.headers, self.end))
        for reader in self.readers:
            if reader.waits:
                tell(reader)

    def lose(self) -> None:
        self.records = []


Blocked = Callable[[Machine, str, int], float]


class Reader:
    """Reads partitions from where it stands; as a `Tail`, it belongs to no group."""

    def __init__(self, stage: Stage, machine: Machine, blocked_until: Blocked) -> None:
        self.machine = machine
        self.waits = False
        self.stopped = False
        self.paused = False
        self._stage = stage
        self._blocked_until = blocked_until
        self._positions: dict[Partition, int] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._retry_at = 0.0

    def take_over(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions, from these positions on, and no others."""
        for partition in self._positions:
            partition.readers.pop(self, None)
        self._positions = dict(positions)
        for partition in self._positions:
            partition.readers[self] = None
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def fetch(self, timeout: float) -> list[Record]:
        loop = self._stage.loop
        deadline = loop.time() + timeout
        while not (found := self._take()) and loop.time() < deadline:
            self._waiter = loop.create_future()
            self.waits = True
            wake_at = min(deadline, self._retry_at) if self._retry_at > loop.time() else deadline
            alarm = loop.call_at(wake_at, self.wake)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self.waits = False
                self._waiter = None
        return found

    async def stop(self) -> None:
        self.stopped = True
        self.take_over({})
        await asyncio.sleep(0)

    def _take(self) -> list[Record]:
        """What lies there and can be had now; notes when what is blocked may be had."""
        found: list[Record] = []
        self._retry_at = 0.0
        if self.paused:
            return found
        for partition, position in self._positions.items():
            if position == len(partition.records):
                continue
            until = self._blocked_until(self.machine, partition.topic, partition.number)
            if until > self._stage.now:
                retry_at = until + AFTER_BLOCK_SEC
                self._retry_at = min(self._retry_at, retry_at) if self._retry_at else retry_at
                continue
            if position > partition.end:  # all was lost, and less than that has come since: the earliest
                position = 0
            records = partition.records[position : position + MOST_RECORDS]
            self._positions[partition] = position + len(records)
            found += records
        return found
