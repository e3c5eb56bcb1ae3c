"""What one attempt has to do with streams: the batches it makes, those it reads, and how far it may be ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowkit.core.payload import Payload
from flowkit.errors import StoreUnavailable
from flowkit.ports import Store, StreamId
from flowkit.wire.codec import dumps, loads
from flowkit.wire.facts import read_payload, write_artifact, write_payload
from flowkit.wire.messages import Flowing, Job
from flowkit.wire.stream import Cursor, Mark, Plan, Ring, ring_of
from flowkit.worker.ending import end
from flowkit.worker.outcome import AttemptFailure, as_it_is
from flowkit.worker.outputs import AT_ONCE, LARGE_BYTES, Output, TooMuch, to_json
from flowkit.worker.stream_hub import StreamHub, Worker
from flowkit.worker.stream_inputs import StreamInputs
from flowkit.worker.stream_log import StreamLog
from flowkit.worker.stream_positions import OUTSIDE, Positions
from flowkit.worker.stream_reader import Row
from flowkit.worker.stream_room import StreamRoom

BLOCK_BYTES = 256 * 1024
MARK_SEC = 0.05
"""How long what was read may go unwritten."""
MOST_UNMARKED = 250
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


class StreamFlow:
    """`open` before anything else, `close` in the end. `state_of` gives what every block shall say of the handler's
    state, None where nothing. `covered`, where the attempt holds secrets, makes of a value one that may leave, and
    `hide` of a text."""

    def __init__(self, *, plan: Plan, job: Job, store: Store, hub: StreamHub, encode: Callable[[Any], Any],
                 parked: Callable[[bool], None], said: Callable[[int, str, Flowing], None],
                 covered: Callable[[Any], Awaitable[Any]] | None = None,
                 hide: Callable[[str], str] = as_it_is) -> None:  # fmt: skip
        self.plan = plan
        self.job = job
        self.state_of: Callable[[], Any] | None = None
        self.state: Any = None
        self.produced = self.bytes = 0
        self._store = store
        self._hub = hub
        self._encode = encode
        self._covered = covered
        self._hide = hide
        self._parked = parked
        self._said = said
        self._stream = StreamId(job.task_id, job.generation, job.node)
        self._log = StreamLog(store, self._stream, job.attempt, *hub.me)
        self._logged = bool(plan.readers or plan.sources)
        self._moved = asyncio.Event()
        self._ahead = StreamRoom(plan=plan, stream=self._stream, store=store, hub=hub, moved=self._moved.set,
                                 introduce=self._introduce)  # fmt: skip
        self._inputs: StreamInputs | None = None
        self._uids: set[str] = set()
        self._named = self._begun = False
        self._pending: list[bytes] = []
        self._pending_bytes = self._unmarked = 0
        ahead = [most for _, _, most in plan.sources]
        self._mark_every = max(1, min([MOST_UNMARKED, *(most // 4 for most in ahead)]))
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
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
            written = mark.cursors
            start = await self._resume(mark, replay=replay, afresh=afresh)
        self.positions = Positions((name for name, _, _ in self.plan.sources), written, start)
        self._inputs = StreamInputs(
            plan=self.plan, job=self.job, store=self._store, hub=self._hub, positions=self.positions, start=start,
            finished=self._read_one, dry=self._mark_now, waits=self._waits, still_there=self._tell,
            introduce=self._introduce,
        )  # fmt: skip
        if self._logged:
            self._writer = asyncio.create_task(self._write_on(), name=f"blocks of {self.job.node}")
        if self.produced and self._ahead.watched:
            await self._ahead.look()
        return None

    async def _resume(self, mark: Mark, *, replay: bool, afresh: bool) -> dict[str, Cursor]:
        """Take up what earlier attempts have left; the answer is where reading starts."""
        self.produced, self.bytes, self._named = self._log.count, mark.bytes, mark.named
        self._begun = self.produced > 0
        if mark.named:
            self._uids = {str(batch[0]) for batch in await self._log.batches()}
        saved = await self._log.state()
        self.state = saved.state
        start = dict(saved.cursors if mark.saved or replay else mark.cursors)
        if afresh or not mark.saved:
            start.pop(OUTSIDE, None)
        return start

    async def keep(self) -> None:
        """Write what a handler made that has failed: where nobody tries again, the stream ends with that. What the
        store does not take is made again, or is not there."""
        if self._pending and self._fault is None:
            with contextlib.suppress(AttemptFailure, StoreUnavailable):
                async with self._writing:
                    await self._write()

    async def close(self) -> None:
        """Leave things as they are: what was not written is made again."""
        self._ahead.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            await end(self._writer)
        if self._inputs is not None:
            await self._inputs.close()

    def over(self, nodes: list[str]) -> None:
        """The coordinator says that these nodes have ended."""
        self._ahead.over(nodes)
        if self._inputs is not None:
            self._inputs.over(nodes)

    # ------------------------------------------------------------------------------------------ making batches

    def passes(self, uid: str | None) -> bool:
        """Whether the batch that the handler makes now is written down already, and so passed over: by its id, if the
        handler gives it one, else by its place."""
        if uid is not None:
            return self._hide(uid) in self._uids
        if self.positions.repeats():
            self.positions.count()
            return True
        return False

    async def prepare(self, value: Any) -> Prepared:
        """A value as it travels; too large a one is stored. Raises `AttemptFailure` for what cannot travel."""
        value = await self.covered(value)
        if not isinstance(value, bytes | bytearray | memoryview):
            with contextlib.suppress(TooMuch):
                data = to_json(value, most_values=AT_ONCE)
                if len(data) <= LARGE_BYTES:
                    return Prepared(data, len(data))
        output: Output = await self._encode(value)
        if output.payload.artifact is None:
            return Prepared(dumps(output.payload.value), output.size)
        return Prepared(b"null", output.payload.artifact.size, write_artifact(output.payload.artifact))

    async def covered(self, value: Any) -> Any:
        """A value without the secrets of the attempt."""
        return value if self._covered is None else await self._covered(value)

    def put(self, made: Prepared, uid: str | None, meta: Any = None, *, label: str = "") -> None:
        """Add a batch to the stream; it is written soon. `label` is the id of one whose place identifies it."""
        if uid is None:
            self.positions.count()
        else:
            uid = self._hide(uid)
            self._uids.add(uid)
            self._named = True
        text = made.batch(uid or self._hide(label) or self.positions.uid, meta)
        self.produced += 1
        self.bytes += made.size
        if self._logged:
            self._pending.append(text)
            self._pending_bytes += len(text)
            self._due.set()
        self._begin()

    def count(self, uid: str | None) -> None:
        """Something was made that is no batch: it will not be made again."""
        if uid is None:
            self.positions.count()
        else:
            self._uids.add(self._hide(uid))
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
                self._tell()
                await self._ahead.look()
                self._hub.ring(self._own_ring(), self._ahead.workers)  # should one have been lost
            if now - asked >= ASK_SEC:
                asked = now
                self._hub.report(self.job, begun=self._begun)
        self._raise_fault()

    def _fits(self) -> bool:
        return self._pending_bytes < BLOCK_BYTES and self._ahead.fits(self.produced, self.bytes)

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """An attempt that waits for longer than a moment takes up no slot meanwhile."""
        timer = asyncio.get_running_loop().call_later(PARK_SEC, self._parked, True)
        try:
            yield
        finally:
            timer.cancel()
            self._parked(False)

    # ------------------------------------------------------------------------------------------ reading batches

    async def next(self, names: list[str], first: int = 0) -> Row | None:
        """The next batch of these nodes; None at the end of all. What was handed out of them before is done with."""
        assert self._inputs is not None
        return await self._inputs.next(names, first)

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
        self._mark_now()

    def _mark_now(self) -> None:
        """Nothing is at hand, perhaps because those who make it wait for what was read to be written down."""
        if self._unmarked:
            self._due.set()

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
        state = await self.covered(state)
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
            with contextlib.suppress(StoreUnavailable):  # only what is shown would be wrong: the result says the rest
                async with self._writing:
                    await self._write()

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
            if self._inputs is not None:
                self._inputs.fail(error)

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
        self._tell()
        self._hub.ring(ring_of(block, self._log.mark), self._partners(), readers=self._ahead.workers)

    def _begin(self) -> None:
        """Tell of the first batch, where its readers wait to be started: while it is written, for they read it in the
        store. Should it never get there, they wait for what a later attempt makes."""
        if not self._begun:
            self._begun = True
            if self.plan.awaited:
                self._hub.report(self.job, begun=True)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    # ------------------------------------------------------------------------------------------ partners

    def _partners(self) -> set[Worker]:
        return self._ahead.workers | (set() if self._inputs is None else self._inputs.workers)

    def _introduce(self, worker: Worker) -> None:
        """Tell a worker that this attempt is here, and how far it is: it may have looked just before that was so."""
        self._hub.ring(self._own_ring(), [worker])

    def _own_ring(self) -> Ring:
        return Ring(self.job.task_id, self.job.generation, self.job.node, self._log.seq, self.job.attempt,
                    self._log.count, *self._hub.me, self._log.mark.cursors)  # fmt: skip

    def _tell(self) -> None:
        """Say how far it is: in words, as `ctx.progress` does, and by edge."""
        if not self._logged:
            return
        inputs, readers = self._inputs, self.plan.readers
        read = "" if inputs is None else inputs.said()
        made = self._ahead.said(self.produced) if readers else ""
        done = self.produced if readers else sum(self.positions.index(name) for name, _, _ in self.plan.sources)
        flowing = Flowing(self.produced, [] if inputs is None else inputs.progress())
        self._said(done, "; ".join(part for part in (read, made) if part), flowing)
