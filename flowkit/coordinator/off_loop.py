"""Long computations beside the loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TypeVar

SWITCH_SEC = 0.0002

R = TypeVar("R")

_at_work = 0
_interval_sec = 0.0


async def off_loop(work: Callable[[], R]) -> R:
    """Do it in a thread, and let the loop interrupt that thread at once while it is at work: at Python's usual
    interval each of the dozen steps of a hop would wait 5 ms for the interpreter."""
    global _at_work, _interval_sec  # noqa: PLW0603 - the interval is the process's too
    if _at_work == 0:
        _interval_sec = sys.getswitchinterval()
        sys.setswitchinterval(min(_interval_sec, SWITCH_SEC))
    _at_work += 1
    try:
        return await asyncio.to_thread(work)
    finally:
        _at_work -= 1
        if _at_work == 0:
            sys.setswitchinterval(_interval_sec)
