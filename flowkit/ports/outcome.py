"""What a store answers to a write."""

from __future__ import annotations

import enum


class Outcome(enum.Enum):
    """What became of one insert or guarded update. Only OK may be acted on; UNKNOWN may still happen."""

    OK = "ok"
    DUPLICATE = "duplicate"
    NO_MATCH = "no_match"
    UNKNOWN = "unknown"
