"""A worker starts, drains, stops, and starts again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from flowkit.core.reports import Declined, Released, Succeeded
from flowkit.errors import ConfigError
from flowkit.telemetry import AttemptKilled
from flowkit.worker.registry import Registry
from flowkit.worker.runtime import WorkerRuntime
from tests.worker.stand import WORKER, Stand, virtual


async def sleeps(sec: float) -> str:
    await asyncio.sleep(sec)
    return "slept"


@virtual
async def test_every_life_has_its_own_incarnation() -> None:
    async with Stand([sleeps]) as stand:
        first = stand.runtime.incarnation
        await stand.runtime.stop()
        await stand.runtime.start()
        assert stand.runtime.incarnation not in ("", first)
        assert stand.runtime.worker_id == WORKER
        assert isinstance(await stand.run("sleeps", {"sec": 0}), Succeeded)


def test_without_a_name_it_gets_one() -> None:
    stand = Stand([sleeps])
    stand.cfg.worker_id = None
    made = WorkerRuntime(
        store=stand.store, bus=stand.bus, clock=stand.clock, cfg=stand.cfg, registry=Registry([sleeps])
    )
    assert made.worker_id.startswith("w-")
    assert len(made.worker_id) == 10


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="slots is a whole number, 1 or more"):
        Stand([sleeps], slots=0)
    with pytest.raises(ConfigError, match="heart_in_thread needs"):
        Stand([sleeps], options={"heart_in_thread": True})


@virtual
async def test_draining_lets_what_runs_finish_and_hands_back_the_rest() -> None:
    async with Stand([sleeps], slots=2) as stand:
        short, long, queued = (stand.job("sleeps", {"sec": sec}) for sec in (3, 60, 1))
        await stand.send(short, long, queued)
        await asyncio.sleep(1)
        draining = asyncio.create_task(stand.runtime.drain(10))
        await asyncio.sleep(0.1)
        await stand.read()
        assert stand.beats[-1].draining, "at once"
        assert isinstance(await stand.result(queued), Declined)

        late = stand.job("sleeps", {"sec": 0})
        await stand.send(late)
        assert isinstance(await stand.result(late), Declined)
        assert stand.runtime.draining
        await draining

        assert isinstance(await stand.result(short), Succeeded)
        assert isinstance(await stand.result(long), Released)
        assert AttemptKilled(WORKER, long.token, "drain") in stand.happenings
        assert stand.goodbyes[-1].incarnation == stand.runtime.incarnation
        assert stand.fleet[-1] == stand.goodbyes[-1], "nothing is said after goodbye"


@virtual
async def test_an_idle_worker_drains_at_once() -> None:
    async with Stand([sleeps]) as stand:
        began = asyncio.get_running_loop().time()
        await stand.runtime.drain()
        assert asyncio.get_running_loop().time() - began < 0.1
        await stand.read()
        assert stand.goodbyes


@virtual
async def test_draining_waits_for_the_last_result_to_be_acknowledged_but_not_for_ever() -> None:
    async with Stand([sleeps]) as stand:
        job = stand.job("sleeps", {"sec": 1})
        await stand.send(job)
        await asyncio.sleep(0.5)
        stand.bus.deaf.add(stand.topics.facts)
        draining = asyncio.create_task(stand.runtime.drain())
        await asyncio.sleep(3)
        assert not draining.done()
        stand.bus.deaf.clear()
        await draining
        assert isinstance(await stand.result(job), Succeeded)

        await stand.runtime.start()
        stand.bus.deaf.add(stand.topics.facts)
        await stand.send(stand.job("sleeps", {"sec": 0}))
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await stand.runtime.drain()
        assert asyncio.get_running_loop().time() - began < 10


@virtual
async def test_stopping_cancels_and_hands_back() -> None:
    unwound = []

    async def endless() -> None:
        try:
            await asyncio.sleep(10_000)
        finally:
            unwound.append(True)

    async with Stand([endless]) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await stand.runtime.stop()
        assert asyncio.get_running_loop().time() - began < 1
        assert unwound
        assert isinstance(await stand.result(job), Released)
        assert stand.goodbyes


@virtual
async def test_stopping_is_bounded_whatever_hangs() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                if done:
                    raise

    done: list[bool] = []
    async with Stand([stubborn]) as stand:
        await stand.send(stand.job("stubborn"))
        await asyncio.sleep(1)
        stand.bus.stuck |= {stand.topics.fleet, stand.topics.facts}
        began = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(stand.runtime.stop())
        await asyncio.sleep(15)
        assert stopping.done()
        assert asyncio.get_running_loop().time() - began < 16
        done.append(True)
        await asyncio.sleep(0)


@virtual
async def test_a_second_stop_during_a_drain_cuts_it_short() -> None:
    async with Stand([sleeps]) as stand:
        job = stand.job("sleeps", {"sec": 100})
        await stand.send(job)
        await asyncio.sleep(1)
        draining = asyncio.create_task(stand.runtime.drain(60))
        await asyncio.sleep(1)
        draining.cancel()
        await asyncio.sleep(0)
        await stand.runtime.stop()
        assert isinstance(await stand.result(job), Released)
        assert not stand.runtime.running


@virtual
async def test_stopping_twice_or_before_the_start_is_fine() -> None:
    async with Stand([sleeps]) as stand:
        await stand.runtime.stop()
        await stand.runtime.stop()
        await stand.runtime.drain()
    fresh = Stand([sleeps])
    await fresh.runtime.stop()
    assert fresh.runtime.active == []


@virtual
async def test_a_stop_overtakes_a_drain_that_waits() -> None:
    async with Stand([sleeps]) as stand:
        await stand.send(stand.job("sleeps", {"sec": 500}))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        draining = asyncio.ensure_future(stand.runtime.drain(300))
        await asyncio.sleep(1)

        await asyncio.gather(draining, stand.runtime.stop())

        assert asyncio.get_running_loop().time() - began < 10
        assert not stand.runtime.running


@virtual
async def test_a_stop_wakes_a_drain_though_what_runs_does_not_end() -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
                return

    async with Stand({"stubborn": stubborn}) as stand:
        await stand.send(stand.job("stubborn"))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        draining = asyncio.ensure_future(stand.runtime.drain(300))
        await asyncio.sleep(1)

        await stand.runtime.stop()
        await draining

        assert asyncio.get_running_loop().time() - began < 10


@virtual
async def test_it_tells_what_runs_now() -> None:
    async with Stand([sleeps], slots=1) as stand:
        job = stand.job("sleeps", {"sec": 5})
        await stand.send(job, stand.job("sleeps", {"sec": 5}))
        await asyncio.sleep(1)
        assert [held.token for held in stand.runtime.active] == [job.token]


@virtual
async def test_a_start_that_fails_leaves_nothing_behind() -> None:
    stand = Stand([sleeps])

    async def refuses(*_: Any) -> Any:
        raise RuntimeError("no tail today")

    stand.bus.tail = refuses  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no tail today"):
        await stand.runtime.start()
    assert not stand.runtime.running
    assert len(asyncio.all_tasks()) == 1


@virtual
async def test_an_idle_worker_does_next_to_nothing() -> None:
    async with Stand([sleeps]):
        loop: Any = asyncio.get_running_loop()
        await asyncio.sleep(10)
        before = loop.steps
        await asyncio.sleep(100)
        assert loop.steps - before < 100 * 12
