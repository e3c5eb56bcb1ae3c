"""Work that is cut short leaves nothing behind, and work that is not is as if it had been awaited."""

from __future__ import annotations

import asyncio

import pytest

from flowkit import hurry
from flowkit.hurry import done_before


async def test_work_that_nobody_hurries_is_done() -> None:
    did = []

    async def work() -> None:
        await asyncio.sleep(0)
        did.append("all")

    assert await done_before(asyncio.Event(), work())
    assert did == ["all"]


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await done_before(asyncio.Event(), work())


async def test_work_that_is_done_when_the_hurry_comes_is_done() -> None:
    hurried = asyncio.Event()

    async def work() -> None:
        hurried.set()

    assert await done_before(hurried, work())


async def test_work_in_a_hurry_is_cancelled_and_has_cleaned_up_when_that_is_said() -> None:
    hurried, did = asyncio.Event(), []

    async def work() -> None:
        hurried.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            did.append("cleaned up")

    assert not await done_before(hurried, work())
    assert did == ["cleaned up"]


async def test_work_that_will_not_end_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hurry, "LAST_SEC", 0.01)
    hurried, over = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        hurried.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    stubborn = asyncio.ensure_future(work())
    assert not await done_before(hurried, stubborn)
    assert not stubborn.done()
    over.set()
    await stubborn


async def test_who_waits_and_is_cancelled_takes_the_work_along() -> None:
    begun, did = asyncio.Event(), []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            did.append("cancelled")
            raise

    waiting = asyncio.ensure_future(done_before(asyncio.Event(), work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert did == ["cancelled"]


async def test_nothing_is_left_running() -> None:
    before = asyncio.all_tasks()
    hurried = asyncio.Event()
    hurried.set()
    await done_before(hurried, asyncio.sleep(60))
    await done_before(asyncio.Event(), asyncio.sleep(0))
    assert asyncio.all_tasks() == before
