"""The system's clock, and one that a test moves by hand."""

from __future__ import annotations

import time


class SystemClock:
    """Time as the operating system tells it."""

    def wall(self) -> float:
        return time.time()

    def mono(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved. `start` and `advance` are seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def wall(self) -> float:
        return self.now

    def mono(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
