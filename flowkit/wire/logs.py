"""The lines that attempts say: on their way (`logs.v1`), in the store, and as they are read.

A message is `[version, worker, incarnation, [block, ...]]`, and a block `[task_id, tenant, node, attempt, first, count,
level, until, [line, ...]]`; a line is `[at, level, message, fields]`, and its number follows from `first`. The lines of
a block are written once, by the worker, and then copied: nobody on the way takes them apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from flowkit.core.derived import base_of
from flowkit.core.traceparent import trace_of
from flowkit.errors import Corrupt, UnknownFact
from flowkit.monitor_ports import LogBlock
from flowkit.wire.codec import UNFIT, dumps, loads
from flowkit.wire.seals import may_speak_for

VERSION: Final = 1
MOST_NUMBER: Final = 2**62

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The levels by name; what is in between belongs to the one below."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an attempt. `sequence` counts the attempt's lines from 1; `at` is epoch seconds by the worker's
    clock; `trace_id` is that of the trace which the task is, or which it was created in (`traceparent`)."""

    task_id: str
    node_id: str
    attempt: int
    sequence: int
    at: float
    level: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)
    traceparent: str = ""

    @property
    def trace_id(self) -> str:
        return trace_of(self.task_id, self.traceparent)


@dataclass(frozen=True, slots=True)
class SaidBlock:
    """A block that is about to be sent; `rows` are the JSON texts of its lines."""

    task_id: str
    tenant: str
    node: str
    attempt: int
    first: int
    level: int
    until: float
    rows: Sequence[bytes]

    def encode(self) -> bytes:
        names = dumps([self.task_id, self.tenant, self.node, self.attempt, self.first, len(self.rows), self.level])
        return names[:-1] + b"," + dumps(self.until) + b",[" + b",".join(self.rows) + b"]]"


def encode_line(at: float, level: int, message: str, fields: dict[str, Any]) -> bytes:
    """The JSON text of a line. Raises `ValueError` or `TypeError` for fields that JSON cannot say."""
    return dumps([round(at, 6), level, message, fields] if fields else [round(at, 6), level, message])


def encode_logs(worker: str, incarnation: str, blocks: Iterable[bytes]) -> bytes:
    """A message of blocks that were encoded."""
    return dumps([VERSION, worker, incarnation])[:-1] + b",[" + b",".join(blocks) + b"]]"


class _BlockRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    task_id: str
    tenant: str
    node: str
    attempt: int
    first: int
    count: int
    level: int
    until: float
    rows: msgspec.Raw


class _Message(msgspec.Struct, array_like=True):
    version: int
    worker: str
    incarnation: str
    blocks: list[_BlockRow]


_message = msgspec.json.Decoder(_Message)
_Row = tuple[float, int, str] | tuple[float, int, str, dict[str, Any]]


def decode_logs(value: bytes | None, signer: str = "") -> list[LogBlock]:
    """The blocks of a message, not in their places yet. `signer` is the pool that signed it, empty where nobody had to.
    Raises `Corrupt`, also for what one pool says in the name of another's worker, or `UnknownFact` for a newer
    version."""
    try:
        message = _message.decode(value or b"")
    except UNFIT as error:
        raise Corrupt(f"not a message of log lines: {error}") from error
    if message.version != VERSION:
        raise UnknownFact(f"log lines of version {message.version}; this FlowKit knows {VERSION}")
    if not may_speak_for(signer, message.worker):
        raise Corrupt(f"signed by the pool {signer!r}, and said by {message.worker[:129]!r}")
    return [_block(row) for row in message.blocks]


def _block(row: _BlockRow) -> LogBlock:
    numbers = (row.attempt, row.first, row.count, row.level)
    if min(numbers) < 0 or max(numbers) > MOST_NUMBER:
        raise Corrupt("a block of log lines has a number beyond all bounds")
    if not bytes(row.rows).startswith(b"["):
        raise Corrupt("a block of log lines ends with the list of them")
    try:
        body = bytes(row.rows).decode()
        f"{row.task_id}{row.tenant}{row.node}".encode()
    except UnicodeError as error:
        raise Corrupt(f"a block of log lines is not UTF-8: {error}") from error
    names = (row.task_id, row.tenant, row.node, base_of(row.node))
    return LogBlock(*names, *numbers, row.until, 0, body)


def lines_of(block: LogBlock, traceparent: str = "") -> list[LogLine]:
    """The lines of a block, in order, of a task that was created in this context. One that cannot be read says so in
    its place."""
    rows = loads(block.body)
    if not isinstance(rows, list):
        raise Corrupt("a block of log lines is a list")
    return [_line(block, block.first + number, row, traceparent) for number, row in enumerate(rows)]


def _line(block: LogBlock, sequence: int, row: Any, traceparent: str) -> LogLine:
    match row:
        case [float() | int() as at, int() as level, str() as message, *rest] if len(rest) < 2:
            fields = rest[0] if rest and isinstance(rest[0], dict) else {}
        case _:
            at, level, message, fields = block.until, logging.ERROR, "(this line cannot be read)", {}
    where = (block.task_id, block.node, block.attempt, sequence)
    return LogLine(*where, float(at), level_name(level), message, fields, traceparent)


def level_name(level: int) -> str:
    """The name of the highest level that is not above this one."""
    return next((name for name, number in reversed(LEVELS.items()) if level >= number), "debug")
