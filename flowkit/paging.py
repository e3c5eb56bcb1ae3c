"""How many rows a page may hold."""

from __future__ import annotations

from typing import Final

LARGEST_PAGE: Final = 1000


def checked_limit(limit: object, most: int = LARGEST_PAGE) -> int:
    """How many rows are asked for. Raises `ValueError` for what is no number from 1 to `most`."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise ValueError(f"limit is a whole number from 1 to {most:,}, not {limit!r}")
    return limit
