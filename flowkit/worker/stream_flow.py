"""What one attempt has to do with streams: the batches it makes, those it reads, and how far it may be ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from flowkit.core.payload import Payload
from flowkit.errors import StoreUnavailable
from flowkit.ports import Store, StreamId
from flowkit.wire.codec import dumps, loads
from flowkit.wire.facts import read_payload, write_artifact, write_payload
from flowkit.wire.messages import Job
from flowkit.wire.stream import Cursor, Mark, Plan, Ring, read_mark, ring_of
from flowkit.worker.ending import end
from flowkit.worker.inputs import patiently
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.outputs import AT_ONCE, LARGE_BYTES, Output, TooMuch, to_json
from flowkit.worker.stream_hub import StreamHub, Worker
from flowkit.worker.stream_log import StreamLog
from flowkit.worker.stream_positions import OUTSIDE, Positions
from flowkit.worker.stream_reader import Row, StreamReader

BLOCK_BYTES = 256 * 1024
MARK_SEC = 0.05
"""How long what was read may go unwritten."""
MOST_UNMARKED = 250
LET_IN = 32
LOOK_SEC = 1.0
ASK_SEC = 5.0
PARK_SEC = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """An earlier attempt has said all that there is to say: the node's output, and its choice of successors."""

    payload: Payload
    chosen: tuple[str, ...] | None

    @property
    def size(self) -> int:
        """What the payload takes up in a message."""
        return len(dumps(write_payload(self.payload)))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch's value as JSON text, and its size; or where it is kept."""

    data: bytes
    size: int
    artifact: list[Any] | None = None

    def batch(self, uid: str, meta: Any) -> bytes:
        if meta is None and self.artifact is None:
            return b"[" + dumps(uid) + b"," + self.data + b"]"
        if self.artifact is None:
            return b"[" + dumps(uid) + b"," + self.data + b"," + dumps(meta) + b"]"
        return b"[" + dumps(uid) + b",null," + dumps(meta) + b"," + dumps(self.artifact) + b"]"


@dataclass(slots=True)
class _Reader:
    """A node that reads this one's stream while it runs, as far as is known here."""

    cursor: Cursor
    worker: Worker | None = None


class StreamFlow:
    """`open` before anything else, `close` in the end. `state_of` gives what every block shall say of the handler's
    state, None where nothing."""

    def __init__(self, *, plan: Plan, job: Job, store: Store, hub: StreamHub, encode: Callable[[Any], Any],
                 parked: Callable[[bool], None]) -> None:  # fmt: skip
        self.plan = plan
        self.job = job
        self.state_of: Callable[[], Any] | None = None
        self.state: Any = None
        self.produced = 0
        self.bytes = 0
        self._store = store
        self._hub = hub
        self._encode = encode
        self._parked = parked
        self._stream = StreamId(job.task_id, job.generation, job.node)
        self._log = StreamLog(store, self._stream, job.attempt, *hub.me)
        self._logged = bool(plan.readers or plan.sources)
        over = set(plan.over)
        self._readers = {name: _Reader(Cursor()) for name, early in plan.readers if early and name not in over}
        self._sources: dict[str, StreamReader] = {}
        self._over = over
        self._uids: set[str] = set()
        self._named = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._unmarked = 0
        ahead = [most for _, _, most in plan.sources]
        self._mark_every = max(1, min([MOST_UNMARKED, *(most // 4 for most in ahead)]))
        self._begun = False
        self._due = asyncio.Event()
        self._moved = asyncio.Event()
        self._coming = asyncio.Event()
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        self._leaves: list[Callable[[], None]] = []
        self._told: set[Worker] = set()
        self._turns = 0
        self.positions = Positions((), {}, {})

    # ------------------------------------------------------------------------------------------ life

    async def open(self, *, replay: bool, afresh: bool = False) -> Ended | None:
        """Shut earlier attempts out, and find where to go on: behind what they have read, or with `replay` behind what
        they have saved. `afresh`: what the handler makes of no batch it makes from the first on, whatever is saved.
        `Ended` where an attempt has closed the stream. Raises `Fenced`, `StoreUnavailable`."""
        written: dict[str, Cursor] = {}
        start: dict[str, Cursor] = {}
        if self._logged:
            await self._log.open()
            mark = self._log.mark
            if mark.end is not None:
                payload, chosen = mark.end
                return Ended(read_payload(payload), None if chosen is None else tuple(chosen))
            self.produced, self.bytes, self._named = self._log.count, mark.bytes, mark.named
            self._begun = self.produced > 0
            if mark.named:
                self._uids = {str(batch[0]) for batch in await self._log.batches()}
            written = mark.cursors
            saved = await self._log.state()
            self.state = saved.state
            start = dict(saved.cursors if mark.saved or replay else mark.cursors)
            if afresh or not mark.saved:
                start.pop(OUTSIDE, None)
        self.positions = Positions((name for name, _, _ in self.plan.sources), written, start)
        self._listen(start)
        if self._logged:
            self._writer = asyncio.create_task(self._write_on(), name=f"blocks of {self.job.node}")
        if self.produced and self._readers:
            await self._look_at_readers()
        return None

    def _listen(self, start: dict[str, Cursor]) -> None:
        for name in self._readers:
            stream = StreamId(self.job.task_id, self.job.generation, name)
            self._leaves.append(self._hub.listen(stream, self._hear_reader))
        for name, generation, _ in self.plan.sources:
            stream = StreamId(self.job.task_id, generation, name)
            reader = StreamReader(store=self._store, hub=self._hub, stream=stream, start=start.get(name, Cursor()),
                                  moved=partial(self._source_moved, name))  # fmt: skip
            self._sources[name] = reader
            if name in self._over:
                reader.over()

    async def close(self) -> None:
        """Leave things as they are: what was not written is made again."""
        for leave in self._leaves:
            leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            await end(self._writer)
        for reader in self._sources.values():
            await reader.close()

    def over(self, nodes: list[str]) -> None:
        """The coordinator says that these nodes have ended."""
        self._over.update(nodes)
        for name in nodes:
            self._readers.pop(name, None)
            if (reader := self._sources.get(name)) is not None:
                reader.over()
        self._moved.set()

    # ------------------------------------------------------------------------------------------ making batches

    def passes(self, uid: str | None) -> bool:
        """Whether the batch that the handler makes now is written down already, and so passed over: by its id, if the
        handler gives it one, else by its place."""
        if uid is not None:
            return uid in self._uids
        if self.positions.repeats():
            self.positions.count()
            return True
        return False

    async def prepare(self, value: Any) -> Prepared:
        """A value as it travels; too large a one is stored. Raises `AttemptFailure` for what cannot travel."""
        if not isinstance(value, bytes | bytearray | memoryview):
            with contextlib.suppress(TooMuch):
                data = to_json(value, most_values=AT_ONCE)
                if len(data) <= LARGE_BYTES:
                    return Prepared(data, len(data))
        output: Output = await self._encode(value)
        if output.payload.artifact is None:
            return Prepared(dumps(output.payload.value), output.size)
        return Prepared(b"null", output.payload.artifact.size, write_artifact(output.payload.artifact))

    def put(self, made: Prepared, uid: str | None, meta: Any = None, *, label: str = "") -> None:
        """Add a batch to the stream; it is written soon. `label` is the id of one whose place identifies it."""
        if uid is None:
            self.positions.count()
        else:
            self._uids.add(uid)
            self._named = True
        text = made.batch(uid or label or self.positions.uid, meta)
        self.produced += 1
        self.bytes += made.size
        if self._logged:
            self._pending.append(text)
            self._pending_bytes += len(text)
            self._due.set()
        elif not self._begun:
            self._begun = True
            self._hub.report(self.job, begun=True)

    def count(self, uid: str | None) -> None:
        """Something was made that is no batch: it will not be made again."""
        if uid is None:
            self.positions.count()
        else:
            self._uids.add(uid)
        self._read_one()

    async def room(self) -> None:
        """Wait until one more batch may be made."""
        if self._fits():
            self._raise_fault()
            return
        with self._waits():
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        looked = asked = asyncio.get_running_loop().time()
        while not self._fits():
            self._raise_fault()
            self._moved.clear()
            try:
                async with asyncio.timeout(LOOK_SEC):
                    await self._moved.wait()
                continue
            except TimeoutError:
                now = asyncio.get_running_loop().time()
            if now - looked >= LOOK_SEC:
                looked = now
                await self._look_at_readers()
                self._ring_again()
            if now - asked >= ASK_SEC:
                asked = now
                self._hub.report(self.job, begun=self._begun)
        self._raise_fault()

    def _fits(self) -> bool:
        most, most_bytes, _ = self.plan.limits
        if self._pending_bytes >= BLOCK_BYTES:
            return False
        for reader in self._readers.values():
            ahead = self.produced - reader.cursor.index
            if ahead >= most or (ahead and self.bytes - reader.cursor.bytes >= most_bytes):
                return False
        self._check_spill()
        return True

    def _check_spill(self) -> None:
        if not self.plan.readers or self._readers:
            return
        most = self.plan.limits[2]
        if self.bytes >= most:
            names = ", ".join(repr(name) for name, _ in self.plan.readers)
            raise AttemptFailure(
                "stream_full",
                f"its batches have {self.bytes:,} bytes, and {names} will read them only after it: at most {most:,} "
                'are kept (stream.spill_bytes); raise that, or let the reader say "start_when": "first_batch"',
                permanent=True,
            )

    # ------------------------------------------------------------------------------------------ reading batches

    async def next(self, names: list[str], first: int = 0) -> Row | None:
        """The next batch of these sources, whichever has one at hand, in turn; None at the end of all. What was handed
        out of them before is done with."""
        self._raise_fault()
        if any([self.positions.finish(name) for name in names]):
            self._read_one()
        self._turns += 1
        if self._turns % LET_IN == 0:
            await asyncio.sleep(0)  # whoever makes and whoever writes blocks must get a turn
        row = self._at_hand(names, first)
        if row is not None or self._all_ended(names):
            return row
        with self._waits():
            return await self._wait_for_row(names, first)

    def _at_hand(self, names: list[str], first: int) -> Row | None:
        self._coming.clear()
        for turn in range(len(names)):
            row = self._sources[names[(first + turn) % len(names)]].take()
            if row is not None:
                self.positions.hand(row)
                return row
        if self._unmarked:
            self._due.set()  # nothing is at hand: perhaps because those who make it wait for this
        return None

    def _all_ended(self, names: list[str]) -> bool:
        return all(self._sources[name].ended and not self._sources[name].rows for name in names)

    async def _wait_for_row(self, names: list[str], first: int) -> Row | None:
        asked = asyncio.get_running_loop().time()
        while True:
            self._raise_fault()
            try:
                async with asyncio.timeout(ASK_SEC):
                    await self._coming.wait()
            except TimeoutError:
                now = asyncio.get_running_loop().time()
                if now - asked >= ASK_SEC:
                    asked = now
                    self._hub.report(self.job, begun=False)
            row = self._at_hand(names, first)
            if row is not None or self._all_ended(names):
                return row

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """An attempt that waits for longer than a moment takes up no slot meanwhile."""
        timer = asyncio.get_running_loop().call_later(PARK_SEC, self._parked, True)
        try:
            yield
        finally:
            timer.cancel()
            self._parked(False)

    def finish(self) -> None:
        """All that was handed out is done with."""
        self.positions.finish_all()
        self._read_one()

    def _read_one(self) -> None:
        self._unmarked += 1
        if self._unmarked >= self._mark_every:
            self._due.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MARK_SEC, self._mark_is_due)

    def _mark_is_due(self) -> None:
        self._timer = None
        if self._unmarked:
            self._due.set()

    def _source_moved(self, name: str) -> None:
        reader = self._sources.get(name)
        if reader is not None and reader.writer is not None and reader.writer not in self._told:
            self._told.add(reader.writer)
            self._introduce(reader.writer)
        self._coming.set()

    # ------------------------------------------------------------------------------------------ what the handler says

    def resume(self) -> int:
        """How many batches are there, for a handler that goes on by itself."""
        return self.positions.resume()

    async def save(self, state: Any) -> None:
        """Write down what the handler has in mind, together with all that it has made and read until now."""
        if self.state_of is not None:
            raise TypeError("save is for functions; what a class's batches come to is kept as it is")
        if not self._logged:
            return
        self.positions.finish_all()
        text = to_json(state)
        if len(text) > BLOCK_BYTES:
            raise AttemptFailure("bad_state", f"a state has at most {BLOCK_BYTES:,} bytes, not {len(text):,}",
                                 permanent=True)  # fmt: skip
        async with self._writing:
            await self._write(state=[loads(text)])

    async def made_before(self) -> list[Any]:
        """The batches that earlier attempts have made, as `[uid, value, meta, artifact]`."""
        return await self._log.batches() if self.produced else []

    async def end(self, payload: Payload, chosen: tuple[str, ...] | None) -> None:
        """Write what is left. Where somebody reads the stream this closes it, with the node's output: no later attempt
        will say anything else."""
        if not self._logged:
            return
        self.positions.finish_all()
        if self.plan.readers:
            async with self._writing:
                await self._write(end=[write_payload(payload), None if chosen is None else list(chosen)])
        elif self._unmarked:
            try:
                async with self._writing:
                    await self._write()
            except StoreUnavailable:  # only what is shown would be wrong: the result says that all was read
                return

    # ------------------------------------------------------------------------------------------ writing

    async def _write_on(self) -> None:
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                async with self._writing:
                    if self._pending or self._unmarked:
                        await self._write()
        except Exception as error:  # the handler gets it when it makes or reads the next batch
            self._fault = error
            self._moved.set()
            self._coming.set()

    async def _write(self, *, state: list[Any] | None = None, end: list[Any] | None = None) -> None:
        """One block with all that happened since the last one: what is taken here is taken at one moment."""
        batches, self._pending = self._pending, []
        self._pending_bytes, self._unmarked = 0, 0
        before = self._log.mark
        mark = Mark(size=self.bytes - before.bytes, bytes=self.bytes, cursors=self.positions.cursors(),
                    saved=before.saved, named=self._named, end=end)  # fmt: skip
        said = state if state is not None else None if self.state_of is None else [self.state_of()]
        if said is not None:
            mark.saved, mark.state = self._log.seq + 1, said[0]
        block = await self._log.append(self.produced, mark, batches)
        self._moved.set()
        self._hub.ring(ring_of(block, self._log.mark), self._partners(), readers=self._reading_workers())
        if batches and not self._begun:
            self._begun = True
            if self.plan.awaited:
                self._hub.report(self.job, begun=True)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # ------------------------------------------------------------------------------------------ partners

    def _partners(self) -> set[Worker]:
        writers = {reader.writer for reader in self._sources.values() if reader.writer is not None}
        return writers | self._reading_workers()

    def _reading_workers(self) -> set[Worker]:
        return {reader.worker for reader in self._readers.values() if reader.worker is not None}

    def _introduce(self, writer: Worker) -> None:
        """Tell a worker that it is read from here, before the first block says so."""
        self._hub.ring(self._own_ring(), [writer])

    def _own_ring(self) -> Ring:
        return Ring(self.job.task_id, self.job.generation, self.job.node, self._log.seq, self.job.attempt,
                    self._log.count, *self._hub.me, self._log.mark.cursors)  # fmt: skip

    def _hear_reader(self, ring: Ring) -> None:
        self._note(ring.node, ring.cursors, (ring.worker, ring.incarnation), introduce=True)

    def _note(self, name: str, cursors: dict[str, Cursor], worker: Worker, *, introduce: bool = False) -> None:
        reader = self._readers.get(name)
        if reader is None:
            return
        cursor = cursors.get(self.job.node)
        if cursor is not None and cursor.index > reader.cursor.index:
            reader.cursor = cursor
            self._moved.set()
        if introduce and worker != reader.worker:
            reader.worker = worker
            self._hub.ring(self._own_ring(), [worker])  # it may have looked just before the last block was there

    async def _look_at_readers(self) -> None:
        for name in list(self._readers):
            stream = StreamId(self.job.task_id, self.job.generation, name)
            last = await patiently(partial(self._store.last_block, stream))
            if last is not None:
                mark = read_mark(last.body)
                self._note(name, mark.cursors, (mark.worker, mark.incarnation), introduce=True)

    def _ring_again(self) -> None:
        self._hub.ring(self._own_ring(), self._reading_workers())
