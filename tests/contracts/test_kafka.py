"""What the Kafka bus promises beyond the contract: outages are silence and doubt, and it comes back from each."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition

from deploy.local import KafkaServer
from flowkit.adapters import kafka_client
from flowkit.adapters.kafka import KafkaBus
from flowkit.adapters.kafka_readers import KafkaMember, KafkaTail
from flowkit.errors import BusUnavailable, ConfigError
from flowkit.ports import Member, Record, Tail, TopicSpec

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120), pytest.mark.xdist_group("kafka_of_its_own")]

# aiokafka leaves futures and sockets behind when its broker vanishes.
noisy = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@pytest.fixture(scope="module")
def server(kafka_address: str) -> Iterator[KafkaServer]:
    """A broker that a test may crash; `kafka_address` first, for it skips where none can be had."""
    with KafkaServer() as own:
        yield own


@pytest.fixture
async def bus(server: KafkaServer) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(server.address, publish_timeout=10.0)
    await bus.start()
    yield bus
    await bus.stop()


@pytest.fixture
async def topic(bus: KafkaBus) -> str:
    name = f"t{uuid.uuid4().hex[:10]}"
    await bus.ensure_topics({name: TopicSpec(2, retention_sec=3600)})
    return name


class Life:
    """A member's callbacks, noted."""

    def __init__(self) -> None:
        self.told: list[tuple[str, frozenset[int]]] = []

    async def revoked(self, partitions: frozenset[int]) -> None:
        self.told.append(("revoked", partitions))

    async def assigned(self, partitions: frozenset[int]) -> None:
        self.told.append(("assigned", partitions))

    async def join(self, bus: KafkaBus, topic: str) -> KafkaMember:
        member = await bus.join(topic, "g", on_revoked=self.revoked, on_assigned=self.assigned)
        assert isinstance(member, KafkaMember)
        return member


async def tail_of(bus: KafkaBus, topic: str) -> KafkaTail:
    tail = await bus.tail(topic)
    assert isinstance(tail, KafkaTail)
    return tail


async def drain(reader: Tail | Member, enough: Callable[[set[bytes | None]], bool]) -> set[bytes | None]:
    seen: set[bytes | None] = set()
    async with asyncio.timeout(60):
        while not enough(seen):
            seen |= {record.value for record in await reader.fetch(0.5)}
    return seen


async def publish_until_it_works(bus: KafkaBus, topic: str, value: bytes) -> None:
    async with asyncio.timeout(60):
        while not all(await bus.publish([Record(topic, partition, value) for partition in range(2)])):
            pass  # each try takes its timeout


async def seconds_until(reader: Tail | Member, wanted: set[bytes | None]) -> float:
    began = time.monotonic()
    await drain(reader, wanted.issubset)
    return time.monotonic() - began


def looks_of(tail: KafkaTail, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When aiokafka looks what there is to fetch, from now on."""
    fetcher, looks = tail._source.consumer._fetcher, list[float]()
    really = fetcher._get_actions_per_node

    def look(assignment: Any) -> Any:
        looks.append(time.monotonic())
        return really(assignment)

    monkeypatch.setattr(fetcher, "_get_actions_per_node", look)
    return looks


async def test_readers_that_were_idle_have_what_comes_at_once_and_what_a_rebalance_brings(
    bus: KafkaBus, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though aiokafka looks for partitions by itself only every `LOOK_SEC`, and the broker keeps an empty fetch: for so
    long here that a machine which halts for seconds is not taken for it."""
    monkeypatch.setattr(kafka_client, "LOOK_SEC", 60.0)
    for name in ("TAIL_WAIT_SEC", "IDLE_WAIT_SEC"):
        monkeypatch.setattr(kafka_client, name, 20.0)
    tail, lives = await tail_of(bus, topic), [Life(), Life()]
    members = [await life.join(bus, topic) for life in lives]
    async with asyncio.timeout(60):
        while {life.told[-1][1] if life.told else None for life in lives} != {frozenset([0]), frozenset([1])}:
            await asyncio.gather(*(member.fetch(0.1) for member in members))
    stays, goes = sorted(zip(lives, members, strict=True), key=lambda pair: 0 not in pair[0].told[-1][1])
    looks = looks_of(tail, monkeypatch)
    assert await tail.fetch(2.0) == []
    assert len(looks) <= 3

    assert await bus.publish([Record(topic, 0, b"a"), Record(topic, 1, b"b")]) == [True] * 2
    waits = await asyncio.gather(
        seconds_until(tail, {b"a", b"b"}), seconds_until(stays[1], {b"a"}), seconds_until(goes[1], {b"b"})
    )
    assert max(waits) < 15.0

    assert await goes[1].commit({1: 1})
    await goes[1].stop()
    async with asyncio.timeout(60):
        while stays[0].told[-1] != ("assigned", frozenset([0, 1])):
            assert await stays[1].fetch(0.1) == []
    assert await bus.publish([Record(topic, 0, b"c"), Record(topic, 1, b"d")]) == [True] * 2
    assert await seconds_until(stays[1], {b"c", b"d"}) < 15.0


@pytest.mark.slow
@noisy
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_outage_is_doubt_and_silence_and_then_it_goes_on(
    server: KafkaServer, bus: KafkaBus, topic: str, how: str
) -> None:
    tail, life = await tail_of(bus, topic), Life()
    member = await life.join(bus, topic)
    assert await bus.publish([Record(topic, 0, b"before")]) == [True]
    await drain(tail, lambda seen: b"before" in seen)
    await drain(member, lambda seen: b"before" in seen)
    assert await member.commit({0: 1})

    server.kill() if how == "killed" else server.freeze()
    try:
        began = time.monotonic()
        answers = await asyncio.gather(*(bus.publish([Record(topic, i % 2, b"lost?")] * 3) for i in range(20)))
        assert answers == [[False] * 3] * 20
        assert time.monotonic() - began < 30
        began = time.monotonic()
        assert await tail.fetch(0.3) == []
        assert await member.fetch(0.3) == []
        assert time.monotonic() - began < 20
        began = time.monotonic()
        assert await member.end_offset(0) is None
        assert not await member.commit({0: 1})
        assert time.monotonic() - began < 30
    finally:
        await asyncio.to_thread(server.start) if how == "killed" else server.thaw()

    await publish_until_it_works(bus, topic, b"after")
    await drain(tail, lambda seen: b"after" in seen)
    await drain(member, lambda seen: b"after" in seen)
    async with asyncio.timeout(30):
        while await member.end_offset(0) is None:
            await member.fetch(0.1)
    assert (await bus.publish([Record(topic, 0, b"x")] * 100)) == [True] * 100


@pytest.mark.slow
@noisy
async def test_an_empty_broker_gets_its_topics_back_and_everybody_reads_on(
    server: KafkaServer, bus: KafkaBus, topic: str
) -> None:
    tail, life = await tail_of(bus, topic), Life()
    member = await life.join(bus, topic)
    await bus.publish([Record(topic, partition, b"%d" % i) for i in range(50) for partition in range(2)])
    await drain(tail, lambda seen: len(seen) == 50)
    await drain(member, lambda seen: len(seen) == 50)
    await member.commit({0: 50, 1: 50})

    server.kill()
    shutil.rmtree(server.data_dir / "log")
    await asyncio.to_thread(server.start)

    await publish_until_it_works(bus, topic, b"after")
    assert b"after" in await drain(tail, lambda seen: b"after" in seen)
    assert b"after" in await drain(member, lambda seen: b"after" in seen)
    new = await tail_of(bus, topic)
    assert await bus.publish([Record(topic, 0, b"new")]) == [True]
    assert await drain(new, bool) == {b"new"}


@noisy
async def test_a_stop_while_the_broker_is_frozen_is_bounded(server: KafkaServer) -> None:
    bus = KafkaBus(server.address, publish_timeout=0.5)
    await bus.start()
    topic = f"t{uuid.uuid4().hex[:10]}"
    await bus.ensure_topics({topic: TopicSpec(2)})
    await tail_of(bus, topic)
    member = await Life().join(bus, topic)
    await member.fetch(0.5)
    server.freeze()
    try:
        assert await bus.publish([Record(topic, 0, b"x")]) == [False]
        began = time.monotonic()
        await bus.stop()
        assert time.monotonic() - began < 30
    finally:
        server.thaw()


async def test_a_broker_that_is_not_there_is_named_in_time() -> None:
    bus = KafkaBus("127.0.0.1:1", start_timeout=1.0)
    began = time.monotonic()
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1.*running"):
        await bus.start()
    assert time.monotonic() - began < 20
    with pytest.raises(BusUnavailable, match="not started"):
        await bus.ensure_topics({"t": TopicSpec(1)})


async def test_a_bus_may_wait_for_its_broker(server: KafkaServer) -> None:
    await asyncio.to_thread(server.stop)
    bus = KafkaBus(server.address, start_timeout=30)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(server.start)
    await starting
    await bus.stop()


@noisy
async def test_a_producer_out_of_sequence_is_replaced(bus: KafkaBus, topic: str) -> None:
    assert await bus.publish([Record(topic, 0, b"1")]) == [True]
    assert bus._publisher is not None
    producer = bus._publisher._live
    producer._txn_manager.increment_sequence_number(TopicPartition(topic, 0), 7)
    answers = [await bus.publish([Record(topic, 0, b"2")]) for _ in range(3)]
    assert answers == [[False], [True], [True]]
    assert bus._publisher._live is not producer


async def test_a_tail_that_slept_too_long_goes_to_the_end(bus: KafkaBus, topic: str) -> None:
    tail = await tail_of(bus, topic)
    assert await tail.fetch(0.1) == []
    consumer = tail._source.consumer
    part = TopicPartition(topic, 0)
    await bus.publish([Record(topic, 0, b"%d" % i) for i in range(10)])
    await drain(tail, lambda seen: len(seen) == 10)

    from aiokafka.admin import RecordsToDelete

    await bus.publish([Record(topic, 0, b"%d" % i) for i in range(10, 20)])
    async with bus._clients.admin(10) as admin:
        await admin.delete_records({part: RecordsToDelete(before_offset=15)})
    consumer.seek(part, 10)  # what it has fetched ahead is gone
    assert await tail.fetch(1.0) == []
    assert await tail.fetch(0.5) == []
    await bus.publish([Record(topic, 0, b"new")])
    assert await drain(tail, bool) == {b"new"}


@noisy
async def test_a_tail_whose_consumer_broke_is_made_anew_and_loses_nothing(bus: KafkaBus, topic: str) -> None:
    tail = await tail_of(bus, topic)
    await bus.publish([Record(topic, 0, b"1")])
    await drain(tail, bool)
    broken = tail._source.consumer
    broken._fetcher._fetch_task.cancel()
    await asyncio.sleep(0.05)
    await bus.publish([Record(topic, 0, b"2"), Record(topic, 1, b"3")])
    # What was under way when it broke may still come from the old one.
    assert await drain(tail, lambda seen: len(seen) == 2) == {b"2", b"3"}
    await bus.publish([Record(topic, 0, b"4")])
    assert await drain(tail, bool) == {b"4"}
    assert tail._source.consumer is not broken


@noisy
async def test_a_member_whose_coordination_broke_joins_anew(bus: KafkaBus, topic: str) -> None:
    life = Life()
    member = await life.join(bus, topic)
    await bus.publish([Record(topic, 0, b"1")])
    await drain(member, bool)
    await member.commit({0: 1})
    broken = member._source.consumer
    broken._coordinator._coordination_task.cancel()
    await asyncio.sleep(0.05)
    await bus.publish([Record(topic, 1, b"2")])
    assert b"2" in await drain(member, lambda seen: b"2" in seen)
    both = frozenset({0, 1})
    assert life.told == [("assigned", both), ("revoked", both), ("assigned", both)]


@pytest.mark.slow
async def test_a_member_of_a_crashed_process_is_replaced_within_its_session(server: KafkaServer, topic: str) -> None:
    script = """
import asyncio, sys
from flowkit.adapters.kafka import KafkaBus
from flowkit.ports import TopicSpec
async def note(partitions):
    if partitions: print("owner", flush=True)
async def main():
    bus = KafkaBus(sys.argv[1])
    await bus.start()
    await bus.ensure_topics({sys.argv[2]: TopicSpec(2)})
    member = await bus.join(sys.argv[2], "g", on_revoked=note, on_assigned=note)
    while True:
        await member.fetch(1)
asyncio.run(main())
"""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, server.address, topic, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"owner\n"
    process.kill()
    await process.wait()

    bus, life = KafkaBus(server.address), Life()
    await bus.start()
    await bus.ensure_topics({topic: TopicSpec(2)})
    member = await life.join(bus, topic)
    began = time.monotonic()
    async with asyncio.timeout(30):
        while life.told[-1:] != [("assigned", frozenset({0, 1}))]:
            await member.fetch(0.2)
    assert time.monotonic() - began < 10
    await bus.stop()


async def test_topics_are_made_with_their_retention(server: KafkaServer, bus: KafkaBus, topic: str) -> None:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    async with bus._clients.admin(10) as admin:
        answer: Any = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    configs = {name: value for name, value, *_ in answer[0].resources[0][4]}
    assert configs["retention.ms"] == "3600000"
    assert configs["segment.ms"] == "1800000"


@pytest.mark.parametrize("wrong", [{"security_protocol": "SSL"}, {"no_such_setting": 1}])
async def test_wrong_security_settings_are_told_before_connecting(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="security"):
        await KafkaBus("127.0.0.1:1", security=wrong).start()


async def test_missing_topics_are_not_made_by_accident(bus: KafkaBus) -> None:
    with pytest.raises(ValueError, match="ensure_topics"):
        await bus.tail("never-made")
    with pytest.raises(ValueError, match="ensure_topics"):
        bus.partitions("never-made")
