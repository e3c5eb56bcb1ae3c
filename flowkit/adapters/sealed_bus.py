"""A bus whose messages are signed when they leave and looked at when they come, whatever bus carries them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flowkit.ports import Bus, Member, Rebalanced, Record, Tail, TopicSpec
from flowkit.wire.seals import Seals


class SealedBus:
    """A `Bus`. What is refused is handed over all the same, with `refused` set: its reader owes it an offset and a
    letter to `dead`."""

    def __init__(self, bus: Bus, seals: Seals) -> None:
        self._bus = bus
        self.seals = seals

    async def start(self) -> None:
        await self._bus.start()

    async def stop(self) -> None:
        await self._bus.stop()

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        await self._bus.ensure_topics(topics)

    def partitions(self, topic: str) -> int:
        return self._bus.partitions(topic)

    def heard(self, topic: str) -> bool:
        return self._bus.heard(topic)

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        return await self._bus.publish([self.seals.seal(record) for record in records])

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        return _Member(await self._bus.join(topic, group, on_revoked=on_revoked, on_assigned=on_assigned), self.seals)

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        return _Tail(await self._bus.tail(topic, partitions), self.seals)

    async def describe(self) -> Mapping[str, Any]:
        return await self._bus.describe()


class _Tail:
    def __init__(self, tail: Tail, seals: Seals) -> None:
        self._tail = tail
        self._seals = seals

    async def fetch(self, timeout: float) -> list[Record]:
        return [self._seals.look(record) for record in await self._tail.fetch(timeout)]

    async def stop(self) -> None:
        await self._tail.stop()


class _Member:
    def __init__(self, member: Member, seals: Seals) -> None:
        self._member = member
        self._seals = seals

    async def fetch(self, timeout: float) -> list[Record]:
        return [self._seals.look(record) for record in await self._member.fetch(timeout)]

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        return await self._member.commit(offsets)

    async def end_offset(self, partition: int) -> int | None:
        return await self._member.end_offset(partition)

    def position(self, partition: int) -> int | None:
        return self._member.position(partition)

    async def stop(self) -> None:
        await self._member.stop()
