"""Small things that handlers like to have at hand: a hash of a JSON value, JSON as bytes, a wait that varies."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from flowkit.wire.codec import dumps, loads

__all__ = ["dumps", "jitter_ms", "loads", "stable_hash"]


def stable_hash(payload: Any) -> str:
    """The same for equal JSON values, in every process: BLAKE2b (20 bytes, as hex) of sorted, compact JSON."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=20).hexdigest()


def jitter_ms(base: float) -> int:
    """Milliseconds near `base`, up to a fifth more or less."""
    return round(base * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all wait equally long
