"""What the bus in memory promises beyond the contract: it forgets, and it plays the faults of a real one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.adapters import memory_broker
from flowkit.adapters.memory import MemoryBus
from flowkit.adapters.memory_broker import KEEP_READ, KEEP_UNREAD, LOOK_EVERY, share_out
from flowkit.ports import Member, Record, TopicSpec
from tests.worker.stand import virtual


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryBus(session_sec=0.2)
    await bus.ensure_topics({"t": TopicSpec(2)})
    return bus


async def ignore(partitions: frozenset[int]) -> None:
    pass


async def join(bus: MemoryBus) -> Member:
    return await bus.join("t", "g", on_revoked=ignore, on_assigned=ignore)


def records(count: int, partition: int = 0) -> list[Record]:
    return [Record("t", partition, b"%d" % i) for i in range(count)]


def kept(bus: MemoryBus, partition: int = 0) -> int:
    return len(bus.broker.topics["t"][partition].records)


class TestForgetting:
    async def test_what_every_reader_has_passed_is_forgotten(self, bus: MemoryBus) -> None:
        tail, member = await bus.tail("t"), await join(bus)
        for _ in range(20):
            await bus.publish(records(1000))
            await tail.fetch(0)
        assert kept(bus) == 20_000  # the member has not committed

        while await member.fetch(0.05):
            pass
        assert await member.commit({0: 20_000})
        assert kept(bus) == KEEP_READ

        await bus.publish(records(500))
        assert 500 <= kept(bus) <= 500 + LOOK_EVERY  # not read yet
        await tail.stop()
        assert await member.commit({0: 20_500})
        assert kept(bus) == KEEP_READ

    async def test_what_nobody_reads_is_bounded(self, bus: MemoryBus) -> None:
        for _ in range(15):
            await bus.publish(records(1000))
        assert KEEP_UNREAD <= kept(bus) <= KEEP_UNREAD + LOOK_EVERY

    async def test_a_reader_that_sleeps_is_bounded_and_reads_on(
        self, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory_broker, "KEEP", 3000)
        tail = await bus.tail("t")
        for _ in range(5):
            await bus.publish(records(1000))
        left = kept(bus)
        assert 3000 <= left <= 3000 + LOOK_EVERY
        assert (await tail.fetch(0))[0].offset == 5000 - left


class TestReaders:
    async def test_a_topic_is_heard_by_tails_while_they_read_and_for_ever_by_groups(self, bus: MemoryBus) -> None:
        assert not bus.heard("t")
        assert not bus.heard("never ensured")
        tail = await bus.tail("t", [1])
        assert bus.heard("t")
        await tail.stop()
        assert not bus.heard("t")

        member = await join(bus)
        assert bus.heard("t")
        await member.stop()
        assert bus.heard("t")  # who joins the group next reads on from there

    @pytest.mark.parametrize("up", [True, False])
    async def test_who_polls_and_publishes_without_a_pause_lets_others_have_their_turn(
        self, bus: MemoryBus, up: bool
    ) -> None:
        tail = await bus.tail("t")
        bus.broker.up = up
        turns, done = 0, asyncio.Event()

        async def poll() -> None:
            while not done.is_set():
                await bus.publish(records(1))
                await tail.fetch(0)

        async def others() -> None:
            nonlocal turns
            for turns in range(1, 101):  # noqa: B007 - it is read outside
                await asyncio.sleep(0)
            done.set()

        async with asyncio.timeout(10):
            await asyncio.gather(poll(), others())
        assert turns == 100


class TestFaults:
    async def test_an_outage_is_doubt_and_silence(self, bus: MemoryBus) -> None:
        tail, member = await bus.tail("t"), await join(bus)
        await bus.publish(records(3))
        assert len(await member.fetch(1)) == 3
        bus.broker.up = False
        assert await bus.publish(records(2)) == [False, False]
        assert await tail.fetch(0.01) == []
        assert await member.fetch(0.01) == []
        assert await member.end_offset(0) is None
        assert not await member.commit({0: 3})

        waiting = asyncio.create_task(tail.fetch(5))
        await asyncio.sleep(0.01)
        bus.broker.restore()
        assert len(await waiting) == 3
        assert await member.commit({0: 3})

    async def test_a_total_loss_begins_at_nothing_again(self, bus: MemoryBus) -> None:
        tail, member = await bus.tail("t"), await join(bus)
        await bus.publish(records(3))
        await tail.fetch(0)
        await member.fetch(1)
        await member.commit({0: 3})
        bus.broker.wipe()
        assert member.position(0) == 0
        assert await member.end_offset(0) == 0
        await bus.publish([Record("t", 0, b"new")])
        assert [(r.value, r.offset) for r in await tail.fetch(1)] == [(b"new", 0)]
        assert [(r.value, r.offset) for r in await member.fetch(1)] == [(b"new", 0)]


@virtual
async def test_a_crash_is_noticed_when_the_session_is_over() -> None:
    bus = MemoryBus(session_sec=0.2)
    await bus.ensure_topics({"t": TopicSpec(2)})
    told: list[frozenset[int]] = []

    async def note(partitions: frozenset[int]) -> None:
        told.append(partitions)

    dying = MemoryBus(bus.broker, session_sec=0.2)
    await dying.join("t", "g", on_revoked=note, on_assigned=note)
    await asyncio.sleep(0.01)
    survivor = await join(bus)
    await asyncio.sleep(0.01)
    told.clear()
    dying.crash()
    await bus.publish([*records(1), *records(1, 1)])
    assert len(await survivor.fetch(0.05)) == 1
    assert len(await survivor.fetch(2)) >= 1
    assert {survivor.position(0), survivor.position(1)} == {1}
    assert told == []


@given(st.integers(1, 24), st.lists(st.frozensets(st.integers(0, 23)), max_size=6))
def test_shares_are_equal_and_complete_and_move_little(partitions: int, wanted: list[frozenset[int]]) -> None:
    free = set(range(partitions))
    before = []
    for owned in wanted:
        before.append(owned & free)
        free -= owned
    shares = share_out(partitions, before)
    if not before:
        assert shares == []
        return
    assert sorted(p for share in shares for p in share) == list(range(partitions))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for share, owned in zip(shares, before, strict=True):
        assert len(share & owned) >= min(len(owned), partitions // len(before))
