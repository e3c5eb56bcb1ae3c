"""Ends a task in the background for certain."""

from __future__ import annotations

import asyncio

AGAIN_SEC = 0.5


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it is over. A database's driver may take a cancellation for a connection that was lost, and
    answer with an error instead: then the task would go on, and whoever waits for its end would wait for ever."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_SEC)
