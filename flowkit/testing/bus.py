"""A simulated Kafka, and a `Bus` onto it as one process sees it: messages get lost, doubled and late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from flowkit.adapters.limits import check_record
from flowkit.errors import BusUnavailable, ConfigError
from flowkit.ports import Member, Rebalanced, Record, Tail, TopicSpec
from flowkit.testing.group import Group, GroupMember
from flowkit.testing.machine import KAFKA, Machine
from flowkit.testing.reader import Partition, Reader
from flowkit.testing.stage import Stage
from flowkit.wire.messages import decode_work

PATIENCE_SEC = 2.0
CONNECT_SEC = 5.0


class Broker:
    """Topics, groups, and the weather over them. `on_append` hears every record that was written."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.down_until = 0.0
        self.losses: list[float] = []
        self.topic_down: dict[str, float] = {}
        self.stalls: dict[tuple[str, str, int], float] = {}
        self.topics: dict[str, list[Partition]] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self._told: set[str] = set()
        self.on_append: Callable[[Record], None] = lambda record: None
        self.on_acknowledged: Callable[[Machine, Record], None] = lambda machine, record: None
        self.on_lost_work: Callable[[], None] = lambda: None

    @property
    def lost_at(self) -> float:
        """When all data was last lost; long before the beginning if never."""
        return self.losses[-1] if self.losses else -99.0

    def ensure(self, topics: Mapping[str, TopicSpec]) -> None:
        for name, spec in topics.items():
            partitions = self.topics.setdefault(name, [Partition(name, p) for p in range(spec.partitions)])
            if len(partitions) != spec.partitions:
                raise ConfigError(f"topic {name!r} has {len(partitions)} partitions, not {spec.partitions}")

    def reachable_at(self, machine: Machine) -> float:
        """From when on this machine can talk to the broker; in the past if it can now."""
        return max(self.down_until, machine.cut_until(KAFKA))

    # ---- writing

    def publish(self, machine: Machine, records: Sequence[Record], reply: Callable[[list[bool]], None]) -> None:
        """Perhaps write the records. `reply` is called once; False where no acknowledgement comes."""
        stage = self.stage
        when = machine.departure(stage.now + stage.latency())
        stage.at(when, self._arrive, machine, records, machine.is_cut(KAFKA), reply)

    def _arrive(
        self, machine: Machine, records: Sequence[Record], cut: bool, reply: Callable[[list[bool]], None]
    ) -> None:
        good = [self._accept(machine, record, cut) for record in records]
        for record in [record for record, acknowledged in zip(records, good, strict=True) if acknowledged]:
            self.on_acknowledged(machine, record)
        self.stage.later(self.stage.latency() if all(good) else PATIENCE_SEC, reply, good)

    def _accept(self, machine: Machine, record: Record, cut: bool) -> bool:
        stage = self.stage
        if cut and machine.hears(KAFKA) and self.down_until <= stage.now:
            self._append(record)
            return False
        if cut or max(self.down_until, self.topic_down.get(record.topic, 0.0)) > stage.now:
            if stage.dice.random() < 0.15:  # the client's own late retry
                stage.count("kafka_late")
                stage.at(max(self.down_until, stage.now) + stage.dice.uniform(0.1, 6), self._append, record)
            return False

        if (fate := self._tilted(record)) is not None:
            return fate
        draw = stage.dice.random() if stage.storm else 0.5
        if draw < 0.01:
            stage.count("kafka_lost")
            return False
        if draw > 0.99:
            stage.count("kafka_late")
            stage.later(stage.dice.uniform(0.1, 6), self._append, record)
            return False
        self._append(record)
        if draw < 0.03:
            stage.count("kafka_doubled")
            stage.later(stage.dice.choice((0.0, stage.dice.uniform(0, 12))), self._append, record)
        elif draw < 0.045:
            stage.count("kafka_ack_lost")
            return False
        return True

    def _tilted(self, record: Record) -> bool | None:
        """What a directed fault does to this record: late or lost, and acknowledged all the same; None if nothing."""
        stage, value = self.stage, record.value or b""
        if stage.tilt["late_work"] and b'["job"' in value and stage.chance(stage.tilt["late_work"]):
            stage.count("D_late_work")
            stage.later(stage.dice.uniform(4.5, 12), self._append, record)
            return True
        if stage.tilt["late_child_end"] and b'["child_ended"' in value and stage.chance(stage.tilt["late_child_end"]):
            stage.count("D_late_child_ends")
            stage.later(stage.dice.uniform(2, 15), self._append, record)  # once more: its parent may have gone on since
        if stage.tilt["lost_work"] and b'["job"' in value and stage.chance(stage.tilt["lost_work"]):
            self.on_lost_work()
            return True
        if stage.tilt["lost_stop"] and b'["stop"' in value:
            tokens = {item.token for item in decode_work(value).items}
            if not tokens <= self._told:
                self._told |= tokens
                stage.count("D_lost_stops")
                return True
        return None

    def _append(self, record: Record) -> None:
        self.on_append(record)
        self.topics[record.topic][record.partition].append(record, self._wake_later)

    # ---- reading

    def _wake_later(self, reader: Reader) -> None:
        """Whoever waits for this partition hears of it a moment later."""
        self.stage.later(self.stage.latency(), reader.wake)

    def blocked_until(self, machine: Machine, topic: str, partition: int) -> float:
        stall = self.stalls.get((machine.name, topic, partition), 0.0) if self.stalls else 0.0
        return max(self.down_until, machine.cut_until(KAFKA), stall)

    def lose_all(self) -> None:
        """Every record and committed offset is gone; who was at offset 7 goes on at 7, once it exists."""
        self.stage.note("KAFKA LOSES ALL")
        self.losses.append(self.stage.now)
        for partition in self._partitions():
            partition.lose()
        for group in self.groups.values():
            group.committed = dict.fromkeys(group.committed, 0)
        self.wake_all()

    def heal(self) -> None:
        now = self.stage.now
        self.down_until = min(self.down_until, now)
        self.topic_down.clear()
        self.stalls.clear()
        self.wake_all()

    def wake_all(self) -> None:
        for partition in self._partitions():
            for reader in list(partition.readers):
                self._wake_later(reader)

    def _partitions(self) -> list[Partition]:
        return [partition for partitions in self.topics.values() for partition in partitions]

    # ---- machines come and go

    def bury(self, machine: Machine) -> None:
        """A machine died: its readers read no more, and its group hears nothing of it."""
        for partition in self._partitions():
            partition.readers = {reader: None for reader in partition.readers if reader.machine is not machine}

    def group(self, topic: str, name: str) -> Group:
        key = (topic, name)
        if key not in self.groups:
            self.groups[key] = Group(self, self.topics[topic])
        return self.groups[key]


class FaultyBus:
    """A `Bus` for the process on one machine."""

    def __init__(self, stage: Stage, broker: Broker, machine: Machine) -> None:
        self._stage = stage
        self._broker = broker
        self._machine = machine
        self._open: list[Reader] = []

    async def start(self) -> None:
        await self._connect()

    async def stop(self) -> None:
        for reader in self._open:
            await reader.stop()
        self._open.clear()

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        await self._connect()
        self._broker.ensure(topics)

    def partitions(self, topic: str) -> int:
        return len(self._broker.topics[topic])

    def heard(self, topic: str) -> bool:
        return True

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        for record in records:
            check_record(record, self.partitions(record.topic))
        if not records:
            return []
        answer: asyncio.Future[list[bool]] = self._stage.loop.create_future()
        self._broker.publish(
            self._machine, list(records), lambda good: None if answer.done() else answer.set_result(good)
        )
        return await answer

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        await self._connect()
        member = GroupMember(
            self._broker.group(topic, group),
            self._machine,
            self._broker.blocked_until,
            on_revoked,
            on_assigned,
        )
        self._open.append(member)
        return member

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        await self._connect()
        every = self._broker.topics[topic]
        wanted = every if partitions is None else [every[p] for p in sorted(set(partitions))]
        tail = Reader(self._stage, self._machine, self._broker.blocked_until)
        tail.take_over({partition: partition.end for partition in wanted})
        self._open.append(tail)
        return tail

    async def describe(self) -> Mapping[str, Any]:
        topics = {name: len(partitions) for name, partitions in self._broker.topics.items()}
        return {"kind": "simulated", "address": "this process", "topics": topics}

    async def _connect(self) -> None:
        await asyncio.sleep(self._stage.latency())
        if self._broker.reachable_at(self._machine) > self._stage.now:
            await asyncio.sleep(CONNECT_SEC)
            if self._broker.reachable_at(self._machine) > self._stage.now:
                raise BusUnavailable("the simulated Kafka does not answer; the world will heal it")
