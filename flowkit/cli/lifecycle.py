"""How long-running commands live: try until the services answer, serve until a signal, stop in order, or at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from flowkit.cli.console import clean, say
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.hurry import done_before

FIRST_PAUSE_SEC = 1.0
LONGEST_PAUSE_SEC = 30.0
MOMENT_SEC = 4.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """While it is entered, the first SIGTERM or SIGINT asks to stop, and the second to do so at once.

    `at_once` has a moment for that; without it, and after it, the process ends with `exit_code`."""

    def __init__(self, *, exit_code: int | None = None, at_once: Callable[[], None] | None = None) -> None:
        self.asked = asyncio.Event()
        self._exit_code = exit_code
        self._at_once = at_once
        self._count = 0

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._heard, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def _heard(self, number: int) -> None:
        self._count += 1
        if self._count == 1:
            self.asked.set()
            return
        say("stopping at once")
        if self._count == 2 and self._at_once is not None:
            self._at_once()
            asyncio.get_running_loop().call_later(MOMENT_SEC, self._end, number)
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        os._exit(self._exit_code if self._exit_code is not None else 128 + number)


class Service(Protocol):
    """What `serve` needs of a worker, a coordinator, or both."""

    async def start(self) -> None: ...
    async def started(self) -> None: ...
    async def stop(self) -> None: ...


async def serve(make: Callable[[], Service], signals: Signals, *, stopping: str = "stopping") -> None:
    """Start what `make` gives, again and again until its services answer, and run it until a signal."""
    service = await _start(make, signals)
    if service is not None:
        try:
            await service.started()
            await signals.asked.wait()
            say(stopping)
        finally:
            await service.stop()
    say("stopped")


async def _start(make: Callable[[], Service], signals: Signals) -> Service | None:
    """A started service, or None if a signal came first."""
    pause = FIRST_PAUSE_SEC
    while not signals.asked.is_set():
        service = make()
        try:
            return service if await done_before(signals.asked, service.start()) else None
        except (BusUnavailable, StoreUnavailable) as error:
            say(f"{clean(error)} [{error.code}]; trying again in {pause:g} s")
        if await _asked_within(signals, pause):
            return None
        pause = min(LONGEST_PAUSE_SEC, pause * 2)
    return None


async def _asked_within(signals: Signals, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await signals.asked.wait()
    except TimeoutError:
        return False
    return True
