"""Work that gets its time, unless somebody is in a hurry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

LAST_SEC = 10.0


async def done_before(hurried: asyncio.Event, work: Awaitable[object]) -> bool:
    """Await this work, and raise what it raises; but only until `hurried` is set. Then it is cancelled, it has
    `LAST_SEC` to clean up, and the answer is False."""
    doing = asyncio.ensure_future(work)
    flag = asyncio.ensure_future(hurried.wait())
    try:
        await asyncio.wait({doing, flag}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        doing.result()
        return True
    finally:
        doing.cancel()
        flag.cancel()
        await asyncio.wait({doing, flag}, timeout=LAST_SEC)
