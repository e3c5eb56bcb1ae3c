"""What every `Bus` promises, asked of every backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from flowkit.adapters.memory import MemoryBroker, MemoryBus
from flowkit.errors import ConfigError
from flowkit.ports import Bus, Member, Record, Tail, TopicSpec

# A rebalance of a real group takes a heartbeat of the other members.
SOON = 60.0
SILENCE = 0.3


@dataclass
class Road:
    """One broker, topics that are this test's own, and as many buses as it opens."""

    kind: str
    prefix: str
    make: Callable[[], Bus]
    stack: AsyncExitStack
    buses: list[Bus] = field(default_factory=list)

    def topic(self, name: str) -> str:
        return f"{self.prefix}{name}"

    async def bus(self, **partitions: int) -> Bus:
        bus = self.make()
        await bus.start()
        self.stack.push_async_callback(bus.stop)
        if partitions:
            await bus.ensure_topics({self.topic(name): TopicSpec(n) for name, n in partitions.items()})
        return bus


@pytest.fixture(params=["memory", "kafka"])
def broker(request: pytest.FixtureRequest) -> tuple[str, str, Callable[[], Bus]]:
    if request.param == "memory":
        shared = MemoryBroker()
        return "memory", "t.", lambda: MemoryBus(shared)
    address = request.getfixturevalue("kafka_address")
    prefix = request.getfixturevalue("kafka_prefix")
    from flowkit.adapters.kafka import KafkaBus

    return "kafka", prefix, lambda: KafkaBus(address)


@pytest.fixture
async def road(broker: tuple[str, str, Callable[[], Bus]]) -> AsyncIterator[Road]:
    async with AsyncExitStack() as stack:
        yield Road(*broker, stack)


@dataclass
class Watcher:
    """A member, and what its callbacks were told."""

    told: list[tuple[str, frozenset[int]]] = field(default_factory=list)
    owned: frozenset[int] = frozenset()
    member: Member | None = None

    async def revoked(self, partitions: frozenset[int]) -> None:
        self.told.append(("revoked", partitions))
        self.owned -= partitions

    async def assigned(self, partitions: frozenset[int]) -> None:
        self.told.append(("assigned", partitions))
        self.owned = partitions

    async def join(self, bus: Bus, topic: str, group: str = "g") -> Member:
        self.member = await bus.join(topic, group, on_revoked=self.revoked, on_assigned=self.assigned)
        return self.member


def records(topic: str, values: Iterable[int], partition: int = 0) -> list[Record]:
    return [Record(topic, partition, b"%d" % value) for value in values]


async def drain(reader: Tail | Member, count: int, timeout: float = SOON) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(timeout):
        while len(found) < count:
            found += await reader.fetch(0.2)
    return found


async def silent(reader: Tail | Member) -> bool:
    return await reader.fetch(SILENCE) == []


async def eventually(condition: Callable[[], bool], *polled: Member) -> list[Record]:
    """Poll the members (Kafka asks for it) until the condition holds; what they gave meanwhile."""
    found: list[Record] = []
    async with asyncio.timeout(SOON):
        while not condition():
            for member in polled:
                found += await member.fetch(0.02)
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def polling(*members: Member) -> AsyncIterator[dict[Member, list[Record]]]:
    found: dict[Member, list[Record]] = {member: [] for member in members}

    async def poll(member: Member) -> None:
        while True:
            found[member] += await member.fetch(0.2)

    tasks = [asyncio.create_task(poll(member)) for member in members]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.02)


class TestTopics:
    async def test_topics_are_made_once_with_their_partitions(self, road: Road) -> None:
        first = await road.bus(a=3, b=1)
        second = await road.bus(a=3)
        assert first.partitions(road.topic("a")) == second.partitions(road.topic("a")) == 3
        assert first.partitions(road.topic("b")) == 1

    async def test_another_partition_count_is_refused(self, road: Road) -> None:
        await road.bus(a=3)
        with pytest.raises(ConfigError, match="3"):
            await road.bus(a=4)

    async def test_two_processes_make_the_same_topics_at_once(self, road: Road) -> None:
        buses = [await road.bus(), await road.bus(), await road.bus()]
        topics = {road.topic(f"x{i}"): TopicSpec(2, retention_sec=600) for i in range(3)}
        await asyncio.gather(*(bus.ensure_topics(topics) for bus in buses))
        assert {bus.partitions(road.topic("x1")) for bus in buses} == {2}

    async def test_a_bus_describes_itself(self, road: Road) -> None:
        bus = await road.bus(a=3)
        described = await bus.describe()
        assert described["kind"] == road.kind
        assert described["address"]
        assert described["topics"][road.topic("a")] == 3


class TestPublish:
    async def test_a_record_arrives_as_it_was_sent(self, road: Road) -> None:
        bus = await road.bus(a=2)
        tail = await bus.tail(road.topic("a"))
        headers = (("ce_id", b"1"), ("empty", b""), ("ce_id", b"again"))
        sent = [
            Record(road.topic("a"), 1, b"value\x00\xff", b"key", headers),
            Record(road.topic("a"), 1, None, b"key-only"),
            Record(road.topic("a"), 1, b"", b""),
            Record(road.topic("a"), 1, b"no key"),
            Record(road.topic("a"), 1, None, None),
        ]
        assert await bus.publish(sent) == [True] * 5
        got = await drain(tail, 5)
        assert [(r.topic, r.partition, r.value, r.key, r.headers) for r in got] == [
            (r.topic, r.partition, r.value, r.key, r.headers) for r in sent
        ]
        assert [r.offset for r in got] == list(range(5))

    async def test_nothing_published_is_nothing(self, road: Road) -> None:
        bus = await road.bus(a=1)
        assert await bus.publish([]) == []

    async def test_order_holds_within_a_partition(self, road: Road) -> None:
        bus = await road.bus(a=3)
        tail = await bus.tail(road.topic("a"))
        await asyncio.gather(
            *(bus.publish(records(road.topic("a"), range(500), partition=p)) for p in range(3)),
            bus.publish(records(road.topic("a"), range(1000, 1100), partition=1)),
        )
        got = await drain(tail, 1600)
        for p in range(3):
            values = [int(r.value or b"") for r in got if r.partition == p]
            assert [v for v in values if v < 1000] == list(range(500))
            assert [v for v in values if v >= 1000] == (list(range(1000, 1100)) if p == 1 else [])

    async def test_a_record_over_the_limit_is_the_callers_mistake(self, road: Road) -> None:
        bus = await road.bus(a=1)
        with pytest.raises(ValueError, match="reference"):
            await bus.publish([Record(road.topic("a"), 0, bytes(1024 * 1024 + 1))])
        assert await bus.publish([Record(road.topic("a"), 0, bytes(1_000_000))]) == [True]

    async def test_a_partition_that_is_not_there_is_the_callers_mistake(self, road: Road) -> None:
        bus = await road.bus(a=2)
        with pytest.raises(ValueError, match="partition"):
            await bus.publish([Record(road.topic("a"), 2, b"x")])
        with pytest.raises(ValueError, match="ensure_topics"):
            await bus.publish([Record(road.topic("unknown"), 0, b"x")])

    async def test_a_hundred_publishers_at_once(self, road: Road) -> None:
        bus = await road.bus(a=4)
        tail = await bus.tail(road.topic("a"))
        answers = await asyncio.gather(
            *(bus.publish(records(road.topic("a"), [i], partition=i % 4)) for i in range(100))
        )
        assert answers == [[True]] * 100
        assert sorted(int(r.value or b"") for r in await drain(tail, 100)) == list(range(100))

    async def test_large_records_go_through_together(self, road: Road) -> None:
        bus = await road.bus(a=1)
        tail = await bus.tail(road.topic("a"))
        assert await bus.publish([Record(road.topic("a"), 0, bytes(300_000)) for _ in range(30)]) == [True] * 30
        assert sum(len(r.value or b"") for r in await drain(tail, 30)) == 9_000_000


class TestTail:
    async def test_a_tail_sees_only_what_is_new(self, road: Road) -> None:
        bus = await road.bus(a=2)
        await bus.publish([*records(road.topic("a"), range(5)), *records(road.topic("a"), range(5), 1)])
        tail = await bus.tail(road.topic("a"))
        assert await silent(tail)

        await bus.publish(records(road.topic("a"), [7], partition=1))
        (got,) = await drain(tail, 1)
        assert (got.value, got.partition, got.offset) == (b"7", 1, 5)

    async def test_what_is_published_right_after_the_opening_is_seen(self, road: Road) -> None:
        bus = await road.bus(a=2)
        for i in range(5):
            await bus.publish(records(road.topic("a"), [-1]))
            tail = await bus.tail(road.topic("a"))
            await bus.publish(records(road.topic("a"), [i]))
            assert [r.value for r in await drain(tail, 1)] == [b"%d" % i]
            await tail.stop()

    async def test_a_tail_of_some_partitions_sees_only_those(self, road: Road) -> None:
        bus = await road.bus(a=4)
        tail = await bus.tail(road.topic("a"), [1, 3])
        for p in range(4):
            await bus.publish(records(road.topic("a"), [p], partition=p))
        assert sorted(r.partition for r in await drain(tail, 2)) == [1, 3]
        assert await silent(tail)

    async def test_a_tail_of_nothing_is_silent(self, road: Road) -> None:
        bus = await road.bus(a=1)
        assert await silent(await bus.tail(road.topic("a"), []))

    async def test_each_tail_sees_everything(self, road: Road) -> None:
        bus, other = await road.bus(a=1), await road.bus(a=1)
        tails = [await bus.tail(road.topic("a")), await other.tail(road.topic("a"))]
        await bus.publish(records(road.topic("a"), range(3)))
        for tail in tails:
            assert [r.value for r in await drain(tail, 3)] == [b"0", b"1", b"2"]

    async def test_silence_lasts_as_long_as_asked(self, road: Road) -> None:
        bus = await road.bus(a=1)
        tail = await bus.tail(road.topic("a"))
        start = asyncio.get_running_loop().time()
        assert await tail.fetch(0.3) == []
        assert 0.25 < asyncio.get_running_loop().time() - start < 10.0
        assert await tail.fetch(0) == []

    async def test_a_publish_wakes_a_fetch_that_waits(self, road: Road) -> None:
        bus = await road.bus(a=1)
        tail = await bus.tail(road.topic("a"))
        waiting = asyncio.create_task(tail.fetch(60))
        await asyncio.sleep(0.1)
        start = asyncio.get_running_loop().time()
        await bus.publish(records(road.topic("a"), [1]))
        assert [r.value for r in await waiting] == [b"1"]
        assert asyncio.get_running_loop().time() - start < 30.0

    async def test_a_cancelled_fetch_loses_nothing(self, road: Road) -> None:
        bus = await road.bus(a=1)
        tail = await bus.tail(road.topic("a"))
        for i in range(10):
            waiting = asyncio.create_task(tail.fetch(10))
            await asyncio.sleep(0.01 * (i % 3))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await bus.publish(records(road.topic("a"), range(20)))
        assert [int(r.value or b"") for r in await drain(tail, 20)] == list(range(20))

    async def test_a_topic_with_a_reader_is_heard(self, road: Road) -> None:
        bus, other = await road.bus(a=1), await road.bus(a=1)
        await other.tail(road.topic("a"))
        assert bus.heard(road.topic("a"))

    async def test_a_stopped_tail_is_silent(self, road: Road) -> None:
        bus = await road.bus(a=1)
        tail = await bus.tail(road.topic("a"))
        await tail.stop()
        await tail.stop()
        await bus.publish(records(road.topic("a"), [1]))
        assert await silent(tail)


class TestGroup:
    async def test_a_member_begins_at_the_earliest(self, road: Road) -> None:
        bus = await road.bus(a=2)
        await bus.publish([*records(road.topic("a"), range(3)), *records(road.topic("a"), range(3), 1)])
        watcher = Watcher()
        member = await watcher.join(bus, road.topic("a"))
        got = await drain(member, 6)
        assert {(r.partition, r.offset) for r in got} == {(p, o) for p in range(2) for o in range(3)}
        assert watcher.told == [("assigned", frozenset({0, 1}))]

    async def test_a_new_member_begins_where_the_group_committed(self, road: Road) -> None:
        bus = await road.bus(a=2)
        first = Watcher()
        member = await first.join(bus, road.topic("a"))
        await bus.publish([*records(road.topic("a"), range(10)), *records(road.topic("a"), range(10), 1)])
        await drain(member, 20)
        assert await member.commit({0: 7, 1: 0})
        assert await member.commit({1: 4})
        await member.stop()

        again = await Watcher().join(await road.bus(a=2), road.topic("a"))
        got = {(r.partition, r.offset) for r in await drain(again, 9)}
        assert got == {(0, o) for o in range(7, 10)} | {(1, o) for o in range(4, 10)}

    async def test_groups_do_not_know_each_other(self, road: Road) -> None:
        bus = await road.bus(a=1)
        one = await Watcher().join(bus, road.topic("a"), "one")
        await bus.publish(records(road.topic("a"), range(3)))
        await drain(one, 3)
        await one.commit({0: 3})
        two = await Watcher().join(bus, road.topic("a"), "two")
        assert len(await drain(two, 3)) == 3

    async def test_positions_and_ends(self, road: Road) -> None:
        bus = await road.bus(a=2)
        watcher = Watcher()
        member = await watcher.join(bus, road.topic("a"))
        assert member.position(0) in (None, 0)
        await eventually(lambda: watcher.owned == {0, 1}, member)
        await eventually(lambda: member.position(0) == 0 and member.position(1) == 0, member)
        assert await member.end_offset(0) == 0

        await bus.publish(records(road.topic("a"), range(5)))
        assert await member.end_offset(0) == 5
        await drain(member, 5)
        assert member.position(0) == 5
        assert member.position(1) == 0
        assert member.position(9) is None

    async def test_partitions_are_shared_when_a_member_comes_and_taken_over_when_it_goes(self, road: Road) -> None:
        bus, other = await road.bus(a=4), await road.bus(a=4)
        one, two = Watcher(), Watcher()
        first = await one.join(bus, road.topic("a"))
        async with polling(first):
            await until(lambda: one.owned == {0, 1, 2, 3})

        second = await two.join(other, road.topic("a"))
        async with polling(first, second):
            await until(lambda: len(one.owned) == 2 and len(two.owned) == 2)
            assert one.owned | two.owned == {0, 1, 2, 3}
            # The first was told to let go of all before it got its share: the rebalance is eager.
            assert one.told[1] == ("revoked", frozenset({0, 1, 2, 3}))
            assert all(partitions for what, partitions in (*one.told, *two.told) if what == "revoked")

            await first.stop()
            await until(lambda: two.owned == {0, 1, 2, 3})

    async def test_a_member_too_many_gets_nothing_and_then_everything(self, road: Road) -> None:
        bus, other = await road.bus(a=1), await road.bus(a=1)
        one, two = Watcher(), Watcher()
        first = await one.join(bus, road.topic("a"))
        second = await two.join(other, road.topic("a"))
        async with polling(first, second):
            await until(lambda: bool(two.told) and len(one.owned) + len(two.owned) == 1)
            owner, standby = (one, two) if one.owned else (two, one)
            assert owner.member is not None
            await owner.member.stop()
            await until(lambda: standby.owned == {0})

    async def test_nothing_is_skipped_over_rebalances(self, road: Road) -> None:
        bus, other = await road.bus(a=4), await road.bus(a=4)
        first = await Watcher().join(bus, road.topic("a"))
        seen: set[tuple[int, int]] = set()
        sent = 0

        async def publish(count: int) -> None:
            nonlocal sent
            for p in range(4):
                assert all(await bus.publish(records(road.topic("a"), range(count), partition=p)))
            sent += count

        await publish(20)
        async with polling(first) as found:
            await until(lambda: len(found[first]) >= 80)
            await publish(20)
        for _ in range(2):
            second = await Watcher().join(other, road.topic("a"))
            async with polling(first, second) as more:
                await publish(20)
                await until(lambda more=more, second=second: bool(more[second]))
                await publish(20)
                await asyncio.sleep(0.3)
                await second.stop()
                await publish(20)
                seen |= {(r.partition, r.offset) for reader in more.values() for r in reader}
        async with polling(first) as last:
            seen |= {(r.partition, r.offset) for r in found[first]}
            # Nobody committed: what the second one took is given again.
            await until(
                lambda: (
                    seen | {(r.partition, r.offset) for r in last[first]}
                    == {(p, o) for p in range(4) for o in range(sent)}
                )
            )

    async def test_a_revoked_member_may_commit_until_its_callback_is_over(self, road: Road) -> None:
        bus, other = await road.bus(a=2), await road.bus(a=2)
        flushed: list[bool] = []

        async def assigned(partitions: frozenset[int]) -> None:
            pass

        async def revoked(partitions: frozenset[int]) -> None:
            if not flushed:
                flushed.append(await first.commit({0: 3, 1: 3}))

        first = await bus.join(road.topic("a"), "g", on_revoked=revoked, on_assigned=assigned)
        await bus.publish([*records(road.topic("a"), range(5)), *records(road.topic("a"), range(5), 1)])
        await drain(first, 10)

        second = await Watcher().join(other, road.topic("a"))
        async with polling(first, second) as found:
            await until(lambda: len(found[first]) + len(found[second]) >= 4)
        assert flushed == [True]
        assert {r.offset for reader in found.values() for r in reader} == {3, 4}

    async def test_what_is_not_owned_cannot_be_committed(self, road: Road) -> None:
        bus, other = await road.bus(a=2), await road.bus(a=2)
        one, two = Watcher(), Watcher()
        first = await one.join(bus, road.topic("a"))
        second = await two.join(other, road.topic("a"))
        async with polling(first, second):
            await until(lambda: len(one.owned) == 1 and len(two.owned) == 1)
        (theirs,) = two.owned
        (mine,) = one.owned
        assert not await first.commit({theirs: 0})
        assert not await first.commit({mine: 0, theirs: 0})
        assert await first.commit({mine: 0})
        assert await first.commit({})
        assert first.position(theirs) is None

        await first.stop()
        assert not await first.commit({mine: 0})
        assert await silent(first)

    async def test_a_slow_revoke_is_cut_short(self, road: Road) -> None:
        bus, other = await road.bus(a=2), await road.bus(a=2)
        cut: list[bool] = []

        async def assigned(partitions: frozenset[int]) -> None:
            pass

        async def revoked(partitions: frozenset[int]) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cut.append(True)
                raise

        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        first = await bus.join(road.topic("a"), "g", on_revoked=revoked, on_assigned=assigned)
        await bus.publish(records(road.topic("a"), range(1)))
        await drain(first, 1)
        two = Watcher()
        second = await two.join(other, road.topic("a"))
        async with polling(first, second):
            await until(lambda: len(two.owned) == 1)
        assert cut
        assert problems  # the loop's exception handler was told

    async def test_a_failing_callback_does_not_stop_the_group(self, road: Road) -> None:
        bus = await road.bus(a=1)

        async def fail(partitions: frozenset[int]) -> None:
            raise RuntimeError("a mistake in a callback")

        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        member = await bus.join(road.topic("a"), "g", on_revoked=fail, on_assigned=fail)
        await bus.publish(records(road.topic("a"), range(2)))
        assert len(await drain(member, 2)) == 2
        assert problems


async def test_stopping_a_bus_stops_its_readers(road: Road) -> None:
    bus, other = await road.bus(a=2), await road.bus(a=2)
    one, two = Watcher(), Watcher()
    first = await one.join(bus, road.topic("a"))
    tail = await bus.tail(road.topic("a"))
    async with polling(first):
        await until(lambda: one.owned == {0, 1})
    await bus.stop()

    second = await two.join(other, road.topic("a"))
    async with polling(second):
        await until(lambda: two.owned == {0, 1})
    assert await silent(tail)
