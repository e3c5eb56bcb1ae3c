"""Reads from Kafka: tails of no group, and members of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from flowkit.adapters.kafka_client import FAILURES, Clients, is_broken, stop_consumer
from flowkit.adapters.rebalance import tell
from flowkit.ports import Rebalanced, Record

MAX_RECORDS = 2_000
ASK_SEC = 2.0
COMMIT_SEC = 5.0
RETRY_SEC = 0.2
# So many fetches in a row that fail: the consumer is broken, not the broker away (that is silence).
FAILED_FETCHES = 5

Found = Mapping[Any, list[Any]]


class Pull:
    """Runs `getmany` in a task of its own: to cancel it breaks the consumer, and in a rebalance it overstays."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._task: asyncio.Task[Found] | None = None

    async def wait(self, timeout: float) -> None:
        """Wait until there is something to take, or `timeout` is over."""
        if self._task is None:
            getting = self._consumer.getmany(timeout_ms=int(timeout * 1000), max_records=MAX_RECORDS)
            self._task = asyncio.create_task(getting)
        # A little longer than getmany itself waits: else an empty answer would stay for the next call.
        await asyncio.wait({self._task}, timeout=timeout + 0.02)

    def take(self) -> Found:
        """What has come, once. Raises what getmany raised."""
        if self._task is None or not self._task.done():
            return {}
        task, self._task = self._task, None
        if task.cancelled():  # from within aiokafka; it must not look as if our caller were cancelled
            raise KafkaError("the consumer cancelled its own fetch")
        return task.result()

    def first_offsets(self) -> dict[Any, int]:
        """Where that begins which has come and was not taken."""
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return {}
        return {part: messages[0].offset for part, messages in task.result().items()}

    def forget(self) -> None:
        """Drop what has come and was not taken."""
        if self.first_offsets():
            self._task = None

    async def end(self) -> None:
        """Only for a consumer that is stopped already."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen


class Source:
    """A consumer that is made anew when it turns out to be broken."""

    def __init__(self) -> None:
        self.consumer: Any = None
        self.pull: Pull | None = None
        self.stopped = False
        self._failures = 0

    def use(self, consumer: Any) -> None:
        if self.stopped:
            raise TimeoutError("stopped while it was opened")
        self.consumer, self.pull, self._failures = consumer, Pull(consumer), 0

    async def close(self) -> None:
        consumer, pull, self.consumer, self.pull = self.consumer, self.pull, None, None
        if consumer is not None:
            await stop_consumer(consumer)
        if pull is not None:
            await pull.end()

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.close()

    def judge(self, failed: bool) -> bool:
        """Whether to make the consumer anew, after a fetch that failed or not."""
        self._failures = self._failures + 1 if failed else 0
        return self._failures >= FAILED_FETCHES or is_broken(self.consumer)


def records_of(found: Found) -> list[Record]:
    return [
        Record(message.topic, message.partition, message.value, message.key, _whole(message.headers), message.offset)
        for messages in found.values()
        for message in messages
    ]


async def _rest(until: float, at_most: float = RETRY_SEC) -> None:
    await asyncio.sleep(max(0.0, min(at_most, until - asyncio.get_running_loop().time())))


class KafkaTail:
    """A `Tail`. Its positions are explicit and found before it opens; no committed offset, no reset plays a part."""

    def __init__(self, clients: Clients, topic: str, partitions: Iterable[int]) -> None:
        self._clients = clients
        self._parts = [TopicPartition(topic, partition) for partition in partitions]
        self._next: dict[Any, int] = {}
        self._source = Source()

    async def open(self, timeout: float) -> None:
        """Stand at the end of every partition. Raises what aiokafka raises when the broker is away."""
        consumer = self._clients.consumer()
        try:
            async with asyncio.timeout(timeout):
                await consumer.start()
                # One that is opened anew goes on where it stood.
                positions = self._next or await consumer.end_offsets(self._parts)
            if set(positions) != set(self._parts):
                raise TimeoutError(f"Kafka does not tell the end of {self._parts}")
            # Without a pause in between, in which aiokafka would look for positions of its own.
            consumer.assign(self._parts)
            for part, offset in positions.items():
                consumer.seek(part, offset)
            self._source.use(consumer)
        except BaseException:
            await stop_consumer(consumer)
            raise
        self._next = dict(positions)

    async def fetch(self, timeout: float) -> list[Record]:
        deadline = asyncio.get_running_loop().time() + timeout
        source = self._source
        if source.stopped:
            await _rest(deadline, timeout)
            return []

        found: Found = {}
        failed = False
        try:
            if source.pull is None:
                await self.open(self._clients.request_sec)
            if source.pull is not None:
                await source.pull.wait(max(0.0, deadline - asyncio.get_running_loop().time()))
            if source.pull is not None:  # not stopped meanwhile
                found = source.pull.take()
        except OffsetOutOfRangeError as error:
            await self._jump(error.args[0])
        except FAILURES:
            failed = True
            await _rest(deadline)

        for part, messages in found.items():
            self._next[part] = messages[-1].offset + 1
        if not found and source.judge(failed):
            await source.close()
        return records_of(found)

    async def stop(self) -> None:
        await self._source.stop()

    async def _jump(self, lost: Mapping[Any, int]) -> None:
        # Behind the log's start: we slept too long, and what is left is old. Beyond its end: the log is a new one.
        consumer = self._source.consumer
        with suppress(*FAILURES):
            async with asyncio.timeout(ASK_SEC):
                starts = await consumer.beginning_offsets(list(lost))
                ends = await consumer.end_offsets(list(lost))
            for part, offset in lost.items():
                self._next[part] = starts[part] if offset > ends[part] else ends[part]
                consumer.seek(part, self._next[part])


class KafkaMember(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka describes no types
    """A `Member`. It gives the records of an assignment only once `on_assigned` is over."""

    def __init__(
        self, clients: Clients, lookup: Any, topic: str, group: str, on_revoked: Rebalanced, on_assigned: Rebalanced
    ) -> None:
        self._clients = clients
        self._lookup = lookup
        self._topic = topic
        self._group = group
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._source = Source()
        self._owned: frozenset[int] = frozenset()
        self._settled = asyncio.Event()

    async def open(self, timeout: float) -> None:
        """Begin to join. Raises what aiokafka raises when the broker is away."""
        consumer = self._clients.member(self._group)
        try:
            async with asyncio.timeout(timeout):
                await consumer.start()
            self._source.use(consumer)
        except BaseException:
            await stop_consumer(consumer)
            raise
        consumer.subscribe([self._topic], listener=self)

    # aiokafka calls these two, within a rebalance.

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        await self._revoke(frozenset(part.partition for part in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._owned = frozenset(part.partition for part in assigned)
        await tell(self._on_assigned, self._owned)
        self._settled.set()

    async def fetch(self, timeout: float) -> list[Record]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        source = self._source
        if source.stopped:
            await _rest(deadline, timeout)
            return []

        records: list[Record] = []
        failed = False
        try:
            if source.pull is None:
                await self.open(self._clients.request_sec)
            # Also within a rebalance: aiokafka stands still until its errors were taken from getmany.
            if source.pull is not None:
                await source.pull.wait(max(0.0, deadline - loop.time()))
            await self._wait_settled(deadline)
            if source.pull is not None and self._settled.is_set():
                records = records_of(source.pull.take())
        except FAILURES:
            failed = True
            await _rest(deadline)

        if not records and source.judge(failed):
            await self._revoke(self._owned)
            await source.close()
        return records

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        if self._source.consumer is None or not self._owned.issuperset(offsets):
            return False
        if not offsets:
            return True
        try:
            async with asyncio.timeout(COMMIT_SEC):
                await self._source.consumer.commit(
                    {TopicPartition(self._topic, partition): offset for partition, offset in offsets.items()}
                )
        except FAILURES:
            return False
        return True

    async def end_offset(self, partition: int) -> int | None:
        part = TopicPartition(self._topic, partition)
        try:
            async with asyncio.timeout(ASK_SEC):
                ends = await self._lookup.end_offsets([part])
        except FAILURES:
            return None
        return int(ends[part]) if part in ends else None

    def position(self, partition: int) -> int | None:
        source = self._source
        if partition not in self._owned or source.pull is None:
            return None
        part = TopicPartition(self._topic, partition)
        if (waiting := source.pull.first_offsets().get(part)) is not None:
            return waiting
        # aiokafka's own position() waits; this one is what it would answer.
        subscription = source.consumer._subscription.subscription
        state = subscription.assignment.state_value(part) if subscription and subscription.assignment else None
        position: int | None = state._position if state is not None else None
        return position

    async def stop(self) -> None:
        await self._source.stop()
        self._owned = frozenset()

    async def _revoke(self, partitions: frozenset[int]) -> None:
        self._settled.clear()
        if partitions:
            await tell(self._on_revoked, partitions)
        if self._source.pull is not None:
            self._source.pull.forget()  # it will come again, to whoever is the owner then
        self._owned = frozenset()

    async def _wait_settled(self, deadline: float) -> None:
        if not self._settled.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._settled.wait()


def _whole(headers: Any) -> tuple[tuple[str, bytes], ...]:
    """A header may have no value at all; nobody here tells that from an empty one."""
    if not headers:
        return ()
    return tuple((name, b"" if value is None else value) for name, value in headers)
