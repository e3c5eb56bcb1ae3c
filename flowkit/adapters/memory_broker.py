"""The broker that several `MemoryBus` handles share: logs, readers, consumer groups, and their rebalances."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flowkit.adapters.rebalance import tell
from flowkit.errors import ConfigError
from flowkit.ports import Rebalanced, Record, TopicSpec

KEEP = 200_000
# Of a partition that nobody has ever read: a group may still come and want the earliest.
KEEP_UNREAD = 10_000
# Of what all have passed: a group that is new, or an owner that overlaps, may want it.
KEEP_READ = 128
LOOK_EVERY = 128


class Waker(Protocol):
    def wake(self) -> None: ...


@dataclass(slots=True)
class Log:
    """One partition: the records from `start` on, and who still needs them."""

    records: deque[Record] = field(default_factory=deque)
    start: int = 0
    # Where each tail stands; where each group has committed.
    tails: dict[Waker, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    owners: dict[str, Waker] = field(default_factory=dict)
    # How many records there may be until it is looked again which of them are needed.
    roomy: int = LOOK_EVERY

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def append(self, record: Record) -> None:
        end = self.start + len(self.records)
        self.records.append(Record(record.topic, record.partition, record.value, record.key, record.headers, end))
        for reader in self.tails:
            reader.wake()
        for reader in self.owners.values():
            reader.wake()
        if end - self.start >= self.roomy:
            self.trim()
            self.roomy = len(self.records) + LOOK_EVERY

    def read(self, position: int, limit: int) -> list[Record]:
        skip = max(position, self.start) - self.start
        return list(itertools.islice(self.records, skip, skip + limit))

    def trim(self) -> None:
        """Forget what every reader has passed: memory must not grow with finished tasks."""
        needed = min((*self.tails.values(), *self.committed.values()), default=self.end)
        slack = KEEP_READ if self.tails or self.committed else KEEP_UNREAD
        for _ in range(max(min(needed, self.end - slack), self.end - KEEP) - self.start):
            self.records.popleft()
            self.start += 1


class GroupMember(Waker, Protocol):
    """What a group needs of its members."""

    on_revoked: Rebalanced
    on_assigned: Rebalanced
    owned: frozenset[int]
    paused: bool

    def take_over(self, positions: Mapping[int, int]) -> None: ...


class Group:
    """The members of a consumer group on one topic. Rebalances are eager, as aiokafka's: first revoke all."""

    def __init__(self, name: str, logs: list[Log]) -> None:
        self.name = name
        self.logs = logs
        self.members: list[GroupMember] = []
        self._changed = False
        self._rebalancing: asyncio.Task[None] | None = None
        for log in logs:
            log.committed.setdefault(name, log.start)

    def join(self, member: GroupMember) -> None:
        self.members.append(member)
        self._rebalance_soon()

    def leave(self, member: GroupMember) -> None:
        if member in self.members:
            self.members.remove(member)
            for partition in member.owned:
                self.logs[partition].owners.pop(self.name, None)
            self._rebalance_soon()

    def commit(self, member: GroupMember, offsets: Mapping[int, int]) -> bool:
        if member not in self.members or not member.owned.issuperset(offsets):
            return False
        for partition, offset in offsets.items():
            self.logs[partition].committed[self.name] = offset
            self.logs[partition].trim()
        return True

    def _rebalance_soon(self) -> None:
        self._changed = True
        if self._rebalancing is None or self._rebalancing.done():
            self._rebalancing = asyncio.create_task(self._rebalance(), name=f"rebalance of {self.name}")

    async def _rebalance(self) -> None:
        before = {member: member.owned for member in self.members}
        while self._changed:
            self._changed = False
            members = list(self.members)
            await asyncio.gather(*(self._revoke(member) for member in members))
            # One that joined or left meanwhile: begin again, with nobody owning anything.
            if not self._changed:
                self._assign(members, before)
                await asyncio.gather(*(self._begin(member) for member in members))

    async def _revoke(self, member: GroupMember) -> None:
        member.paused = True
        if member.owned:
            await tell(member.on_revoked, member.owned)
        for partition in member.owned:
            self.logs[partition].owners.pop(self.name, None)
        member.owned = frozenset()

    def _assign(self, members: list[GroupMember], before: dict[GroupMember, frozenset[int]]) -> None:
        shares = share_out(len(self.logs), [before.get(member, frozenset()) for member in members])
        for member, share in zip(members, shares, strict=True):
            member.owned = share
            member.take_over({p: self.logs[p].committed[self.name] for p in share})
            for partition in share:
                self.logs[partition].owners[self.name] = member

    async def _begin(self, member: GroupMember) -> None:
        await tell(member.on_assigned, member.owned)
        member.paused = False
        member.wake()


def share_out(partitions: int, before: Collection[frozenset[int]]) -> list[frozenset[int]]:
    """Equal shares that move as few partitions as can be."""
    if not before:
        return []
    most = math.ceil(partitions / len(before))
    shares = [sorted(owned)[:most] for owned in before]
    free = sorted(set(range(partitions)).difference(*shares))
    for partition in free:
        min(shares, key=len).append(partition)
    # Where the shares kept are too large for all to be equal, the smallest takes from the largest.
    while len(largest := max(shares, key=len)) - len(smallest := min(shares, key=len)) > 1:
        smallest.append(largest.pop())
    return [frozenset(share) for share in shares]


class MemoryBroker:
    """What outlives a process: topics and groups. `up` False plays an outage, `wipe` a total loss of data."""

    def __init__(self) -> None:
        self.up = True
        self.topics: dict[str, list[Log]] = {}
        self.specs: dict[str, TopicSpec] = {}
        self.groups: dict[tuple[str, str], Group] = {}

    def ensure(self, name: str, spec: TopicSpec) -> None:
        if name not in self.topics:
            self.topics[name] = [Log() for _ in range(spec.partitions)]
            self.specs[name] = spec
        elif len(self.topics[name]) != spec.partitions:
            raise ConfigError(
                f"topic {name!r} has {len(self.topics[name])} partitions, not {spec.partitions}: "
                f"set that many in the configuration, or use another prefix"
            )

    def logs(self, topic: str) -> list[Log]:
        if topic not in self.topics:
            raise ValueError(f"no topic {topic!r}: call ensure_topics first")
        return self.topics[topic]

    def group(self, topic: str, name: str) -> Group:
        if (topic, name) not in self.groups:
            self.groups[topic, name] = Group(name, self.logs(topic))
        return self.groups[topic, name]

    def append(self, record: Record) -> bool:
        if self.up:
            self.logs(record.topic)[record.partition].append(record)
        return self.up

    def restore(self) -> None:
        """End the outage; whoever waits may find what lay there."""
        self.up = True
        for log in itertools.chain.from_iterable(self.topics.values()):
            for reader in (*log.tails, *log.owners.values()):
                reader.wake()

    def wipe(self) -> None:
        """Lose every record and every committed offset, as a broker that comes back with an empty disk."""
        for log in itertools.chain.from_iterable(self.topics.values()):
            log.records.clear()
            log.start = 0
            log.tails = dict.fromkeys(log.tails, 0)
            log.committed = dict.fromkeys(log.committed, 0)
        for group in self.groups.values():
            for member in group.members:
                member.take_over(dict.fromkeys(member.owned, 0))
