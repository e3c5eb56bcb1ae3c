"""How far an attempt may be ahead of those that read its batches: what each of them has read, as far as is known here.

It is known by rings, and by a look at what they have written, for rings may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from flowkit.ports import Store, StreamId
from flowkit.wire.stream import Cursor, Plan, Ring, read_mark
from flowkit.worker.inputs import patiently
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.stream_hub import StreamHub, Worker


@dataclass(slots=True)
class _Reader:
    """A node that reads while this one runs."""

    cursor: Cursor
    worker: Worker | None = None


class StreamRoom:
    """`moved` hears when somebody has read on, or has ended; `introduce` when a reader is at another worker."""

    def __init__(self, *, plan: Plan, stream: StreamId, store: Store, hub: StreamHub, moved: Callable[[], None],
                 introduce: Callable[[Worker], None]) -> None:  # fmt: skip
        over = set(plan.over)
        self._plan = plan
        self._stream = stream
        self._store = store
        self._moved = moved
        self._introduce = introduce
        self._readers = {name: _Reader(Cursor()) for name, early in plan.readers if early and name not in over}
        self._leaves = [hub.listen(self._of(name), self._hear) for name in self._readers]

    def close(self) -> None:
        for leave in self._leaves:
            leave()

    @property
    def watched(self) -> bool:
        """Whether anybody reads while this one runs."""
        return bool(self._readers)

    @property
    def workers(self) -> set[Worker]:
        """Where they read, as far as is known."""
        return {reader.worker for reader in self._readers.values() if reader.worker is not None}

    def fits(self, produced: int, size: int) -> bool:
        """Whether there is room for one more after so many batches of so many bytes. Raises `AttemptFailure` where what
        is kept for later readers is too much."""
        most, most_bytes, _ = self._plan.limits
        for reader in self._readers.values():
            ahead = produced - reader.cursor.index
            if ahead >= most or (ahead and size - reader.cursor.bytes >= most_bytes):
                return False
        if self._plan.readers and not self._readers:
            self._check_spill(size)
        return True

    def said(self, produced: int) -> str:
        """How far everybody is, for people."""
        read = [f"{name!r} has read {reader.cursor.index}" for name, reader in self._readers.items()]
        return ", ".join([f"{produced} made", *read[:5]])

    def over(self, nodes: Iterable[str]) -> None:
        """These nodes have ended: nobody needs to wait for them."""
        for name in nodes:
            self._readers.pop(name, None)
        self._moved()

    async def look(self) -> None:
        """See in the store how far they are. Raises `StoreUnavailable`."""
        for name in list(self._readers):
            last = await patiently(partial(self._store.last_block, self._of(name)))
            if last is not None:
                mark = read_mark(last.body)
                self._note(name, mark.cursors, (mark.worker, mark.incarnation))

    def _of(self, name: str) -> StreamId:
        return StreamId(self._stream.task_id, self._stream.generation, name)

    def _hear(self, ring: Ring) -> None:
        self._note(ring.node, ring.cursors, (ring.worker, ring.incarnation))

    def _note(self, name: str, cursors: dict[str, Cursor], worker: Worker) -> None:
        reader = self._readers.get(name)
        if reader is None:
            return
        cursor = cursors.get(self._stream.node)
        if cursor is not None and cursor.index > reader.cursor.index:
            reader.cursor = cursor
            self._moved()
        if worker != reader.worker:
            reader.worker = worker
            self._introduce(worker)

    def _check_spill(self, size: int) -> None:
        most = self._plan.limits[2]
        if size >= most:
            names = ", ".join(repr(name) for name, _ in self._plan.readers)
            raise AttemptFailure(
                "stream_full",
                f"its batches have {size:,} bytes, and {names} will read them only after it: at most {most:,} are kept "
                '(stream.spill_bytes); raise that, or let the reader say "start_when": "first_batch"',
                permanent=True,
            )
