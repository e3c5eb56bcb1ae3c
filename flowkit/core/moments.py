"""Moments as users write them: ISO 8601 with a zone, or seconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final

from flowkit.core.problems import shown
from flowkit.errors import InputError

LATEST: Final = 253_402_300_799.0
"""The end of the year 9999."""
EXAMPLE: Final = '"2027-01-31T18:00:00Z"'


def read_moment(value: Any) -> float:
    """Epoch seconds. Raises `InputError` for what is no moment: a time without a zone means another one elsewhere."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and 0 < value <= LATEST:
            return float(value)
        raise InputError(f"expected seconds since the epoch, above 0, found {shown(value)}")
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError(f"expected a time such as {EXAMPLE}, or epoch seconds, found {shown(value)}") from None
    if moment.tzinfo is None:
        raise InputError(f"expected a time with its zone, such as {EXAMPLE}, found {shown(value)}; add Z for UTC")
    try:
        return moment.timestamp()
    except OverflowError:
        raise InputError(f"expected a time such as {EXAMPLE}, found {shown(value)}") from None


def show_moment(at: float) -> str:
    """The moment in UTC, to the second where it is a whole one."""
    return datetime.fromtimestamp(min(max(at, 0.0), LATEST), UTC).isoformat().replace("+00:00", "Z")
