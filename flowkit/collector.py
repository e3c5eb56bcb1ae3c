"""When Python looks for garbage cycles, in a process that keeps the state of many tasks.

The engine's own objects form no cycles, so reference counting frees them all; yet with Python's defaults the cycle
collector walks over them again and again: a third of a coordinator's time with a thousand small tasks, and pauses of
up to half a second with one of a hundred thousand nodes. So young objects are looked at less often, and all objects
when nothing else is to be done.
"""

from __future__ import annotations

import gc
import sys
import time

YOUNG, MIDDLE = 10_000, 2
"""Containers allocated and not freed between two looks at the young, and such looks between two at the middle-aged:
few, for a look at the middle-aged takes as long as there are containers that survived since the last."""
NEVER = 1_000_000
EVERY_SEC = 1.0
IDLE_SHARE = 0.2
FEW_WAITS, MOST_WAITS = 10, 240
"""So many looks at the middle-aged (40,000 surviving containers each) without one at all: then if idle; even if
busy."""


class CycleCollection:
    """Tunes the collector of this process between `begin` and `end`, unless the app has set it already or Python
    collects in small steps by itself (3.14). Several in one process share the tuning."""

    _users = 0
    _before: tuple[int, int, int] | None = None

    def __init__(self) -> None:
        self._tuned = False
        self._cpu = self._at = 0.0

    def begin(self) -> bool:
        """Whether the collector is tuned: then `step` must be called every `EVERY_SEC`."""
        kind = CycleCollection
        if kind._users == 0:
            if sys.version_info >= (3, 14) or not gc.isenabled() or gc.get_threshold()[0] not in (700, 2000):
                return False
            kind._before = gc.get_threshold()
            gc.set_threshold(YOUNG, MIDDLE, NEVER)
        kind._users += 1
        self._tuned = True
        self._cpu, self._at = time.process_time(), time.monotonic()
        return True

    def end(self) -> None:
        if not self._tuned:
            return
        self._tuned = False
        kind = CycleCollection
        kind._users -= 1
        if kind._users == 0 and kind._before is not None:
            gc.set_threshold(*kind._before)
            kind._before = None

    async def step(self) -> None:
        """Look at all objects if that is due, and the process idle or the look long overdue."""
        cpu, now = time.process_time(), time.monotonic()
        busy = (cpu - self._cpu) / max(now - self._at, 1e-6)
        self._cpu, self._at = cpu, now
        waits = gc.get_count()[2]
        if waits >= MOST_WAITS or (waits >= FEW_WAITS and busy < IDLE_SHARE):
            gc.collect()
            self._cpu = time.process_time()
