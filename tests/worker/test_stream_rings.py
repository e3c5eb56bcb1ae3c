"""What workers ring to one another about their streams: small blocks themselves, else that there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.ports import Block, Record, StreamId
from flowkit.wire.stream import RING_BYTES, Cursor, Mark, Ring, decode_rings, encode_rings, ring_of, write_body
from flowkit.wire.topics import STREAM_PARTITIONS, partition_of
from flowkit.worker.stream_reader import FIRST_POLL_SEC
from tests.worker.stand import WORKER, Stand, virtual
from tests.worker.streams import TASK, blocks, ended, job, plan, write

OTHER = ("w-other", "i1")


def block(seq: int, *values: int, end: bool = False) -> tuple[Block, Mark]:
    """A block of node p as another worker wrote it; each holds as many batches as there are `values`."""
    count = 2 * (seq - 1) + len(values)
    mark = Mark(*OTHER, size=len(values), bytes=count, end=[[None], None] if end else None)
    body = write_body(mark, [f'["{value}",{value}]'.encode() for value in values])
    return Block(StreamId(TASK, 0, "p"), seq, 1, count, body), mark


async def ring(stand: Stand, *rings: Ring) -> None:
    value = encode_rings(WORKER, stand.runtime.incarnation, rings)
    await publish(stand, value)


async def publish(stand: Stand, value: bytes) -> None:
    record = Record(stand.topics.streams, partition_of(WORKER, STREAM_PARTITIONS), value, WORKER.encode())
    await MemoryBus(stand.broker).publish([record])


class Ear:
    """What is rung to another worker."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.heard: list[Ring] = []

    async def __aenter__(self) -> Ear:
        partition = partition_of(OTHER[0], STREAM_PARTITIONS)
        self.tail = await MemoryBus(self.stand.broker).tail(self.stand.topics.streams, [partition])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tail.stop()

    async def listen(self) -> list[Ring]:
        for record in await self.tail.fetch(0.01):
            if record.key == OTHER[0].encode():
                worker, incarnation, rings = decode_rings(record.value)
                assert (worker, incarnation) == OTHER
                self.heard += rings
        return self.heard


async def collect(rows: AsyncIterator[int]) -> list[int]:
    return [row async for row in rows]


@virtual
async def test_blocks_that_are_rung_are_read_without_asking_the_store() -> None:
    asked = 0

    async with Stand([collect]) as stand:

        async def nothing(*_: Any, **__: Any) -> list[Block]:
            nonlocal asked
            asked += 1
            return []

        stand.store.read_blocks = nothing  # type: ignore[method-assign]
        mine = job(stand, "c", "collect", plan(reads={"rows": ["p"]}), {"rows": None})
        await stand.send(mine)
        await asyncio.sleep(FIRST_POLL_SEC / 2)
        before = asked
        # The second one first: it waits for the one before it. A third comes twice.
        await ring(stand, ring_of(*block(2, 3, 4)), ring_of(*block(1, 1, 2)), ring_of(*block(2, 3, 4)))
        await ring(stand, ring_of(*block(3, end=True)))
        await stand.until(lambda: ended(stand, mine))
        assert ended(stand, mine)[0].output.value == [1, 2, 3, 4]
        assert asked <= before + 2


@virtual
async def test_a_ring_that_nobody_can_read_is_counted_and_harms_nothing() -> None:
    async with Stand([collect]) as stand:
        await publish(stand, b"{}")
        await stand.until(lambda: stand.telemetry.counts["unreadable_rings"] == 1)
        await write(stand, "p", 1)
        mine = job(stand, "c", "collect", plan(reads={"rows": ["p"]}), {"rows": None})
        await stand.send(mine)
        await stand.until(lambda: ended(stand, mine))
        assert ended(stand, mine)[0].output.value == [1]


@virtual
async def test_a_reader_elsewhere_gets_small_blocks_whole_and_hears_of_large_ones() -> None:
    sizes = asyncio.Queue[int]()

    async def texts() -> AsyncIterator[str]:
        while size := await sizes.get():
            yield "x" * size

    async with Stand([texts]) as stand, Ear(stand) as ear:
        mine = job(stand, "p", "texts", plan(readers={"c": True}))
        await stand.send(mine)
        await sizes.put(10)
        while len(await blocks(stand, "p")) < 1:
            await asyncio.sleep(0.01)
        assert await ear.listen() == []  # nobody knows yet where c is
        cursors = {"p": Cursor(index=1, bytes=12, seq=1)}
        await ring(stand, Ring(TASK, 0, "c", 1, 1, 0, *OTHER, cursors))
        while not await ear.listen():
            await asyncio.sleep(0.01)
        assert [(one.node, one.seq, one.body) for one in ear.heard] == [("p", 1, "")]  # here is p, and has one block
        ear.heard.clear()
        for size in (20, RING_BYTES + 1):
            await sizes.put(size)
            while not await ear.listen() or ear.heard[-1].seq != len(await blocks(stand, "p")):
                await asyncio.sleep(0.01)
        written = await blocks(stand, "p")
        assert [(one.seq, one.body) for one in ear.heard] == [(2, written[1].body), (3, "")]
        await sizes.put(0)
        await stand.until(lambda: ended(stand, mine))
