"""The dead letter: a message that nobody could read or apply, as it was found, and why."""

from __future__ import annotations

from flowkit.ports import Record
from flowkit.wire.topics import Topics

# Together they stay below what any bus carries, and an honest message below each: only a monster loses its tail.
MAX_VALUE_BYTES = 896 * 1024
MAX_KEY_BYTES = 64 * 1024
MAX_TEXT_BYTES = 4 * 1024


def dead_letter(topics: Topics, record: Record, reason: str, task_id: str = "") -> Record:
    """What goes to `dead.v1` about a record. Its headers are the letter's own: why, and where the message was
    found."""
    headers = (
        ("reason", _clipped(reason[:1000])),
        ("topic", _clipped(record.topic)),
        ("partition", str(record.partition).encode()),
        ("offset", str(record.offset).encode()),
        ("task_id", _clipped(task_id)),
    )
    value = None if record.value is None else record.value[:MAX_VALUE_BYTES]
    key = None if record.key is None else record.key[:MAX_KEY_BYTES]
    return Record(topics.dead, 0, value, key, headers)


def _clipped(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES]
