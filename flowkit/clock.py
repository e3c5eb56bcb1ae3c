"""Time, as handlers and tests meet it: the system's clock, and one that a test moves by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from flowkit.errors import ConfigError


class Clock(Protocol):
    """What a clock can be asked: `wall` (seconds since the epoch, UTC) and `mono` (seconds, never jumps), and the same
    as a datetime and in milliseconds."""

    def wall(self) -> float: ...

    def mono(self) -> float: ...

    def now_dt(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)

    def now_ms(self) -> int:
        return round(self.wall() * 1000)

    def mono_ms(self) -> int:
        return round(self.mono() * 1000)

    async def sleep_ms(self, ms: float) -> None:
        await asyncio.sleep(ms / 1000)


class SystemClock(Clock):
    """Time as the operating system tells it."""

    # The functions themselves: they are asked a dozen times per node.
    wall = staticmethod(time.time)
    mono = staticmethod(time.monotonic)


class ManualClock(Clock):
    """A clock that stands still until it is moved, by `advance` or by whoever sleeps by it. `start` and `advance` are
    seconds, `start_ms` milliseconds."""

    def __init__(self, start: float = 0.0, *, start_ms: float | None = None) -> None:
        self.now = start if start_ms is None else start_ms / 1000

    def wall(self) -> float:
        return self.now

    def mono(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.now += seconds

    async def sleep_ms(self, ms: float) -> None:
        self.advance(ms / 1000)
        await asyncio.sleep(0)


class _Borrowed(Clock):
    """Any clock that tells seconds, with the other ways to ask."""

    def __init__(self, wall: Callable[[], float], mono: Callable[[], float]) -> None:
        self._wall = wall
        self._mono = mono

    def wall(self) -> float:
        return self._wall()

    def mono(self) -> float:
        return self._mono()


def whole_clock(given: object) -> Clock:
    """A clock that can be asked everything, from one that answers `wall` and `mono`, or `now_ms` and `mono_ms`.

    Raises `ConfigError` for what does neither.
    """
    match (_verbs(given, "wall", "mono"), _verbs(given, "now_ms", "mono_ms", "now_dt", "sleep_ms")):
        case (_, _), (_, _, _, _):
            return given  # type: ignore[return-value]
        case (wall, mono), _:
            return _Borrowed(wall, mono)
    match _verbs(given, "now_ms", "mono_ms"):
        case now_ms, mono_ms:
            return _Borrowed(lambda: now_ms() / 1000, lambda: mono_ms() / 1000)
    raise ConfigError(f"a clock answers now_ms() and mono_ms(), as flowkit.clock.SystemClock does; {given!r} does not")


def _verbs(given: object, *names: str) -> list[Callable[[], float]]:
    """The methods of these names, or nothing if one is missing."""
    found = [getattr(given, name, None) for name in names]
    return [verb for verb in found if callable(verb)] if all(map(callable, found)) else []
