"""Reads one stream from where its reader is, block by block: those that are rung, and the others from the store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flowkit.core.payload import Payload
from flowkit.ports import Block, Outcome, Store, StreamId
from flowkit.wire.facts import write_payload
from flowkit.wire.stream import Cursor, Mark, Ring, read_body, write_body
from flowkit.worker.ending import end
from flowkit.worker.inputs import patiently
from flowkit.worker.stream_hub import StreamHub, Worker

READ_BLOCKS = 16
MOST_ROWS = 2000
MOST_INBOX = 64
FIRST_POLL_SEC = 0.25
LONGEST_POLL_SEC = 5.0
SEALED = 2**31
"""The attempt that closes the stream of a node that has ended without doing so: later than any of its own."""


@dataclass(slots=True)
class Row:
    """One batch as its reader gets it: the `index`-th of its source, in block `seq`; `bytes` are those up to it."""

    source: str
    index: int
    uid: str
    value: Any
    meta: Any
    artifact: list[Any] | None
    bytes: int
    seq: int


class StreamReader:
    """`rows` are at hand. `ended`: no more will come. `writer` is the worker that wrote last; `moved` hears of rows, of
    the end, of another writer, and of a fault, which `take` raises."""

    def __init__(self, *, store: Store, hub: StreamHub, stream: StreamId, start: Cursor,
                 moved: Callable[[], None]) -> None:  # fmt: skip
        self.rows: deque[Row] = deque()
        self.ended = False
        self.writer: Worker | None = None
        self.known = start.index
        self._store = store
        self._stream = stream
        self._start = start
        self._after = max(0, start.seq - 1)
        self._me = hub.me
        self._bytes = start.bytes
        self._moved = moved
        self._over = False
        self._inbox: dict[int, Block] = {}
        self._rung = asyncio.Event()
        self._thirsty = asyncio.Event()
        self._fault: BaseException | None = None
        self._leave = hub.listen(stream, self._hear)
        self._pumping = asyncio.create_task(self._pump(), name=f"stream {stream.node}")

    def take(self) -> Row | None:
        """The next row, if one is at hand. Raises what kept more from coming."""
        if not self.rows:
            if self._fault is not None:
                raise self._fault
            return None
        row = self.rows.popleft()
        if len(self.rows) == MOST_ROWS // 2:
            self._thirsty.set()
        return row

    def over(self) -> None:
        """The node has ended: it adds nothing to what stands in the store."""
        self._over = True
        self._rung.set()

    async def close(self) -> None:
        self._leave()
        await end(self._pumping)

    def _hear(self, ring: Ring) -> None:
        block = ring.block
        if block is not None and block.seq > self._after and len(self._inbox) < MOST_INBOX:
            self._inbox[block.seq] = block
        self._rung.set()

    async def _pump(self) -> None:
        try:
            while not self.ended:
                await self._fill()
        except Exception as error:  # whoever takes the next row gets it
            self._fault = error
            self._moved()

    async def _fill(self) -> None:
        while len(self.rows) >= MOST_ROWS:
            self._thirsty.clear()
            await self._thirsty.wait()
        self._rung.clear()
        block = self._inbox.pop(self._after + 1, None)
        if block is not None:
            self._absorb([block])
            return
        blocks = await patiently(lambda: self._store.read_blocks(self._stream, after=self._after, limit=READ_BLOCKS))
        if self._absorb(blocks):
            return
        if self._over:
            await self._seal()
        else:
            await self._wait()

    async def _seal(self) -> None:
        """The node has ended, and nothing was found behind what is known. That proves nothing; that the next number can
        be taken does. A node that ended well has closed its stream: then this one is taken already."""
        mark = Mark(worker=self._me[0], bytes=self._bytes, end=[write_payload(Payload()), None])
        seal = Block(self._stream, self._after + 1, SEALED, self.known, write_body(mark, ()))
        if await self._store.insert_block(seal) is Outcome.OK:
            self.ended = True
            self._moved()
        else:
            await asyncio.sleep(FIRST_POLL_SEC)

    async def _wait(self) -> None:
        """Until it is rung; a ring that was lost costs a moment at first, then at most some seconds."""
        wait = FIRST_POLL_SEC
        while self._after + 1 not in self._inbox and not self._rung.is_set():
            try:
                async with asyncio.timeout(wait):
                    await self._rung.wait()
            except TimeoutError:
                if await patiently(lambda: self._store.read_blocks(self._stream, after=self._after, limit=1)):
                    return
            wait = min(LONGEST_POLL_SEC, 2 * wait)

    def _absorb(self, blocks: Iterable[Block]) -> bool:
        """Take in the blocks that follow; whether there were any."""
        before = self._after
        for block in blocks:
            if block.seq != self._after + 1:
                break
            self._after = block.seq
            self._take_in(block)
            if self.ended:
                break
        for seq in [seq for seq in self._inbox if seq <= self._after]:
            del self._inbox[seq]
        if self._after == before:
            return False
        self._moved()
        return True

    def _take_in(self, block: Block) -> None:
        content = read_body(block.body)
        mark, batches = content.mark, content.batches
        self.writer = (mark.worker, mark.incarnation)
        self.known, self._bytes = max(self.known, block.count), mark.bytes
        count, first = len(batches), block.count - len(batches)
        for place, batch in enumerate(batches, start=1):
            index = first + place
            if index <= self._start.index:
                continue
            uid, value, meta, artifact = (*batch, None, None)[:4]
            size = mark.bytes - mark.size + mark.size * place // count
            self.rows.append(Row(self._stream.node, index, uid, value, meta, artifact, size, block.seq))
        self.ended = mark.end is not None
