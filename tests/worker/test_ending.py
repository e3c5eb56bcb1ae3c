"""A task in the background ends, also one that takes its cancellation for something else."""

from __future__ import annotations

import asyncio

from flowkit.worker.ending import end
from tests.worker.stand import virtual


@virtual
async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()
    assert swallowed == 3


@virtual
async def test_a_task_that_is_over_is_left_alone() -> None:
    async def short() -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(short())
    await asyncio.sleep(1)
    await end(task)
    assert not task.cancelled()
