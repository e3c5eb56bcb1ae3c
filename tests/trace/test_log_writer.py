"""Log lines on their way from the topic into the store: none is lost, none is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowkit.adapters.memory import MemoryBroker, MemoryBus, MemoryStore
from flowkit.adapters.memory_logs import MemoryLogs
from flowkit.adapters.sealed_bus import SealedBus
from flowkit.monitor_ports import LogBlock, LogQuery
from flowkit.ports import Bus, Outcome, Record
from flowkit.telemetry import Telemetry
from flowkit.trace.log_writer import LogWriter
from flowkit.wire.logs import SaidBlock, encode_line, encode_logs, lines_of
from flowkit.wire.seals import Seals
from flowkit.wire.topics import LOG_PARTITIONS, Topics, partition_of
from tests.wire.test_seals import ring
from tests.worker.stand import LoopClock, virtual

TOPICS = Topics()


class PatchyLogs(MemoryLogs):
    """Answers so many inserts with UNKNOWN, having done them or not; refuses blocks of nodes called `bad`."""

    def __init__(self) -> None:
        super().__init__({})
        self.lost_answers = 0
        self.away = 0

    async def insert_logs(self, blocks: Sequence[LogBlock]) -> list[Outcome]:
        if self.away:
            self.away -= 1
            return [Outcome.UNKNOWN] * len(blocks)
        good = [block for block in blocks if block.node != "bad"]
        answers = iter(await super().insert_logs(good))
        outcomes = [Outcome.UNKNOWN if block.node == "bad" else next(answers) for block in blocks]
        if self.lost_answers:
            self.lost_answers -= 1
            return [Outcome.UNKNOWN] * len(blocks)
        return outcomes


class Desk:
    def __init__(self, seals: Seals | None = None) -> None:
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker)
        self.seals = seals
        self.logs = PatchyLogs()
        self.telemetry = Telemetry()

    async def writer(self) -> LogWriter:
        await self.bus.ensure_topics(TOPICS.specs())
        writer = LogWriter(
            bus=self.sealed(self.seals), topics=TOPICS, group="g", store=self.logs, clock=LoopClock(),
            telemetry=self.telemetry,
        )  # fmt: skip
        await writer.start()
        await asyncio.sleep(0.1)
        return writer

    def sealed(self, seals: Seals | None) -> Bus:
        bus = MemoryBus(self.broker)
        return bus if seals is None else SealedBus(bus, seals)

    async def say(self, task: str, first: int, count: int = 1, node: str = "n") -> None:
        rows = [encode_line(float(number), 20, f"line {number}", {}) for number in range(first, first + count)]
        block = SaidBlock(task, "default", node, 1, first, 20, float(first + count - 1), rows)
        await self.publish(encode_logs("w", "i", [block.encode()]), task)

    async def publish(self, value: bytes, task: str = "t") -> None:
        assert await self.bus.publish([Record(TOPICS.logs, partition_of(task, LOG_PARTITIONS), value)]) == [True]

    async def said(self, task: str) -> list[int]:
        blocks = await self.logs.read_logs(LogQuery(task), limit=1000)
        return [line.sequence for block in blocks for line in lines_of(block)]

    async def dead(self) -> list[Record]:
        return [record for log in self.broker.topics[TOPICS.dead] for record in log.records]


@virtual
async def test_lines_come_into_the_store_in_the_order_in_which_they_were_said() -> None:
    desk = Desk()
    writer = await desk.writer()
    for first in range(1, 100, 3):
        await desk.say("t", first, 3)
        await desk.say("u", first, 3)
    await writer.step()
    await writer.step()

    assert await desk.said("t") == await desk.said("u") == list(range(1, 100))
    assert desk.telemetry.counts["log_lines_stored"] == 198


@virtual
async def test_a_message_that_comes_again_changes_nothing() -> None:
    desk = Desk()
    writer = await desk.writer()
    for _ in range(3):
        await desk.say("t", 1, 5)
        await writer.step()
    await desk.say("t", 6, 5)
    await writer.step()

    assert await desk.said("t") == list(range(1, 11))
    assert desk.telemetry.counts["log_blocks_again"] == 2


@virtual
async def test_a_store_that_is_away_or_does_not_answer_is_asked_again() -> None:
    desk = Desk()
    writer = await desk.writer()
    desk.logs.away, desk.logs.lost_answers = 7, 3
    await desk.say("t", 1, 5)

    await writer.step()

    assert await desk.said("t") == list(range(1, 6))
    assert (desk.logs.away, desk.logs.lost_answers) == (0, 0)


@virtual
async def test_offsets_are_committed_behind_the_store_so_that_whoever_takes_over_misses_nothing() -> None:
    desk = Desk()
    writer = await desk.writer()
    await desk.say("t", 1, 5)
    await writer.step()
    desk.logs.away = 10**9
    await desk.say("t", 6, 5)
    step = asyncio.create_task(writer.step())
    await asyncio.sleep(30)
    assert await desk.said("t") == list(range(1, 6))
    step.cancel()  # it dies while the store is away
    await asyncio.wait([step])
    await writer.stop()

    desk.logs.away = 0
    heir = await desk.writer()
    for _ in range(3):
        await heir.step()

    assert await desk.said("t") == list(range(1, 11))


@virtual
async def test_one_who_dies_behind_the_insert_leaves_nothing_twice() -> None:
    desk = Desk()
    writer = await desk.writer()
    desk.logs.lost_answers = 10**9  # all is written, and no answer comes
    await desk.say("t", 1, 5)
    step = asyncio.create_task(writer.step())
    await asyncio.sleep(30)
    step.cancel()
    await asyncio.wait([step])
    await writer.stop()

    desk.logs.lost_answers = 0
    heir = await desk.writer()
    for _ in range(3):
        await heir.step()

    assert await desk.said("t") == list(range(1, 6))
    assert desk.telemetry.counts["log_blocks_again"] >= 1


@virtual
async def test_what_nobody_can_read_goes_to_the_dead_letters_and_the_rest_goes_on() -> None:
    desk = Desk()
    writer = await desk.writer()
    values = [
        b"", b"no JSON", b'[1,"w","i",[["t"]]]', b'[9,"w","i",[]]', b'[1,"w","i",[["t","d","n",1,1,1,20,1.0,"x"]]]',
        b'[1,"w","i",[["t","d","n",1,99999999999999999999,1,20,1.0,[]]]]',
    ]  # fmt: skip
    for value in values:
        await desk.publish(value)
    await desk.say("t", 1)
    await writer.step()

    assert await desk.said("t") == [1]
    assert len(await desk.dead()) == len(values)
    reasons = [dict(record.headers)["reason"].decode() for record in await desk.dead()]
    assert "version 9" in reasons[3]


@virtual
async def test_lines_that_are_signed_by_nobody_by_a_stranger_or_in_another_pools_name_are_buried_and_stop_nobody() -> (
    None
):
    desk = Desk(Seals(ring("coordinator/1", "plain/1", "fine/1"), TOPICS, require=True))
    writer = await desk.writer()
    plain, fine, stranger = (Seals(ring(name), TOPICS, require=True) for name in ("plain/1", "fine/1", "other/1"))

    def said(text: str, worker: str) -> Record:
        block = SaidBlock("t", "default", text, 1, 1, 20, 1.0, [encode_line(1.0, 20, text, {})])
        value = encode_logs(worker, "i", [block.encode()])
        return Record(TOPICS.logs, partition_of("t", LOG_PARTITIONS), value, worker.encode())

    honest = plain.seal(said("honest", "plain/w"))
    changed = replace(honest, value=(honest.value or b"").replace(b"honest", b"forged"))
    elsewhere = replace(honest, partition=(honest.partition + 1) % LOG_PARTITIONS)
    records = [
        honest, said("unsigned", "plain/w"), stranger.seal(said("stranger", "plain/w")), changed,
        fine.seal(said("foreign", "plain/w")), elsewhere, fine.seal(said("fine", "fine/w")),
    ]  # fmt: skip
    assert set(await desk.bus.publish(records)) == {True}
    for _ in range(2):
        await writer.step()

    blocks = await desk.logs.read_logs(LogQuery("t"), limit=10)
    assert sorted(block.node for block in blocks) == ["fine", "honest"]
    reasons = sorted(dict(letter.headers)["reason"].decode() for letter in await desk.dead())
    wrong = "the signature with 'plain/1' is wrong: forged, or changed on the way"
    assert reasons == [
        "not signed", "signed by the pool 'fine', and said by 'plain/w'",
        "signed with a key that is not known here: 'other/1'", wrong, wrong,
    ]  # fmt: skip


@virtual
async def test_a_block_that_the_store_refuses_for_good_stops_nobody() -> None:
    desk = Desk()
    writer = await desk.writer()
    await desk.say("t", 1, node="bad")
    await desk.say("t", 1)
    step = asyncio.create_task(writer.step())
    for first in range(2, 20):
        await asyncio.sleep(10)
        await desk.say("t", first)
    await asyncio.wait([step], timeout=100)

    assert step.done()
    (letter,) = await desk.dead()
    assert "refuses lines 1 to 1 of node 'bad'" in dict(letter.headers)["reason"].decode()
    assert await desk.said("t") == [1]
    await writer.step()
    assert await desk.said("t") == list(range(1, 20))


@virtual
async def test_two_writers_share_the_partitions() -> None:
    desk = Desk()
    writers = [await desk.writer(), await desk.writer()]
    for number in range(40):
        await desk.say(f"t{number}", 1, 2)
    done: list[Any] = await asyncio.gather(*(writer.step() for writer in writers), return_exceptions=True)
    assert done == [None, None]

    assert [await desk.said(f"t{number}") for number in range(40)] == [[1, 2]] * 40
    assert desk.telemetry.counts["log_blocks_again"] == 0


def test_the_store_of_the_tests_is_the_one_of_the_memory() -> None:
    assert isinstance(MemoryStore().logs, MemoryLogs)
