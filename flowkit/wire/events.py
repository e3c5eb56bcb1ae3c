"""What the world is told in `events`: every committed step of a task, and now and then how far its streams are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from flowkit.core.immutable import immutable
from flowkit.ports import Commit
from flowkit.wire.codec import dumps, loads_as
from flowkit.wire.messages import checked
from flowkit.wire.topics import MAX_MESSAGE_BYTES


@immutable
class EdgeProgress:
    """How far one edge that batches flow along is: how many `source` has made, and how many of them `reader` is done
    with."""

    source: str
    reader: str
    produced: int
    consumed: int


@immutable
class Event:
    """One committed step as the world sees it; `facts` is None where it was too large to travel: read the commit. Or,
    with `streams`, how far those are after commit `seq`: that is not recorded, so there is no `commit_id`, and there
    are no facts."""

    task_id: str
    tenant: str
    seq: int
    at: float
    commit_id: str
    status: str
    facts: list[Any] | None
    streams: Sequence[EdgeProgress] = ()


class _Envelope(msgspec.Struct):
    """An event but for its facts."""

    task_id: str
    tenant: str
    seq: int
    at: float
    commit_id: str
    status: str


_event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(commit: Commit, tenant: str, status: str) -> bytes:
    """`status` is the task's after this commit."""
    head = dumps(_Envelope(commit.task_id, tenant, commit.seq, commit.at, commit.id, status))
    body = commit.body.encode() if len(commit.body) < MAX_MESSAGE_BYTES - 2048 else b"null"
    return b'%s,"facts":%s}' % (head[:-1], body if len(body) < MAX_MESSAGE_BYTES - 2048 else b"null")


def encode_progress(event: Event) -> bytes:
    """An event with `streams`; `decode_event` reads it."""
    return dumps(event)


def decode_event(value: bytes | None) -> Event:
    """Raises `Corrupt`."""
    return loads_as(_event_decoder, checked(value), "an event")


def event_headers(commit: Commit) -> tuple[tuple[str, bytes], ...]:
    """CloudEvents 1.0, Kafka protocol binding, binary mode."""
    subject = commit.task_id.encode()
    return (
        *_COMMITTED,
        ("ce_id", b"%s:%d" % (subject, commit.seq)),
        ("ce_subject", subject),
        ("ce_time", _rfc3339(commit.at)),
    )


def progress_headers(event: Event) -> tuple[tuple[str, bytes], ...]:
    """The same for an event with `streams`."""
    return (
        *_STREAMED,
        ("ce_id", f"{event.task_id}:{event.seq}:{event.at:.6f}".encode()),
        ("ce_subject", event.task_id.encode()),
        ("ce_time", _rfc3339(event.at)),
    )


def _same_for_all(kind: bytes) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", kind),
        ("ce_source", b"/flowkit/coordinator"),
        ("content-type", b"application/json"),
    )


_COMMITTED = _same_for_all(b"flowkit.task.committed.v1")
_STREAMED = _same_for_all(b"flowkit.task.streams.v1")


def _rfc3339(at: float) -> bytes:
    seconds, _, micros = (b"%.6f" % at).partition(b".")
    return b"%s.%sZ" % (_to_the_second(seconds), micros)


@lru_cache(maxsize=16)
def _to_the_second(seconds: bytes) -> bytes:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
