"""The simulated bus: tails, groups and their late news, outages, stalls, losses, and messages that come twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit.errors import BusUnavailable, ConfigError
from flowkit.ports import Record, TopicSpec
from flowkit.testing.machine import KAFKA, Machine
from tests.testing.stages import Set


def record(value: str, topic: str = "fleet", partition: int = 0) -> Record:
    return Record(topic, partition, value.encode())


def values(records: list[Record]) -> list[str]:
    return [(r.value or b"").decode() for r in records]


async def nothing(partitions: frozenset[int]) -> None: ...


def test_a_tail_sees_what_comes_after_it_was_opened() -> None:
    scene = Set()
    bus = scene.bus(scene.machine("C0"))

    async def play() -> None:
        await bus.start()
        await bus.publish([record("before")])
        tail = await bus.tail("fleet")
        assert await bus.publish([record("a"), record("b")]) == [True, True]
        assert values(await tail.fetch(1)) == ["a", "b"]
        assert await tail.fetch(1.5) == []
        waiting = asyncio.ensure_future(tail.fetch(10))
        await asyncio.sleep(1)
        await bus.publish([record("c")])
        assert values(await waiting) == ["c"]
        assert scene.stage.now < 4

    scene.play(play)


def test_topics_are_checked() -> None:
    scene = Set()
    bus = scene.bus(scene.machine("C0"))

    async def play() -> None:
        await bus.ensure_topics({"new": TopicSpec(3)})
        assert bus.partitions("new") == 3
        with pytest.raises(ConfigError):
            await bus.ensure_topics({"new": TopicSpec(4)})
        with pytest.raises(ValueError, match="no partition 7"):
            await bus.publish([record("x", partition=7)])

    scene.play(play)


def test_what_one_process_publishes_stays_in_order() -> None:
    scene = Set(seed=5)
    bus = scene.bus(scene.machine("C0"))

    async def play() -> None:
        tail = await bus.tail("fleet")
        await asyncio.gather(*(bus.publish([record(f"{n:02d}")]) for n in range(50)))
        await asyncio.sleep(1)
        assert values(await tail.fetch(0)) == [f"{n:02d}" for n in range(50)]

    scene.play(play)


def test_an_outage_is_silence_and_no_acknowledgement() -> None:
    scene = Set()
    bus = scene.bus(scene.machine("C0"))

    async def play() -> None:
        tail = await bus.tail("fleet")
        await bus.publish([record("before")])
        scene.broker.down_until = 20.0
        assert await bus.publish([record("during")]) == [False]
        assert scene.stage.now == pytest.approx(2, abs=0.1)
        assert await tail.fetch(3) == []
        with pytest.raises(BusUnavailable):
            await scene.bus(scene.machine("C1")).start()
        assert values(await tail.fetch(30)) == ["before"]
        assert 20 < scene.stage.now < 21

    scene.play(play)


def test_a_cut_link_concerns_one_machine() -> None:
    scene = Set()
    cut, other = scene.machine("C0"), scene.machine("C1")

    async def play() -> None:
        tails = [await scene.bus(machine).tail("fleet") for machine in (cut, other)]
        cut.cut(KAFKA, 100.0, one_way=True)
        assert await scene.bus(cut).publish([record("heard, not acknowledged")]) == [False]
        assert values(await tails[1].fetch(1)) == ["heard, not acknowledged"]
        assert await tails[0].fetch(1) == []
        cut.heal()
        scene.broker.heal()
        assert values(await tails[0].fetch(1)) == ["heard, not acknowledged"]

    scene.play(play)


def test_a_stalled_partition_stalls_for_one_machine() -> None:
    scene = Set()
    stalled, other = scene.machine("C0"), scene.machine("C1")

    async def play() -> None:
        tails = [await scene.bus(machine).tail("fleet") for machine in (stalled, other)]
        scene.broker.stalls["C0", "fleet", 0] = 10.0
        await scene.bus(other).publish([record("x")])
        assert values(await tails[1].fetch(1)) == ["x"]
        assert values(await tails[0].fetch(20)) == ["x"]
        assert 10 < scene.stage.now < 11

    scene.play(play)


def test_in_a_storm_messages_are_lost_doubled_late_and_unacknowledged() -> None:
    scene = Set(mode="chaos")
    bus = scene.bus(scene.machine("C0"))

    async def play() -> None:
        tail = await bus.tail("fleet")
        answers = []
        for number in range(700):
            answers += await bus.publish([record(str(number))])
        await asyncio.sleep(20)
        got: list[str] = []
        while found := await tail.fetch(0):
            got += values(found)
        assert not all(answers)
        assert len(set(got)) < 700
        assert len(got) > len(set(got))
        assert [int(value) for value in got] != sorted(int(value) for value in got)

    scene.play(play)

    counts = scene.stage.counts
    for what in ("kafka_lost", "kafka_doubled", "kafka_late", "kafka_ack_lost"):
        assert counts[what] > 0


class Groupie:
    """A member of a group that writes down what it was told."""

    def __init__(self, scene: Set, machine: Machine) -> None:
        self.scene = scene
        self.machine = machine
        self.told: list[tuple[str, frozenset[int]]] = []
        self.owned: frozenset[int] = frozenset()
        self.member: Any = None

    async def join(self) -> Groupie:
        async def revoked(partitions: frozenset[int]) -> None:
            self.told.append(("revoked", partitions))
            self.owned = self.owned - partitions

        async def assigned(partitions: frozenset[int]) -> None:
            self.told.append(("assigned", partitions))
            self.owned = partitions

        async def work() -> None:
            self.member = await self.scene.bus(self.machine).join(
                "facts", "g", on_revoked=revoked, on_assigned=assigned
            )

        await self.machine.process.context().run(self.scene.stage.loop.create_task, work())
        return self


def test_a_group_shares_the_partitions_and_begins_where_it_had_committed() -> None:
    scene = Set()
    bus = scene.bus(scene.machine("A0"))

    async def play() -> None:
        first = await Groupie(scene, scene.machine("C0")).join()
        await bus.publish([record(f"p{p}-{n}", "facts", p) for p in (0, 1) for n in (0, 1)])
        await asyncio.sleep(2)
        assert first.owned == {0, 1}
        assert len(await first.member.fetch(1)) == 4
        assert first.member.position(0) == 2
        assert await first.member.end_offset(0) == 2
        assert await first.member.commit({0: 1, 1: 2})
        second = await Groupie(scene, scene.machine("C1")).join()
        await asyncio.sleep(6)
        assert sorted([*first.owned, *second.owned]) == [0, 1]
        holder = first if 0 in first.owned else second
        assert values(await holder.member.fetch(1)) == ["p0-1"]
        assert not await second.member.commit(dict.fromkeys(first.owned, 1))
        await second.member.stop()
        await asyncio.sleep(6)
        assert first.owned == {0, 1}

    scene.play(play)


def test_a_frozen_member_loses_its_partitions_and_is_told_when_it_wakes() -> None:
    scene = Set()

    async def play() -> None:
        first = await Groupie(scene, scene.machine("C0")).join()
        second = await Groupie(scene, scene.machine("C1")).join()
        await asyncio.sleep(6)
        mine = first.owned
        first.machine.freeze(20)
        await asyncio.sleep(10)
        assert second.owned == {0, 1}
        assert first.owned == mine, "two owners at a time"
        assert not await first.member.commit(dict.fromkeys(mine, 1))
        await asyncio.sleep(15)
        assert not first.owned & second.owned

    scene.play(play)


def test_a_dead_member_is_missed_after_the_session_timeout() -> None:
    scene = Set()

    async def play() -> None:
        first = await Groupie(scene, scene.machine("C0")).join()
        second = await Groupie(scene, scene.machine("C1")).join()
        await asyncio.sleep(6)
        died = scene.stage.now
        first.machine.crash()
        while second.owned != {0, 1}:
            await asyncio.sleep(0.1)
        assert 5 < scene.stage.now - died < 8

    scene.play(play)


def test_the_loss_of_all_data_forgets_records_and_offsets() -> None:
    scene = Set()
    bus = scene.bus(scene.machine("A0"))

    async def play() -> None:
        member = (await Groupie(scene, scene.machine("C0")).join()).member
        tail = await bus.tail("fleet")
        await asyncio.sleep(1.5)
        await bus.publish([record("old", "facts"), record("old")])
        assert values(await member.fetch(1)) == ["old"]
        assert await member.commit({0: 1})
        scene.broker.lose_all()
        assert await tail.fetch(0.5) == []
        await bus.publish([record("new", "facts"), record("new")])
        # Who stood at offset 1 goes on at offset 1: the first new message is missed. The sweeper must do the rest.
        assert await member.fetch(1) == []
        await bus.publish([record("newer", "facts")])
        assert values(await member.fetch(1)) == ["newer"]

    scene.play(play)


def test_a_callback_that_takes_too_long_or_fails_stops_nobody() -> None:
    scene = Set()
    machine = scene.machine("C0")

    async def slow(partitions: frozenset[int]) -> None:
        await asyncio.sleep(100 if partitions else 0)

    async def broken(partitions: frozenset[int]) -> None:
        raise ValueError("no")

    async def work() -> None:
        await scene.bus(machine).join("facts", "g", on_revoked=slow, on_assigned=broken)

    async def play() -> None:
        await machine.process.context().run(scene.stage.loop.create_task, work())
        await asyncio.sleep(3)
        await Groupie(scene, scene.machine("C1")).join()
        await asyncio.sleep(20)

    scene.play(play)

    assert scene.stage.counts["rebalance_callback_timeout"] > 0
    assert any(isinstance(error, ValueError) for _, error, _ in scene.stage.loop.faults)
