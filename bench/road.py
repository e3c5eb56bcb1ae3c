"""Bare aiokafka, as fast as it goes: a lane per topic that packs what waits into batches, and a reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

Message = tuple[bytes, bytes, list[tuple[str, bytes]]]
"""Key, value, headers."""

BATCH_BYTES = 256 * 1024


class Lane:
    """Sends to one partition. What comes while a batch is on its way goes with the next; as durably as FlowKit does.
    `task` ends only when something went wrong."""

    def __init__(self, address: str, topic: str) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=address, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
        )
        self._topic = topic
        self._waiting: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()

    async def start(self) -> None:
        await self._producer.start()
        self.task = asyncio.create_task(self._drive())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        await self._producer.stop()

    def send(self, messages: Sequence[Message]) -> None:
        if messages:
            self._waiting.extend(messages)
            self._empty.clear()
            self._wake.set()

    async def flush(self) -> None:
        """Wait until all is acknowledged."""
        await self._empty.wait()

    async def _drive(self) -> None:
        while True:
            self._empty.set()
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._producer.create_batch()
                while self._waiting:
                    key, value, headers = self._waiting[0]
                    if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                        break
                    self._waiting.popleft()
                delivered = await self._producer.send_batch(batch, self._topic, partition=0)
                await delivered


class Reader:
    """Reads one partition from its end."""

    def __init__(self, address: str, topic: str) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)
        self._place = TopicPartition(topic, 0)

    async def start(self) -> None:
        await self._consumer.start()
        self._consumer.assign([self._place])
        await self._consumer.seek_to_end(self._place)
        await self._consumer.position(self._place)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def fetch(self) -> list[bytes]:
        found: dict[Any, list[Any]] = await self._consumer.getmany(timeout_ms=1000)
        return [record.value for records in found.values() for record in records]
