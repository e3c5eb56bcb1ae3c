"""aiokafka, made the way FlowKit needs it: what producers, consumers and the admin client have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from flowkit.adapters import missing
from flowkit.errors import BusUnavailable

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.client import AIOKafkaClient
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from aiokafka.errors import (
        ClusterAuthorizationFailedError,
        ConsumerStoppedError,
        GroupAuthorizationFailedError,
        KafkaError,
        TopicAuthorizationFailedError,
    )

    from flowkit.adapters.kafka_probe import Refusal, refusal
except ImportError as error:
    raise missing("aiokafka", "kafka") from error

# What a broker that is away, or a driver in disorder, may raise.
FAILURES = (
    *(KafkaError, ConsumerStoppedError, OSError, TimeoutError),
    *(AssertionError, AttributeError, LookupError),  # aiokafka's own, where it meets metadata that it did not expect
)

NOT_ALLOWED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)

# One batch per partition and request; aiokafka has one request per broker in flight.
BATCH_BYTES = 256 * 1024
STOP_SEC = 3.0
AGAIN_SEC = 0.05
IDLE_WAIT_SEC = 0.5
"""So long the broker keeps an empty fetch of a member; what comes meanwhile it gives at once. Behind a rebalance the
connection still waits for the fetch of before, so long at most: hence no longer."""
TAIL_WAIT_SEC = 2.0
"""The same for tails, which know no rebalance: nothing else of theirs has to wait for it."""
LOOK_SEC = 5.0
"""How often aiokafka looks for partitions to fetch although it has heard of nothing. It hears of all that makes one
fetchable: by itself it would look every 0.2 s, which is half of what an idle consumer costs."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Makes aiokafka's clients for one cluster. `security` goes to each as it is (`security_protocol`,
    `ssl_context`, `sasl_mechanism`, `sasl_plain_username`, ...)."""

    address: str
    client_id: str
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    session_sec: float = 6.0
    heartbeat_sec: float = 1.0
    request_sec: float = 10.0

    def check(self) -> None:
        """Raises TypeError or ValueError for security settings that aiokafka does not take."""
        AIOKafkaClient(**self._common())

    def producer(self) -> Any:
        return AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            retry_backoff_ms=100,
            **self._common(),
        )

    def consumer(self) -> Any:
        """A consumer of no group, for explicit partitions at explicit offsets."""
        # "none": a position that is gone is told, not silently exchanged for another.
        return AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(TAIL_WAIT_SEC * 1000),
            consumer_timeout_ms=int(LOOK_SEC * 1000),
            **self._common(),
        )

    def member(self, group: str) -> Any:
        return AIOKafkaConsumer(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(self.session_sec * 1000),
            heartbeat_interval_ms=int(self.heartbeat_sec * 1000),
            fetch_max_wait_ms=int(IDLE_WAIT_SEC * 1000),
            consumer_timeout_ms=int(LOOK_SEC * 1000),
            partition_assignment_strategy=(StickyPartitionAssignor,),
            **self._common(),
        )

    @asynccontextmanager
    async def admin(self, timeout: float) -> AsyncIterator[Any]:
        admin = AIOKafkaAdminClient(**self._common())
        try:
            async with asyncio.timeout(timeout):
                await admin.start()
                yield admin
        finally:
            with suppress(*FAILURES):
                await admin.close()

    async def why_refused(self) -> Refusal | None:
        """Why no broker takes these clients; None if one does."""
        return await refusal(self.address, self.client_id, self.security)

    def refused(self, found: Refusal) -> BusUnavailable:
        whole = found.final or found.hinted
        return BusUnavailable(f"Kafka at {self.address}: {found.why}") if whole else self._away(found.why)

    def unavailable(self, error: BaseException) -> BusUnavailable:
        if isinstance(error, NOT_ALLOWED):
            return BusUnavailable(
                f"Kafka at {self.address}: {error}; the ACLs of this user do not allow it: docs/security.md lists them"
            )
        return self._away(str(error) or type(error).__name__)

    def _away(self, said: str) -> BusUnavailable:
        return BusUnavailable(
            f"Kafka at {self.address}: {said}; is it running, is the address right, "
            f"and does it advertise an address (advertised.listeners) that is reachable from here?"
        )

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.address,
            "client_id": self.client_id,
            "request_timeout_ms": int(self.request_sec * 1000),
            # A topic that was lost and made again is noticed by its readers within this time.
            "metadata_max_age_ms": 10_000,
            **self.security,
        }


def is_broken(consumer: Any) -> bool:
    """Whether one of the consumer's own tasks has ended: then it is silent for ever."""
    if consumer is None:
        return False
    tasks = (
        getattr(consumer._fetcher, "_fetch_task", None),
        getattr(consumer._coordinator, "_coordination_task", None),
    )
    return any(task is not None and task.done() for task in tasks)


async def stop_consumer(consumer: Any) -> None:
    """Leave the group and close; bounded, for a broker that is away makes aiokafka wait for its every request."""
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stopping}, timeout=STOP_SEC)
        if not stopping.done():
            # Without connections all that it waits for fails at once.
            with suppress(*FAILURES, TimeoutError):
                async with asyncio.timeout(STOP_SEC):
                    await consumer._client.close()
            await asyncio.wait({stopping}, timeout=STOP_SEC)
    finally:
        stopping.cancel()
        with suppress(*FAILURES, asyncio.CancelledError):
            await asyncio.wait({stopping}, timeout=STOP_SEC)


async def discard_producer(producer: Any) -> None:
    """Close a producer without waiting for what it still holds: stop() would wait for ever."""
    producer._closed = True
    with suppress(*FAILURES):
        async with asyncio.timeout(STOP_SEC):
            await producer.client.close()
    sender = producer._sender.sender_task
    if sender is not None:
        # Told once, it waits for its requests, and they for metadata that the closed client never gets.
        for _ in range(int(STOP_SEC / AGAIN_SEC)):
            sender.cancel()
            if (await asyncio.wait({sender}, timeout=AGAIN_SEC))[0]:
                break
        if sender.done() and not sender.cancelled():
            sender.exception()  # seen
