"""What stands in the blocks of a stream, and the doorbells between the workers that write and read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowkit.core.immutable import immutable
from flowkit.errors import Corrupt
from flowkit.ports import Block, StreamId
from flowkit.wire.codec import UNFIT, dumps, loads
from flowkit.wire.topics import MAX_MESSAGE_BYTES

VERSION = 1
RING_BYTES = 16 * 1024
"""A block that is no larger rides along with the doorbell that tells of it."""


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """How far a stream was read: `index` batches and their `bytes` are done with, the last of them in block `seq`.
    `part` is how many batches were made of the next one, which is not done with yet."""

    index: int = 0
    bytes: int = 0
    seq: int = 0
    part: int = 0


class Mark(msgspec.Struct, omit_defaults=True):
    """What a block says beside its batches, which have `size` bytes; `bytes` are those of all up to here. `worker` and
    `incarnation` wrote it. `cursors` are what the node itself has read, by source; that of "" counts the batches made
    of none. `saved` is the number of the last block with a `state`: what the handler saved, or what a class's batches
    came to so far. `named`: there are batches with ids of the handler's own. `end` closes the stream for ever: the
    node's output, and its choice of successors."""

    worker: str = ""
    incarnation: str = ""
    size: int = 0
    bytes: int = 0
    cursors: dict[str, Cursor] = {}
    saved: int = 0
    state: Any = None
    named: bool = False
    end: list[Any] | None = None


@immutable
class Content:
    """A block's mark, and its batches: `[uid, value, meta, artifact]`, of which the last two may be left out."""

    mark: Mark
    batches: Sequence[list[Any]]


_mark = msgspec.json.Decoder(Mark)


class _Body(msgspec.Struct, array_like=True):
    mark: msgspec.Raw
    batches: list[Any]


_body = msgspec.json.Decoder(_Body)


def write_body(mark: Mark, batches: Sequence[bytes]) -> str:
    """The body of a block; `batches` are JSON texts."""
    return (b"[" + dumps(mark) + b",[" + b",".join(batches) + b"]]").decode()


def read_body(body: str) -> Content:
    """Raises `Corrupt`."""
    try:
        read = _body.decode(body)
        return Content(_mark.decode(read.mark), read.batches)
    except UNFIT:
        pass
    rows = loads(body)
    try:
        mark, batches = rows
        return Content(msgspec.convert(mark, Mark), msgspec.convert(batches, list[list[Any]]))
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise Corrupt(f"not the body of a block: {error}") from error


def read_mark(body: str) -> Mark:
    """The mark alone. Raises `Corrupt`."""
    return read_body(body).mark


# ---------------------------------------------------------------------------------------------- streams.v1


class Ring(msgspec.Struct, array_like=True, tag="ring", frozen=True):
    """A stream has a block `seq`, written by `worker`; `body` is that of a small one. `cursors` are how far the node
    has read other streams. With `seq` 0 there is no block yet, and somebody new says where it is."""

    task_id: str
    generation: int
    node: str
    seq: int
    attempt: int
    count: int
    worker: str
    incarnation: str
    cursors: dict[str, Cursor] = {}
    body: str = ""

    @property
    def stream(self) -> StreamId:
        return StreamId(self.task_id, self.generation, self.node)

    @property
    def block(self) -> Block | None:
        return Block(self.stream, self.seq, self.attempt, self.count, self.body) if self.body else None

    @property
    def weight(self) -> int:
        """What it takes up in a message, at most."""
        # A body is written as a string: quotes and backslashes are doubled, what is not ASCII may take three bytes.
        text = 2 * len(self.body) if self.body.isascii() else 4 * len(self.body)
        return 400 + 4 * (len(self.task_id) + len(self.node)) + 160 * len(self.cursors) + text

    def bare(self) -> Ring:
        """The same without the block."""
        return msgspec.structs.replace(self, body="")


class _Rings(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    worker: str
    incarnation: str
    rings: list[Ring]


_rings = msgspec.json.Decoder(_Rings)


def encode_rings(worker: str, incarnation: str, rings: Sequence[Ring]) -> bytes:
    """A message to one worker."""
    return dumps([VERSION, worker, incarnation, list(rings)])


def decode_rings(value: bytes | None) -> tuple[str, str, list[Ring]]:
    """To which worker, which incarnation, and what. Raises `Corrupt`."""
    if value is None or len(value) > MAX_MESSAGE_BYTES:
        raise Corrupt("not a message that rings: empty or too long")
    try:
        read = _rings.decode(value)
    except UNFIT as error:
        raise Corrupt(f"not a message that rings: {error}") from error
    if read.version != VERSION:
        raise Corrupt(f"version {read.version} of the rings; this one knows {VERSION}")
    return read.worker, read.incarnation, read.rings


def ring_of(block: Block, mark: Mark) -> Ring:
    stream = block.stream
    return Ring(stream.task_id, stream.generation, stream.node, block.seq, block.attempt, block.count, mark.worker,
                mark.incarnation, mark.cursors, block.body)  # fmt: skip


class Plan(msgspec.Struct):
    """What a job says of its node's streams, as `core.streams.job` wrote it: which inputs are streams, and of which
    nodes; those nodes, each with its generation and how many batches it may be ahead; the nodes that read this one's,
    and whether they do so while it runs."""

    reads: list[tuple[str, list[str]]] = []
    sources: list[tuple[str, int, int]] = []
    adapter: str = ""
    args: dict[str, Any] = {}
    readers: list[tuple[str, bool]] = []
    awaited: bool = False
    limits: tuple[int, int, int] = (1000, 16 * 1024 * 1024, 1024 * 1024 * 1024)
    over: list[str] = []


def read_plan(said: Mapping[str, Any]) -> Plan:
    """Raises `Corrupt`."""
    try:
        return msgspec.convert(said, Plan)
    except msgspec.ValidationError as error:
        raise Corrupt(f"not what a job says of streams: {error}") from error
