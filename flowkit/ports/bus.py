"""The road between processes: what travels on it, who reads it, who publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowkit.core.immutable import immutable


@immutable
class Record:
    """One message. To publish: `partition` is given (the engine always knows it). As received: `offset` is set,
    and `value` None means an empty message. Where messages are signed, `signer` is the pool of whoever signed it, empty
    for nobody, and `refused` why it must not be acted on."""

    topic: str
    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int = -1
    signer: str = ""
    refused: str = ""


class Tail(Protocol):
    """A reader of some partitions from where their end was when it was opened. Belongs to no group."""

    async def fetch(self, timeout: float) -> list[Record]:
        """What has come, in order per partition; empty after `timeout` seconds of silence. A broker that is away is
        silence."""

    async def stop(self) -> None: ...


class Member(Protocol):
    """A member of the consumer group of one topic; partitions come and go."""

    async def fetch(self, timeout: float) -> list[Record]:
        """As `Tail.fetch`, of the partitions owned now. Starts at the committed offset, else at the earliest."""

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit `partition -> next offset to read`. False when refused (a rebalance): normal, nothing is lost."""

    async def end_offset(self, partition: int) -> int | None:
        """The offset after the last message now in the partition; None when the bus does not answer in time."""

    def position(self, partition: int) -> int | None:
        """The next offset that `fetch` will give for an owned partition; None when unknown or not owned."""

    async def stop(self) -> None: ...


class Bus(Protocol):
    """The road. Messages may be lost, doubled, late, and out of order; nobody relies on more."""

    async def start(self) -> None:
        """Connect. Raises `BusUnavailable` with the address and a hint."""

    async def stop(self) -> None: ...

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Create what is missing. Raises `ConfigError` where a topic exists with another partition count."""

    def partitions(self, topic: str) -> int:
        """How many partitions an ensured topic has."""

    def heard(self, topic: str) -> bool:
        """Whether anybody may come to read what is published to an ensured topic now. A bus that others can read too
        never knows, and says True."""

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        """Send; True for each record that the bus acknowledged (all in-sync replicas). False is unknown, not no.
        Bounded in time (seconds, by the adapter's settings); raises nothing but CancelledError."""

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        """Join the group. The callbacks get the partition numbers; `on_revoked` may take up to 2 s to flush."""

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        """Read from the end: what is published after this returned is seen, what was before is not."""

    async def describe(self) -> Mapping[str, Any]:
        """`kind`, `address`, and `topics` with their partition counts: of those that this bus was asked to ensure."""


Rebalanced = Callable[[frozenset[int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is made: partitions, and retention in seconds (None: the broker's default)."""

    partitions: int
    retention_sec: float | None = None
