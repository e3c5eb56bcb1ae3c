"""What every store and bus refuses: the strictest backend decides, so that what one takes all take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowkit.monitor_ports import AttemptRecord, LogBlock
from flowkit.ports import (
    AuditRow,
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadUpdate,
    LimitSwap,
    Record,
    Request,
    SealedSecret,
)

CHUNK = 512 * 1024
# MongoDB ends at 16 MiB; nothing that the engine writes comes near this, what does is a mistake.
MAX_TEXT = 8 * 1024 * 1024
MAX_INT = 2**63 - 1
# As Kafka brokers have it: a larger message is refused. The engine sends 64 KiB at most, and references.
MAX_MESSAGE = 1024 * 1024 - 1024

Document = (
    Commit
    | Head
    | HeadUpdate
    | Request
    | Block
    | LimitSwap
    | FlowVersion
    | FlowTag
    | LogBlock
    | AttemptRecord
    | SealedSecret
    | AuditRow
)
"""What is inserted or updated whole."""


def storable(document: Document) -> bool:
    """Whether every backend can keep this document and give it back the same."""
    return _RULES[type(document)](document)


def unpublished_or_wake(document: Head | HeadUpdate) -> float | None:
    """When the sweeper has to look at a head: one number for one index; 0 while an event is unpublished."""
    return 0.0 if document.published_seq < document.seq else document.next_wake


def chunks(data: bytes) -> list[bytes]:
    """The blob in pieces of at most CHUNK bytes; at least one."""
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)] or [b""]


def check_record(record: Record, partitions: int) -> int:
    """How large a record is, in bytes. Raises ValueError for one that no bus could ever carry: a mistake of the caller,
    not weather."""
    size = len(record.value or b"") + len(record.key or b"")
    for name, content in record.headers:  # for so few this takes half of what a comprehension or `map` does
        size += len(name) + len(content)
    if size > MAX_MESSAGE:
        raise ValueError(f"a record of {size} bytes for {record.topic!r}: at most {MAX_MESSAGE}; send a reference")
    if not 0 <= record.partition < partitions:
        raise ValueError(f"topic {record.topic!r} has no partition {record.partition}, it has {partitions}")
    return size


# what is asked of each


def _commit(commit: Commit) -> bool:
    # All of them at once: nearly every commit is of ASCII, and there are thousands a second.
    body, names = commit.body, f"{commit.task_id}{commit.id}{commit.prev}{commit.by}"
    plain = body.isascii() and names.isascii() and len(body) + len(names) <= MAX_TEXT
    fits = plain or _text(body, commit.task_id, commit.id, commit.prev, commit.by)
    return fits and -MAX_INT <= commit.seq <= MAX_INT and commit.at == commit.at


def _head(head: Head) -> bool:
    texts = (
        head.params, head.task_id, head.graph_ref, head.tenant, head.principal, head.name, head.fingerprint,
        head.status, head.error, head.snapshot, head.flow, head.parent, head.parent_node, head.traceparent,
        *head.targets, *head.labels, *head.labels.values(),
    )  # fmt: skip
    whole = (
        head.partition, head.priority, head.seq, head.published_seq, head.parent_attempt, head.depth, head.life,
    )  # fmt: skip
    return (
        _text(*texts)
        and _whole(*whole)
        and _number(head.timeout_sec, head.created_at, head.next_wake, head.updated_at, head.ended_at)
        and _number(head.remove_at, head.deadline)
    )


def _update(update: HeadUpdate) -> bool:
    return (
        _text(update.task_id, update.status, update.error, update.snapshot)
        and _whole(update.seq, update.published_seq)
        and _number(update.next_wake, update.updated_at, update.ended_at, update.remove_at)
    )


def _request(request: Request) -> bool:
    return (
        _text(request.args, request.task_id, request.id, request.kind, request.tenant, request.principal)
        and _whole(request.n, request.partition)
        and _number(request.at)
    )


def _block(block: Block) -> bool:
    stream = block.stream
    return _text(block.body, stream.task_id, stream.node) and _whole(
        stream.generation, block.seq, block.attempt, block.count
    )


def _limit(swap: LimitSwap) -> bool:
    return _text(swap.limit_id, swap.before, swap.stamp, swap.body) and _whole(swap.partition)


def _flow(flow: FlowVersion) -> bool:
    return (
        _text(flow.tenant, flow.name, flow.graph_ref, flow.principal, flow.note)
        and _whole(flow.version)
        and _number(flow.created_at)
    )


def _tag(tag: FlowTag) -> bool:
    return _text(tag.tenant, tag.name, tag.tag, tag.principal) and _whole(tag.version, tag.revision) and _number(tag.at)


def _log(block: LogBlock) -> bool:
    return (
        _text(block.body, block.task_id, block.tenant, block.node, block.base)
        and _whole(block.attempt, block.first, block.count, block.level, block.place)
        and _number(block.until)
    )


def _attempt(one: AttemptRecord) -> bool:
    # Each said, and all texts at once, as of a commit: of a wide task there are thousands a second.
    texts = f"{one.task_id}{one.tenant}{one.flow}{one.node}{one.base}{one.role}{one.outcome}{one.code}{one.worker}"
    return (
        ((texts.isascii() and len(texts) <= MAX_TEXT) or _attempt_texts(one))
        and -MAX_INT <= one.attempt <= MAX_INT
        and -MAX_INT <= one.generation <= MAX_INT
        and -MAX_INT <= one.seq <= MAX_INT
        and one.ready_at == one.ready_at
        and one.leased_at == one.leased_at
        and one.run_sec == one.run_sec
        and -MAX_INT < one.ended_at < MAX_INT
        and (one.usage is None or _usage(one.usage))
    )


def _attempt_texts(one: AttemptRecord) -> bool:
    return _text(one.task_id, one.tenant, one.flow, one.node, one.base, one.role, one.outcome, one.code, one.worker)


def _usage(usage: Mapping[str, object]) -> bool:
    """Whether it is of texts and numbers that every backend keeps."""
    numbers = [value for value in usage.values() if isinstance(value, int | float)]
    texts = [value for value in usage.values() if isinstance(value, str)]
    return (
        len(numbers) + len(texts) == len(usage)
        and all(value == value and abs(value) <= MAX_INT for value in numbers)
        and _text(*usage, *texts)
    )


def _secret(secret: SealedSecret) -> bool:
    return (
        _text(secret.tenant, secret.name, secret.key_id, secret.allow, secret.principal)
        and len(secret.wrapped) + len(secret.sealed) <= CHUNK
        and _whole(secret.version)
        and _number(secret.created_at)
    )


def _audit(row: AuditRow) -> bool:
    texts = (
        row.id, row.tenant, row.principal, row.action, row.name, row.outcome, row.flow, row.task_id, row.node,
        row.worker, row.note,
    )  # fmt: skip
    return _text(*texts) and _whole(row.version, row.attempt) and _number(row.at)


_RULES: Mapping[type, Callable[[Any], bool]] = {
    Commit: _commit,
    Head: _head,
    HeadUpdate: _update,
    Request: _request,
    Block: _block,
    LimitSwap: _limit,
    FlowVersion: _flow,
    FlowTag: _tag,
    LogBlock: _log,
    AttemptRecord: _attempt,
    SealedSecret: _secret,
    AuditRow: _audit,
}


def _text(*values: str | None) -> bool:
    together = "".join([value for value in values if value])
    if together.isascii() and len(together) <= MAX_TEXT:  # nearly always
        return True
    for value in values:
        if value is None or (value.isascii() and len(value) <= MAX_TEXT):
            continue
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # a lone surrogate
            return False
        if size > MAX_TEXT:
            return False
    return True


def _whole(*values: int) -> bool:
    return min(values) >= -MAX_INT and max(values) <= MAX_INT


def _number(*values: float | None) -> bool:
    # NaN equals nothing, not itself: no guard and no order survives it.
    return all([value == value for value in values])
