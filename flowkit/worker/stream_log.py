"""Writes a node's blocks for one attempt, and for no attempt that a later one has overtaken.

Every block has the next number, and of two with one number the store takes one. A later attempt begins by writing a
block; from then on the earlier one's next number is taken, whatever it does, and it learns so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from flowkit.errors import StoreUnavailable
from flowkit.ports import Block, Outcome, Store, StreamId
from flowkit.wire.stream import Mark, read_body, read_mark, write_body
from flowkit.worker.inputs import PATIENCE_SEC, patiently
from flowkit.worker.outcome import AttemptFailure

_FIRST_WAIT_SEC, _LONGEST_WAIT_SEC = 0.05, 2.0
READ_BLOCKS = 64


class Fenced(AttemptFailure):
    """A later attempt of the node writes its stream now."""

    def __init__(self, stream: StreamId, attempt: int, later: int) -> None:
        message = f"attempt {later} of node {stream.node!r} has overtaken attempt {attempt}"
        super().__init__("fenced", message, permanent=False)


class StreamLog:
    """`seq` and `count` are those of the last block, `mark` what it says."""

    def __init__(self, store: Store, stream: StreamId, attempt: int, worker: str, incarnation: str) -> None:
        self.stream = stream
        self.attempt = attempt
        self.worker = worker
        self.incarnation = incarnation
        self.seq = 0
        self.count = 0
        self.mark = Mark()
        self._store = store

    async def open(self) -> None:
        """Find out what is there, and shut earlier attempts out. A stream that has ended is left as it is. A first
        attempt has none before it and need not look: if a later one was here, it learns so when it writes. Raises
        `Fenced`, `StoreUnavailable`."""
        if self.attempt == 1:
            return
        wait, waited = _FIRST_WAIT_SEC, 0.0
        while True:
            last = await patiently(lambda: self._store.last_block(self.stream))
            if last is not None:
                self._check(last)
                self.seq, self.count, self.mark = last.seq, last.count, read_mark(last.body)
            if self.mark.end is not None or (last is not None and last.attempt == self.attempt):
                return
            mark = self._signed(self.mark)
            mark.size, mark.state = 0, None
            if await self._insert(self._block(self.count, mark, ())) is Outcome.OK:
                self.mark = mark
                return
            wait, waited = await _pause(wait, waited, "the store does not say whether an attempt's first block is in")

    async def append(self, count: int, mark: Mark, batches: Sequence[bytes]) -> Block:
        """Write the next block, until the store says that it is in. Raises `Fenced`, `StoreUnavailable`."""
        mark = self._signed(mark)
        block = self._block(count, mark, batches)
        wait, waited = _FIRST_WAIT_SEC, 0.0
        while True:
            outcome = await self._insert(block)
            if outcome is Outcome.DUPLICATE and await self._is_there(block):
                outcome = Outcome.OK
            if outcome is Outcome.OK:
                self.count, self.mark = count, mark
                return block
            wait, waited = await _pause(wait, waited, f"the store does not say whether block {block.seq} is in")

    async def state(self) -> Mark:
        """The mark with the last saved state; the very beginning if none was saved."""
        if not self.mark.saved:
            return Mark()
        found = await patiently(lambda: self._store.read_blocks(self.stream, after=self.mark.saved - 1, limit=1))
        if not found or found[0].seq != self.mark.saved:
            raise StoreUnavailable(f"block {self.mark.saved} of node {self.stream.node!r} is not to be had; try again")
        return read_mark(found[0].body)

    async def batches(self) -> list[list[Any]]:
        """All batches that are there, as `[uid, value, meta, artifact]`."""
        found: list[list[Any]] = []
        after = 0
        while after < self.seq:
            blocks = await patiently(partial(self._store.read_blocks, self.stream, after=after, limit=READ_BLOCKS))
            if not blocks or blocks[0].seq != after + 1:
                raise StoreUnavailable(f"block {after + 1} of node {self.stream.node!r} is not to be had; try again")
            for block in blocks:
                found += read_body(block.body).batches
            after = blocks[-1].seq
        return found

    def _signed(self, mark: Mark) -> Mark:
        signed = Mark(**{name: getattr(mark, name) for name in Mark.__struct_fields__})
        signed.worker, signed.incarnation = self.worker, self.incarnation
        return signed

    def _block(self, count: int, mark: Mark, batches: Sequence[bytes]) -> Block:
        return Block(self.stream, self.seq + 1, self.attempt, count, write_body(mark, batches))

    async def _insert(self, block: Block) -> Outcome:
        outcome = await self._store.insert_block(block)
        if outcome is Outcome.OK:
            self.seq = block.seq
        return outcome

    async def _is_there(self, block: Block) -> bool:
        """Whether the block that has this one's number is this one. A majority must say so: what a single server holds
        may be taken back."""
        found = await patiently(lambda: self._store.read_blocks(self.stream, after=block.seq - 1, limit=1))
        if not found or found[0].seq != block.seq:
            return False
        self._check(found[0])
        if found[0].attempt < self.attempt:
            raise RuntimeError(f"block {block.seq} of node {self.stream.node!r} was written behind a later attempt")
        self.seq = block.seq
        return True

    def _check(self, there: Block) -> None:
        if there.attempt > self.attempt:
            raise Fenced(self.stream, self.attempt, there.attempt)


async def _pause(wait: float, waited: float, why: str) -> tuple[float, float]:
    if waited >= PATIENCE_SEC:
        raise StoreUnavailable(why)
    await asyncio.sleep(wait)
    return min(_LONGEST_WAIT_SEC, 2 * wait), waited + wait
