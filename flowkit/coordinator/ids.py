"""The ids of tasks: UUIDs (RFC 9562) of the time of creation, or of the idempotency key."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Final

from flowkit.wire.codec import dumps

LONG_AGO_SEC: Final = 3600.0
_OF_TIME: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id(now: float) -> str:
    return uuid_of(int(now * 1000) << 80 | random.getrandbits(80), version=7)


def id_of_key(tenant: str, key: str) -> str:
    """The id of the task that a tenant's idempotency key names."""
    return _of_hash([tenant, key])


def id_of_life(first_id: str, life: int) -> str:
    """The id of the task that began with the same key when so many tasks of that key had been deleted."""
    return first_id if life == 0 else _of_hash([first_id, life])


def was_long_ago(task_id: str, now: float) -> bool:
    """Whether the id says that its task was created long ago: if it is not there any more, it was deleted."""
    if _OF_TIME.fullmatch(task_id) is None:
        return False
    return now - int(task_id.replace("-", "")[:12], 16) / 1000 > LONG_AGO_SEC


def _of_hash(parts: list[str | int]) -> str:
    digest = hashlib.sha256(dumps(parts)).digest()
    return uuid_of(int.from_bytes(digest[:16]), version=8)


def uuid_of(bits: int, *, version: int) -> str:
    """128 bits as a UUID of this version (RFC 9562): 7 begins with milliseconds and so sorts by time, 8 is free for a
    hash."""
    bits &= (1 << 128) - 1
    bits = bits & ~(0xF << 76) | version << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
