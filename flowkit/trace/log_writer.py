"""Writes down what attempts say: reads `logs.v1` as one of a group, and commits its offsets only behind the store.

A line that Kafka has acknowledged is not lost: who dies before the offset is committed leaves the message to whoever
owns the partition next. It is not shown twice either: a block that comes again is a duplicate in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from flowkit.errors import Corrupt, UnknownFact
from flowkit.monitor_ports import LogBlock, LogStore
from flowkit.ports import Bus, Clock, Member, Outcome, Record
from flowkit.telemetry import DeadLettered, Telemetry
from flowkit.wire.dead import dead_letter
from flowkit.wire.logs import decode_logs
from flowkit.wire.topics import Topics

FETCH_SEC: Final = 2.0
WRITE_BLOCKS: Final = 500
WRITE_BYTES: Final = 4 * 1024 * 1024
FIRST_PAUSE_SEC: Final = 0.1
LONGEST_PAUSE_SEC: Final = 5.0
MOST_REFUSALS: Final = 5
"""So often a block may be refused by a store that answers: then it is that block's own fault."""


class LogWriter:
    """`step` reads what has come and returns once it is in the store: nothing piles up here. `group` is the consumer
    group that shares the partitions."""

    def __init__(self, *, bus: Bus, topics: Topics, group: str, store: LogStore, clock: Clock,
                 telemetry: Telemetry) -> None:  # fmt: skip
        self._bus = bus
        self._topics = topics
        self._group = group
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._member: Member | None = None
        self._place = 0
        self._known: LogBlock | None = None
        self._pending: list[LogBlock] = []

    async def start(self) -> None:
        """Join the group."""
        self._member = await self._bus.join(self._topics.logs, self._group, on_revoked=_nothing, on_assigned=_nothing)

    async def drain(self) -> None:
        """Store what has come until now: for a bus that ends with this process. `step` is not called any more."""
        await self._put_down(self._pending)
        while self._member is not None and (records := await self._member.fetch(0)):
            await self._take(records)

    async def stop(self) -> None:
        """Leave the group. What was read and is not in the store yet, the next owner reads again."""
        member, self._member = self._member, None
        if member is not None:
            await member.stop()

    async def step(self) -> None:
        """Read what has come, store it, and commit the offsets."""
        assert self._member is not None
        records = await self._member.fetch(FETCH_SEC)
        if records:
            await self._take(records)

    # ------------------------------------------------------------------------------------------ how

    async def _take(self, records: Sequence[Record]) -> None:
        assert self._member is not None
        self._pending = []
        for record in records:
            self._pending += await self._blocks(record)
        await self._put_down(self._pending)
        self._pending = []
        # Refused in a rebalance: then it comes again, and is a duplicate.
        await self._member.commit({record.partition: record.offset + 1 for record in records})

    async def _blocks(self, record: Record) -> list[LogBlock]:
        try:
            if record.refused:
                raise Corrupt(record.refused)
            blocks = decode_logs(record.value, record.signer)
            return [replace(block, place=self._next_place()) for block in blocks]
        except (Corrupt, UnknownFact) as error:
            await self._put_aside(record, str(error))
            return []

    def _next_place(self) -> int:
        self._place = max(self._place + 1, int(self._clock.wall() * 1_000_000))
        return self._place

    async def _put_down(self, blocks: Sequence[LogBlock]) -> None:
        """Insert them all, each until the store says that it is there."""
        for portion in _portions(blocks):
            pause, refusals = FIRST_PAUSE_SEC, 0
            waiting = await self._insert(portion)
            while waiting:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SEC, 2 * pause)
                left, answers = await self._insert_again(waiting)
                refusals = refusals + 1 if answers and len(left) == len(waiting) else 0
                waiting = left
                if refusals >= MOST_REFUSALS:
                    await self._give_up(waiting.pop(0))
                    refusals = 0

    async def _insert(self, blocks: Sequence[LogBlock]) -> list[LogBlock]:
        """Those of which it is not known whether they are there."""
        outcomes = await self._store.insert_logs(blocks)
        self._count(blocks, outcomes)
        return [block for block, said in zip(blocks, outcomes, strict=True) if said is Outcome.UNKNOWN]

    async def _insert_again(self, blocks: Sequence[LogBlock]) -> tuple[list[LogBlock], bool]:
        """As `_insert`, and whether the store answers at all: it is asked about a block that is surely there too."""
        if self._known is None:
            return await self._insert(blocks), False
        left = await self._insert([self._known, *blocks])
        return [block for block in left if block is not self._known], self._known not in left

    def _count(self, blocks: Sequence[LogBlock], outcomes: Sequence[Outcome]) -> None:
        for block, outcome in zip(blocks, outcomes, strict=True):
            if outcome is Outcome.OK:
                self._known = block
                self._telemetry.count("log_lines_stored", block.count)
            elif outcome is Outcome.DUPLICATE and block is not self._known:
                self._telemetry.count("log_blocks_again")

    async def _give_up(self, block: LogBlock) -> None:
        body = block.body.encode("utf-8", "replace")
        about = f"the store refuses lines {block.first} to {block.first + block.count - 1} of node {block.node!r}"
        await self._put_aside(Record(self._topics.logs, -1, body), about, block.task_id)

    async def _put_aside(self, record: Record, reason: str, task_id: str = "") -> None:
        self._telemetry.emit(DeadLettered(record.topic, reason, task_id))
        await self._bus.publish([dead_letter(self._topics, record, reason, task_id)])


def _portions(blocks: Iterable[LogBlock]) -> Iterable[list[LogBlock]]:
    portion: list[LogBlock] = []
    size = 0
    for block in blocks:
        if portion and (len(portion) >= WRITE_BLOCKS or size + len(block.body) > WRITE_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(block)
        size += len(block.body)
    if portion:
        yield portion


async def _nothing(partitions: frozenset[int]) -> None:
    """Nothing of a partition is kept here between two steps."""
