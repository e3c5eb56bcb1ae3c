"""Waits that take too long end at their time; those that end before leave nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

from flowkit.alarms import ROOMY, Alarms
from tests.worker.stand import virtual


@virtual
async def test_each_wakes_at_its_own_time_in_whatever_order_they_lay_down() -> None:
    alarms, loop = Alarms[None](), asyncio.get_running_loop()
    began, woke = loop.time(), dict[float, float]()

    async def rest(seconds: float) -> None:
        await alarms.sleep(loop.create_future(), seconds)
        woke[seconds] = loop.time() - began

    await asyncio.gather(*map(rest, (3.0, 1.0, 2.0, 15.0, 0.5, 1.5)))

    assert list(woke) == [0.5, 1.0, 1.5, 2.0, 3.0, 15.0]
    assert all(abs(at - seconds) < 0.01 for seconds, at in woke.items())


@virtual
async def test_who_is_woken_before_leaves_nothing_behind() -> None:
    alarms, loop = Alarms[None](), asyncio.get_running_loop()
    long = asyncio.ensure_future(alarms.sleep(loop.create_future(), 60.0))
    for _ in range(10):
        sleepers = [loop.create_future() for _ in range(ROOMY)]
        naps = [asyncio.ensure_future(alarms.sleep(one, 50.0)) for one in sleepers]
        await asyncio.sleep(0)
        for one in sleepers:
            one.set_result(None)
        await asyncio.gather(*naps)
        assert len(alarms._sleepers) <= 2 * ROOMY

    began = loop.time()
    await long
    assert abs(loop.time() - began - 60.0) < 0.01
    assert (alarms._sleepers, alarms._timer) == ([], None)


@virtual
async def test_who_gives_up_does_not_keep_the_others_from_waking() -> None:
    alarms, loop = Alarms[None](), asyncio.get_running_loop()
    first = asyncio.ensure_future(alarms.sleep(loop.create_future(), 1.0))
    second = asyncio.ensure_future(alarms.sleep(loop.create_future(), 2.0))
    await asyncio.sleep(0)
    first.cancel()
    began = loop.time()
    await second

    assert first.cancelled()
    assert abs(loop.time() - began - 2.0) < 0.01


def test_a_loop_that_is_over_keeps_nobody_asleep_in_the_next() -> None:
    alarms = Alarms[None]()

    async def woken() -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(sleeper.set_result, None)
        await alarms.sleep(sleeper, 0.05)  # its timer is still set when the loop ends

    async def sleeps() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(10):
            await alarms.sleep(loop.create_future(), 0.1)
        return loop.time() - began

    asyncio.run(woken())
    assert 0.09 < asyncio.run(sleeps()) < 5


@virtual
async def test_one_timer_serves_many_waits_one_after_the_other() -> None:
    alarms, loop = Alarms[None](), asyncio.get_running_loop()
    set_at = list[float]()
    call_at = loop.call_at

    def noting(when: float, *args: Any, **more: Any) -> asyncio.TimerHandle:
        set_at.append(when)
        return call_at(when, *args, **more)

    loop.call_at = noting  # type: ignore[method-assign]
    for _ in range(50):
        sleeper: asyncio.Future[None] = loop.create_future()
        loop.call_soon(sleeper.set_result, None)
        await alarms.sleep(sleeper, 5.0)
    began = loop.time()
    await alarms.sleep(loop.create_future(), 7.0)

    assert abs(loop.time() - began - 7.0) < 0.01
    assert len(set_at) == 2  # for the first, and from its ring on for the last
