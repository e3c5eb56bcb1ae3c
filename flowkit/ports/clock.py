"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time as one process sees it. Two machines' clocks are never compared."""

    def wall(self) -> float:
        """Seconds since the epoch (UTC)."""

    def mono(self) -> float:
        """Seconds of a clock that never jumps; only differences mean anything."""
