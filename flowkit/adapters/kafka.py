"""Carries the engine's messages over Apache Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flowkit.adapters.kafka_client import FAILURES, Clients, stop_consumer
from flowkit.adapters.kafka_probe import Refusal
from flowkit.adapters.kafka_publisher import Publisher
from flowkit.adapters.kafka_readers import KafkaMember, KafkaTail
from flowkit.adapters.kafka_topics import ensure
from flowkit.adapters.limits import check_record
from flowkit.errors import BusUnavailable, ConfigError
from flowkit.ports import Member, Rebalanced, Record, Tail, TopicSpec

RETRY_SEC = 0.5
WATCH_SEC = 1.0


class KafkaBus:
    """A `Bus` on a Kafka cluster.

    `address` is `host:port`, several separated by commas. `security` goes to aiokafka as it is: `KafkaSecurity` makes
    it of the settings. `publish_timeout` bounds each `publish`, `start_timeout` whatever connects. `replication`
    defaults to 3, or to as many brokers as there are.
    """

    def __init__(
        self,
        address: str,
        *,
        client_id: str = "flowkit",
        security: Mapping[str, Any] | None = None,
        publish_timeout: float = 5.0,
        start_timeout: float = 10.0,
        session_timeout: float = 6.0,
        replication: int | None = None,
    ) -> None:
        self._clients = Clients(address, client_id, security or {}, session_sec=session_timeout)
        self._publish_timeout = publish_timeout
        self._start_timeout = start_timeout
        self._replication = replication
        self._topics: dict[str, TopicSpec] = {}
        self._publisher: Publisher | None = None
        self._lookup: Any = None
        self._readers: list[KafkaTail | KafkaMember] = []
        self._watching: asyncio.Task[None] | None = None
        self._refusal: Refusal | None = None

    # life

    async def start(self) -> None:
        self._refusal = None
        try:
            async with asyncio.timeout(self._start_timeout):
                await self._connect()
        except TimeoutError as error:
            await self.stop()
            if self._refusal is not None:
                raise self._clients.refused(self._refusal) from error
            raise self._clients.unavailable(_root_of(error)) from error
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._watch(), name="watch the Kafka topics")

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            self._watching = None
        readers, self._readers = self._readers, []
        await asyncio.gather(*(reader.stop() for reader in readers))
        if self._publisher is not None:
            publisher, self._publisher = self._publisher, None
            await publisher.stop()
        if self._lookup is not None:
            lookup, self._lookup = self._lookup, None
            await stop_consumer(lookup)

    # topics

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        self._started()
        try:
            async with self._clients.admin(self._start_timeout) as admin:
                await ensure(admin, topics, self._replication)
        except FAILURES as error:
            raise self._clients.unavailable(error) from error
        self._topics.update(topics)

    def partitions(self, topic: str) -> int:
        if topic not in self._topics:
            raise ValueError(f"no topic {topic!r}: call ensure_topics first")
        return self._topics[topic].partitions

    def heard(self, topic: str) -> bool:
        return True

    # messages

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        size = 0
        for record in records:
            size += check_record(record, self.partitions(record.topic))
        if self._publisher is None:
            return [False] * len(records)
        return await self._publisher.publish(records, size)

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        self.partitions(topic)
        self._started()
        member = KafkaMember(self._clients, self._lookup, topic, group, on_revoked, on_assigned)
        await self._open(member)
        return member

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        everything = range(self.partitions(topic))
        self._started()
        tail = KafkaTail(self._clients, topic, everything if partitions is None else sorted(set(partitions)))
        await self._open(tail)
        return tail

    # for the operator

    async def describe(self) -> Mapping[str, Any]:
        try:
            async with self._clients.admin(self._start_timeout) as admin:
                cluster = await admin.describe_cluster()
                topics = await admin.describe_topics()
        except FAILURES as error:
            raise self._clients.unavailable(error) from error
        return {
            "kind": "kafka",
            "address": self._clients.address,
            "brokers": [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]],
            "topics": {topic["topic"]: len(topic["partitions"]) for topic in topics if topic["topic"] in self._topics},
        }

    # how

    async def _connect(self) -> None:
        try:
            self._clients.check()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the security settings for Kafka: {error}") from error
        publisher = Publisher(self._clients, timeout=self._publish_timeout)
        failure: BaseException | None = None
        while True:
            try:
                await publisher.start()
                self._publisher = publisher
                self._lookup = self._clients.consumer()
                await self._lookup.start()
                return
            except (*FAILURES, ValueError) as error:  # a ValueError: whoever answers does not know the password either
                failure = error
            if (refused := await self._clients.why_refused()) is not None:
                self._refusal = refused
                if refused.final:
                    raise self._clients.refused(refused) from failure
            try:
                await asyncio.sleep(RETRY_SEC)  # it may be just starting, as we are
            except asyncio.CancelledError as cancelled:
                raise cancelled from failure

    async def _open(self, reader: KafkaTail | KafkaMember) -> None:
        try:
            await reader.open(self._start_timeout)
        except FAILURES as error:
            raise self._clients.unavailable(error) from error
        self._readers.append(reader)

    async def _watch(self) -> None:
        # Topics vanish where a broker comes back with an empty disk. aiokafka then asks for them without a pause.
        told = ""
        while True:
            await asyncio.sleep(WATCH_SEC)
            if self._publisher is None or not self._publisher.is_in_trouble():
                continue
            try:
                async with self._clients.admin(self._start_timeout) as admin:
                    await ensure(admin, self._topics, self._replication)
            except FAILURES:
                pass  # away: next time
            except ConfigError as error:
                if str(error) != told:
                    told = str(error)
                    asyncio.get_running_loop().call_exception_handler({"message": told, "exception": error})

    def _started(self) -> None:
        if self._publisher is None:
            raise BusUnavailable(f"the bus to Kafka at {self._clients.address} is not started")


def _root_of(error: BaseException) -> BaseException:
    """What had failed until the time was over: beneath the timeout and its cancellation."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
