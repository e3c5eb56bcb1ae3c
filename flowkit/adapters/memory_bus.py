"""Carries the engine's messages inside this process: the bus of embedded mode, and Kafka's twin in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flowkit.adapters.limits import check_record
from flowkit.adapters.memory_broker import KEEP_READ, LOOK_EVERY, Group, Log, MemoryBroker
from flowkit.alarms import Alarms
from flowkit.ports import Member, Rebalanced, Record, Tail, TopicSpec

MAX_RECORDS = 2_000
SESSION_SEC = 6.0


class MemoryBus:
    """A `Bus` over a `MemoryBroker`. Each process has its own; `crash` ends one as a killed process would."""

    def __init__(self, broker: MemoryBroker | None = None, *, session_sec: float = SESSION_SEC) -> None:
        self.broker = broker if broker is not None else MemoryBroker()
        self._session_sec = session_sec
        self._alarms: Alarms[None] = Alarms()
        self._readers: list[MemoryTail | MemoryMember] = []

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def stop(self) -> None:
        for reader in self._readers:
            await reader.stop()
        self._readers.clear()

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        await asyncio.sleep(0)
        for name, spec in topics.items():
            self.broker.ensure(name, spec)

    def partitions(self, topic: str) -> int:
        return len(self.broker.logs(topic))

    def heard(self, topic: str) -> bool:
        # Whoever opens a tail later begins at the end, and nobody outside this process can join a group.
        return any(log.tails or log.committed for log in self.broker.topics.get(topic, ()))

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        for record in records:
            check_record(record, self.partitions(record.topic))
        if not self.broker.up:
            await asyncio.sleep(0)  # who tries again without a pause must not starve the others
        return [self.broker.append(record) for record in records]

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        await asyncio.sleep(0)
        member = MemoryMember(self.broker, self._alarms, topic, group, on_revoked, on_assigned)
        self._adopt(member)
        return member

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        await asyncio.sleep(0)
        logs = self.broker.logs(topic)
        wanted = range(len(logs)) if partitions is None else sorted(set(partitions))
        tail = MemoryTail(self.broker, self._alarms, {partition: logs[partition] for partition in wanted})
        self._adopt(tail)
        return tail

    async def describe(self) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        topics = {name: len(logs) for name, logs in self.broker.topics.items()}
        return {"kind": "memory", "address": "this process", "topics": topics}

    def crash(self) -> None:
        """Fall silent at once, without a word: a group notices only when the session has timed out."""
        for reader in self._readers:
            reader.fall_silent(self._session_sec)
        self._readers.clear()

    def _adopt(self, reader: MemoryTail | MemoryMember) -> None:
        self._readers = [known for known in self._readers if not known.stopped]
        self._readers.append(reader)


class _Sleeper:
    """One fetch at a time waits here: woken by a publish, or by its timeout."""

    __slots__ = ("_alarms", "_cut", "_rested", "_waiter")

    def __init__(self, alarms: Alarms[None]) -> None:
        self._alarms = alarms
        self._waiter: asyncio.Future[None] | None = None
        self._cut = False
        self._rested = False

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cut(self) -> None:
        """End the fetch that waits now. A later one sleeps: who polls a stopped reader must not spin."""
        self._cut = self._waiter is not None
        self.wake()

    async def fetch(self, timeout: float, take: Callable[[], list[Record]]) -> list[Record]:
        if not self._rested:
            await asyncio.sleep(0)  # a loop that polls without a pause must not starve the others
        self._rested = False
        if found := take():
            return found
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not found and (left := deadline - loop.time()) > 0:
            self._waiter = loop.create_future()
            try:
                await self._alarms.sleep(self._waiter, left)
            finally:
                self._waiter = None
            self._rested = True
            if self._cut:
                self._cut = False
                break
            found = take()
        return found


class MemoryTail:
    """A `Tail`: its positions live in the logs, which keep for it what it has not read."""

    def __init__(self, broker: MemoryBroker, alarms: Alarms[None], logs: Mapping[int, Log]) -> None:
        self.stopped = False
        self._broker = broker
        self._logs = list(logs.values())
        self._sleeper = _Sleeper(alarms)
        for log in self._logs:
            log.tails[self] = log.end

    def wake(self) -> None:
        self._sleeper.wake()

    async def fetch(self, timeout: float) -> list[Record]:
        return await self._sleeper.fetch(timeout, self._take)

    async def stop(self) -> None:
        self._end()
        await asyncio.sleep(0)

    def fall_silent(self, session_sec: float) -> None:
        self._end()

    def _end(self) -> None:
        self.stopped = True
        self._sleeper.cut()
        for log in self._logs:
            if log.tails.pop(self, None) is not None:
                log.trim()

    def _take(self) -> list[Record]:
        found: list[Record] = []
        if self.stopped or not self._logs or not self._broker.up:
            return found
        for log in self._logs:
            records = log.read(log.tails[self], MAX_RECORDS - len(found))
            if records:
                log.tails[self] = records[-1].offset + 1
                if len(log.records) >= KEEP_READ + LOOK_EVERY:
                    log.trim()
                found += records
        self._logs.append(self._logs.pop(0))  # the next fetch begins elsewhere: no partition starves another
        return found


class MemoryMember:
    """A `Member`: its group tells it which partitions it owns."""

    def __init__(
        self, broker: MemoryBroker, alarms: Alarms[None], topic: str, group: str, on_revoked: Rebalanced,
        on_assigned: Rebalanced,
    ) -> None:  # fmt: skip
        self.on_revoked = on_revoked
        self.on_assigned = on_assigned
        self.owned: frozenset[int] = frozenset()
        self.paused = True
        self.stopped = False
        self._positions: dict[int, int] = {}
        self._turns: list[int] = []
        self._sleeper = _Sleeper(alarms)
        self._broker = broker
        self._logs = broker.logs(topic)
        self._group: Group = broker.group(topic, group)
        self._group.join(self)

    def wake(self) -> None:
        self._sleeper.wake()

    def take_over(self, positions: Mapping[int, int]) -> None:
        self._positions = dict(positions)
        self._turns = sorted(positions)

    async def fetch(self, timeout: float) -> list[Record]:
        return await self._sleeper.fetch(timeout, self._take)

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        await asyncio.sleep(0)
        return not self.stopped and self._broker.up and self._group.commit(self, offsets)

    async def end_offset(self, partition: int) -> int | None:
        await asyncio.sleep(0)
        return self._logs[partition].end if self._broker.up and not self.stopped else None

    def position(self, partition: int) -> int | None:
        return self._positions.get(partition) if partition in self.owned else None

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._sleeper.cut()
            self._group.leave(self)
        await asyncio.sleep(0)

    def fall_silent(self, session_sec: float) -> None:
        self.stopped = True
        self.on_revoked = self.on_assigned = _nobody_listens
        asyncio.get_running_loop().call_later(session_sec, self._group.leave, self)

    def _take(self) -> list[Record]:
        found: list[Record] = []
        if self.stopped or self.paused or not self._turns or not self._broker.up:
            return found
        for partition in self._turns:
            records = self._logs[partition].read(self._positions[partition], MAX_RECORDS - len(found))
            if records:
                self._positions[partition] = records[-1].offset + 1
                found += records
        self._turns.append(self._turns.pop(0))  # as in MemoryTail
        return found


async def _nobody_listens(partitions: frozenset[int]) -> None:
    pass
