"""What every store and bus refuses: the strictest backend decides, so that what one takes all take."""

from __future__ import annotations

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


def storable(
    document: Head
    | HeadUpdate
    | Commit
    | Request
    | FlowVersion
    | FlowTag
    | LimitSwap
    | Block
    | LogBlock
    | AttemptRecord
    | SealedSecret
    | AuditRow,
) -> bool:
    """Whether every backend can keep this document and give it back the same."""
    match document:
        case Commit(task_id, seq, name, prev, at, by, body):
            # All of them at once: nearly every commit is of ASCII, and there are thousands a second.
            names = f"{task_id}{name}{prev}{by}"
            plain = body.isascii() and names.isascii() and len(body) + len(names) <= MAX_TEXT
            fits = plain or _text(body, task_id, name, prev, by)
            return fits and -MAX_INT <= seq <= MAX_INT and at == at
        case HeadUpdate():
            return (
                _text(document.task_id, document.status, document.error, document.snapshot)
                and _whole(document.seq, document.published_seq)
                and _number(document.next_wake, document.updated_at, document.ended_at, document.remove_at)
            )
        case Head():
            return _storable_head(document)
        case Block(stream, seq, attempt, count, body):
            fits = _text(body, stream.task_id, stream.node)
            return fits and _whole(stream.generation, seq, attempt, count)
        case LogBlock(task_id, tenant, node, base, attempt, first, count, level, until, place, body):
            return (
                _text(body, task_id, tenant, node, base)
                and _whole(attempt, first, count, level, place)
                and until == until
            )
        case AttemptRecord():
            return _storable_attempt(document)
        case LimitSwap():
            return _text(document.limit_id, document.before, document.stamp, document.body) and _whole(
                document.partition
            )
        case Request():
            return (
                _text(document.args)
                and _text(document.task_id, document.id, document.kind, document.tenant, document.principal)
                and _whole(document.n, document.partition)
                and _number(document.at)
            )
        case FlowVersion(tenant, name, version, graph_ref, created_at, principal, note):
            return _text(tenant, name, graph_ref, principal, note) and _whole(version) and _number(created_at)
        case FlowTag(tenant, name, tag, version, revision, at, principal):
            return _text(tenant, name, tag, principal) and _whole(version, revision) and _number(at)
        case SealedSecret():
            return (
                _text(document.tenant, document.name, document.key_id, document.allow, document.principal)
                and len(document.wrapped) + len(document.sealed) <= CHUNK
                and _whole(document.version)
                and _number(document.created_at)
            )
        case AuditRow():
            return (
                _text(document.id, document.tenant, document.principal, document.action, document.name)
                and _text(document.outcome, document.flow, document.task_id, document.node, document.worker)
                and _text(document.note)
                and _whole(document.version, document.attempt)
                and _number(document.at)
            )


def _storable_head(head: Head) -> bool:
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


def _storable_attempt(one: AttemptRecord) -> bool:
    return (
        _text(one.task_id, one.tenant, one.flow, one.node, one.base, one.role, one.outcome, one.code, one.worker)
        and _whole(one.attempt, one.generation, one.seq)
        and _number(one.ready_at, one.leased_at, one.ended_at, one.run_sec)
        and abs(one.ended_at) < MAX_INT
    )


def unpublished_or_wake(document: Head | HeadUpdate) -> float | None:
    """When the sweeper has to look at a head: one number for one index; 0 while an event is unpublished."""
    return 0.0 if document.published_seq < document.seq else document.next_wake


def chunks(data: bytes) -> list[bytes]:
    """The blob in pieces of at most CHUNK bytes; at least one."""
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)] or [b""]


def check_record(record: Record, partitions: int) -> None:
    """Raise ValueError for a record that no bus could ever carry: a mistake of the caller, not weather."""
    size = len(record.value or b"") + len(record.key or b"")
    if record.headers:  # one call for all of them: there are thousands of records a second
        names, contents = zip(*record.headers, strict=True)
        size += len("".join(names)) + len(b"".join(contents))
    if size > MAX_MESSAGE:
        raise ValueError(f"a record of {size} bytes for {record.topic!r}: at most {MAX_MESSAGE}; send a reference")
    if not 0 <= record.partition < partitions:
        raise ValueError(f"topic {record.topic!r} has no partition {record.partition}, it has {partitions}")


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
