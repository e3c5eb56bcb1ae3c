"""The streams that one attempt reads: whichever has a batch at hand gives the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice

from flowkit.ports import Store, StreamId
from flowkit.wire.messages import Job
from flowkit.wire.stream import Cursor, Plan
from flowkit.worker.stream_hub import StreamHub, Worker
from flowkit.worker.stream_positions import Positions
from flowkit.worker.stream_reader import Row, StreamReader

LET_IN = 32
LOOK_SEC = 1.0
ASK_TURNS = 5
MOST_TOLD = 100
"""Of how many streams an attempt tells how far it has read them: heartbeats carry that."""


class StreamInputs:
    """`finished` hears of every batch that is done with, `dry` that none is at hand; `waits` goes around a wait, and
    `still_there` is called now and then during one. `introduce` is told of every worker that is read from."""

    def __init__(self, *, plan: Plan, job: Job, store: Store, hub: StreamHub, positions: Positions,
                 start: Mapping[str, Cursor], finished: Callable[[], None], dry: Callable[[], None],
                 waits: Callable[[], AbstractContextManager[None]], still_there: Callable[[], None],
                 introduce: Callable[[Worker], None]) -> None:  # fmt: skip
        self._job = job
        self._hub = hub
        self._positions = positions
        self._finished = finished
        self._dry = dry
        self._waits = waits
        self._still_there = still_there
        self._introduce = introduce
        self._coming = asyncio.Event()
        self._turns = 0
        self._told: set[Worker] = set()
        self._fault: BaseException | None = None
        self._of: dict[str, StreamReader] = {}
        for name, generation, _ in plan.sources:
            stream = StreamId(job.task_id, generation, name)
            self._of[name] = StreamReader(store=store, hub=hub, stream=stream, start=start.get(name, Cursor()),
                                          moved=partial(self._moved, name))  # fmt: skip
        self.over(plan.over)

    async def close(self) -> None:
        for reader in self._of.values():
            await reader.close()

    @property
    def workers(self) -> set[Worker]:
        """Where the batches come from, as far as is known."""
        return {reader.writer for reader in self._of.values() if reader.writer is not None}

    def over(self, nodes: Iterable[str]) -> None:
        """These nodes have ended."""
        for name in nodes:
            if (reader := self._of.get(name)) is not None:
                reader.over()

    def fail(self, error: BaseException) -> None:
        """Whoever asks for the next batch gets this."""
        self._fault = error
        self._coming.set()

    def said(self) -> str:
        """How far all are read, for people."""
        read = [(name, self._positions.index(name), reader.known) for name, reader in self._of.items()]
        return ", ".join(f"{index} of {max(index, known)} of {name!r} read" for name, index, known in read[:5])

    def progress(self) -> list[tuple[str, int, int]]:
        """Of each stream, so many as can be told of: its node, how many batches are done with, how many are known."""
        found = []
        for name, reader in islice(self._of.items(), MOST_TOLD):
            done = self._positions.done(name)
            found.append((name, done, max(done, reader.known)))
        return found

    async def next(self, names: list[str], first: int = 0) -> Row | None:
        """The next batch of these nodes, in turn; None at the end of all. What was handed out of them before is done
        with."""
        if any([self._positions.finish(name) for name in names]):
            self._finished()
        self._turns += 1
        if self._turns % LET_IN == 0:
            await asyncio.sleep(0)  # whoever makes and whoever writes blocks must get a turn
        row = self._at_hand(names, first)
        if row is not None or self._all_ended(names):
            return row
        with self._waits():
            return await self._wait(names, first)

    def _at_hand(self, names: list[str], first: int) -> Row | None:
        if self._fault is not None:
            raise self._fault
        self._coming.clear()
        for turn in range(len(names)):
            row = self._of[names[(first + turn) % len(names)]].take()
            if row is not None:
                self._positions.hand(row)
                return row
        self._dry()
        return None

    def _all_ended(self, names: list[str]) -> bool:
        return all(self._of[name].ended and not self._of[name].rows for name in names)

    async def _wait(self, names: list[str], first: int) -> Row | None:
        silent = 0
        while True:
            try:
                async with asyncio.timeout(LOOK_SEC):
                    await self._coming.wait()
            except TimeoutError:
                silent += 1
                if silent % ASK_TURNS == 0:
                    self._hub.report(self._job, begun=False)
            self._still_there()
            row = self._at_hand(names, first)
            if row is not None or self._all_ended(names):
                return row

    def _moved(self, name: str) -> None:
        reader = self._of.get(name)
        if reader is not None and reader.writer is not None and reader.writer not in self._told:
            self._told.add(reader.writer)
            self._introduce(reader.writer)
        self._coming.set()
