"""Ends waits that take too long. Nearly all of them end before: so they share one timer of the loop, which is dear to
set, and which stays set until it rings: by then it finds nobody, or who came since."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any, Generic, TypeVar

T = TypeVar("T")

ROOMY = 100


class Alarms(Generic[T]):
    """Of one loop at a time. `T` is what those say who end a wait before its time; None has to be something else, or
    nothing."""

    def __init__(self) -> None:
        self._sleepers: list[tuple[float, int, asyncio.Future[Any]]] = []
        self._count = 0
        self._asleep = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def sleep(self, sleeper: asyncio.Future[T], seconds: float) -> None:
        """Wait until somebody sets `sleeper`; after so many seconds it is set to None."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        self._count += 1
        self._asleep += 1
        heapq.heappush(self._sleepers, (at, self._count, sleeper))
        if self._timer is None or at < self._rings_at or loop is not self._loop:
            self._set_timer(loop, at)
        try:
            await sleeper
        finally:
            self._asleep -= 1
            if not self._asleep:
                self._sleepers.clear()
            elif len(self._sleepers) > 2 * self._asleep + ROOMY:
                self._sleepers = [entry for entry in self._sleepers if not entry[2].done()]
                heapq.heapify(self._sleepers)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None and loop is self._loop:  # else it belongs to a loop that is over
            self._timer.cancel()
        self._timer, self._rings_at, self._loop = loop.call_at(at, self._ring), at, loop

    def _ring(self) -> None:
        """Wake those whose time is over, and set the timer for the next who still sleeps."""
        loop = asyncio.get_running_loop()
        self._timer, now = None, loop.time()
        while self._sleepers:
            at, _, sleeper = self._sleepers[0]
            if not sleeper.done():
                if at > now:
                    self._set_timer(loop, at)
                    return
                sleeper.set_result(None)
            heapq.heappop(self._sleepers)
