"""Consumer groups of the simulated Kafka: sessions time out, partitions move, and some are told late."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from flowkit.ports import Rebalanced
from flowkit.testing.machine import Machine
from flowkit.testing.reader import Blocked, Partition, Reader
from flowkit.testing.stage import Stage

SESSION_SEC = 6.0
TICK_SEC = 1.0
FLUSH_SEC = 2.0
LATE_SEC = 2.5
ANSWER_SEC = 2.0


class Weather(Protocol):
    """What a group must know of its broker."""

    stage: Stage
    down_until: float

    def reachable_at(self, machine: Machine) -> float: ...


class Group:
    """Who owns which partition. Members dead, frozen or cut off lose theirs after the session timeout.

    Whoever loses partitions is told up to 2.5 s after the others took them over: owners overlap.
    """

    def __init__(self, broker: Weather, partitions: list[Partition]) -> None:
        self.stage = broker.stage
        self.partitions = partitions
        self.committed = dict.fromkeys(range(len(partitions)), 0)
        self.owners: dict[int, tuple[GroupMember, int]] = {}
        self.generation = 0
        self._broker = broker
        self._beats: dict[GroupMember, float] = {}
        self.stage.later(0.2, self._tick)

    def join(self, member: GroupMember) -> None:
        self._beats[member] = self.stage.now

    def leave(self, member: GroupMember) -> None:
        self._beats.pop(member, None)

    def reachable(self, machine: Machine) -> bool:
        return self._broker.reachable_at(machine) <= self.stage.now

    def share(self, member: GroupMember) -> dict[int, int]:
        """The partitions that are a member's now, with the generation in which it got them."""
        return {p: generation for p, (owner, generation) in self.owners.items() if owner is member}

    def commit(self, held: Mapping[int, int], member: GroupMember, offsets: Mapping[int, int]) -> bool:
        share = self.share(member)
        if any(p not in share or share[p] != held.get(p) for p in offsets):
            return False
        self.committed.update(offsets)
        return True

    def position(self, partition: int) -> int:
        """Where a new owner begins: at the committed offset, or at the earliest if that is out of range."""
        committed = self.committed[partition]
        return committed if committed <= self.partitions[partition].end else 0

    def _tick(self) -> None:
        stage = self.stage
        stage.later(TICK_SEC, self._tick)
        if self._broker.down_until > stage.now:
            self._beats = dict.fromkeys(self._beats, stage.now)
            return
        live = [m for m in self._beats if m.machine.alive and m.process is m.machine.process and self._hears(m)]
        for member in live:
            self._beats[member] = stage.now

        members = [member for member, beat in self._beats.items() if stage.now - beat < SESSION_SEC]
        owners = {owner for owner, _ in self.owners.values()}
        if members and (owners != set(members[: len(self.partitions)]) or stage.chance(0.03)):
            self._rebalance(members)
        for member in live:
            share = self.share(member)
            if share != member.held:
                late = stage.dice.uniform(0, LATE_SEC) if set(member.held) - set(share) else stage.latency()
                stage.later(late, member.news.set)

    def shuffle(self) -> None:
        """Give every partition to somebody, perhaps to somebody else."""
        if self._beats:
            self._rebalance(list(self._beats))

    def _hears(self, member: GroupMember) -> bool:
        return not member.machine.frozen and self.reachable(member.machine)

    def _rebalance(self, members: list[GroupMember]) -> None:
        stage = self.stage
        stage.count("rebalance")
        stage.dice.shuffle(members)
        self.generation += 1
        count = len(members)
        self.owners = {p: (members[p % count], self.generation) for p in range(len(self.partitions))}
        shares = {member.machine.name: sorted(self.share(member)) for member in members}
        stage.note("REBALANCE", *(f"{name}{share}" for name, share in sorted(shares.items())))


class GroupMember(Reader):
    """A `Member`. Rebalances are eager, as aiokafka's: all is revoked, then the new share is assigned."""

    def __init__(self, group: Group, machine: Machine, blocked_until: Blocked, on_revoked: Rebalanced,
                 on_assigned: Rebalanced) -> None:  # fmt: skip
        super().__init__(group.stage, machine, blocked_until)
        self.process = machine.process
        self.held: dict[int, int] = {}
        self.news = asyncio.Event()
        self._group = group
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned
        self._follower = group.stage.loop.create_task(self._follow(), name="follow the group")
        group.join(self)

    async def _follow(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            if self._group.share(self) == self.held:
                continue
            self.paused = True
            await self._tell(self._on_revoked, frozenset(self.held))
            self.held = self._group.share(self)
            group = self._group
            self.take_over({group.partitions[p]: group.position(p) for p in self.held})
            self.paused = False
            await self._tell(self._on_assigned, frozenset(self.held))

    async def _tell(self, callback: Rebalanced, partitions: frozenset[int]) -> None:
        try:
            async with asyncio.timeout(FLUSH_SEC):
                await callback(partitions)
        except TimeoutError:
            self._stage.count("rebalance_callback_timeout")
        except Exception as error:  # it is a fault of the process, not the group's
            self._stage.loop.call_exception_handler({"message": "a rebalance callback failed", "exception": error})

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        await asyncio.sleep(self._stage.latency())
        if not self._group.reachable(self.machine):
            await asyncio.sleep(ANSWER_SEC)
            return False
        return not self.stopped and self._group.commit(self.held, self, offsets)

    async def end_offset(self, partition: int) -> int | None:
        await asyncio.sleep(self._stage.latency())
        if not self._group.reachable(self.machine):
            await asyncio.sleep(ANSWER_SEC)
            return None
        return self._group.partitions[partition].end

    def position(self, partition: int) -> int | None:
        if partition not in self.held:
            return None
        return self._positions.get(self._group.partitions[partition])

    async def stop(self) -> None:
        if not self.stopped:
            self._follower.cancel()
            self.held = {}
            self._group.leave(self)
            await super().stop()
