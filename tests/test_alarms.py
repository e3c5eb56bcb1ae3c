"""Waits that take too long end at their time; those that end before leave nothing behind."""

from __future__ import annotations

import asyncio

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
