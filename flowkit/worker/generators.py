"""Drives a handler that yields: each value is a batch of the node's stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator
from functools import partial
from typing import Any

from flowkit.worker.inputs import RunSync
from flowkit.worker.stream_flow import StreamFlow

AT_ONCE_SEC = 0.005
MOST_AT_ONCE = 64
FIRST = 32
LET_IN = 256
"""After each of the first batches whoever writes and tells of them gets a turn, then after every so many: each turn may
make a block smaller."""
NOTHING: Any = object()


async def run_async(batches: AsyncIterator[Any], flow: StreamFlow | None) -> Any:
    """The node's output: how many batches there were."""
    count = 0
    try:
        async for value in batches:
            count += 1
            await emit(value, flow)
            if count <= FIRST or count % LET_IN == 0:
                await asyncio.sleep(0)
    finally:
        if (close := getattr(batches, "aclose", None)) is not None:
            await close()
    return {"batches": count if flow is None else flow.produced}


async def run_plain(batches: Generator[Any, None, Any], flow: StreamFlow | None, run_sync: RunSync) -> Any:
    """The same for a plain generator, which runs in a thread for some milliseconds at a time; what it makes first is
    not held back for that. What it returns is the node's output, if it returns something."""
    count, result, most = 0, NOTHING, 1
    while result is NOTHING:
        values, result, error = await run_sync(partial(_some, batches, most))
        most = min(MOST_AT_ONCE, 2 * most)
        for value in values:
            count += 1
            await emit(value, flow)
        if error is not None:
            raise error
    return result if result is not None else {"batches": count if flow is None else flow.produced}


def _some(batches: Generator[Any, None, Any], most: int) -> tuple[list[Any], Any, BaseException | None]:
    """Some batches; what the generator returned, if it has; and what it raised behind them, if it has."""
    values: list[Any] = []
    until = time.monotonic() + AT_ONCE_SEC
    try:
        while not values or (len(values) < most and time.monotonic() < until):
            values.append(next(batches))
    except StopIteration as stop:
        return values, stop.value, None
    except (Exception, SystemExit) as error:  # the handler's, raised again behind what it made before
        return values, NOTHING, error
    return values, NOTHING, None


async def emit(value: Any, flow: StreamFlow | None) -> None:
    """Put a value into the stream as soon as there is room for it, unless it is there."""
    if flow is None:
        return
    uid = getattr(value, "batch_uid", None)
    if uid is not None or hasattr(value, "batch_uid"):
        value = value.payload
    if not flow.passes(uid):
        made = await flow.prepare(value)
        await flow.room()
        flow.put(made, uid)
