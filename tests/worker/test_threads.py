"""Plain functions run in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from flowkit.clock import SystemClock
from flowkit.core.reports import Failed, Released, Succeeded
from flowkit.errors import Cancelled
from flowkit.worker.threads import Threads
from tests.worker.stand import Stand

NAME = contextvars.ContextVar("NAME", default="")


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2, "test")

    assert await threads.run(lambda: threading.current_thread().name) == "test-1"
    with pytest.raises(KeyError):
        await threads.run(lambda: {}["x"])
    with pytest.raises(SystemExit):
        await threads.run(lambda: exit(3))
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    threads.stop()


async def test_threads_are_reused_and_bounded() -> None:
    threads = Threads(3, "test")
    seen = set()

    def note() -> None:
        time.sleep(0.002)
        seen.add(threading.current_thread().name)

    await asyncio.gather(*(threads.run(note) for _ in range(20)))
    assert seen == {"test-1", "test-2", "test-3"}
    threads.stop()


async def test_context_variables_are_copied() -> None:
    threads = Threads(1, "test")
    NAME.set("Ada")

    def change() -> str:
        before = NAME.get()
        NAME.set("Bob")
        return before

    assert await threads.run(change) == "Ada"
    assert NAME.get() == "Ada"
    threads.stop()


async def test_a_cancelled_call_that_has_not_begun_never_begins() -> None:
    threads = Threads(1, "test")
    gate, ran = threading.Event(), []
    first = asyncio.ensure_future(threads.run(gate.wait))
    second = asyncio.ensure_future(threads.run(lambda: ran.append(True)))
    await asyncio.sleep(0.005)
    second.cancel()
    await asyncio.sleep(0)
    gate.set()
    await first
    await threads.run(lambda: None)
    assert ran == []
    threads.stop()


# ---- plain handlers


def stand_for(**handlers: Any) -> Stand:
    return Stand(handlers, clock=SystemClock(), slots=2)


async def test_a_plain_handler_runs_in_a_thread() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    async with stand_for(where=where) as stand:
        report = await stand.run("where")
        assert isinstance(report, Succeeded)
        assert report.output.value is False


async def test_a_plain_handler_may_use_its_context() -> None:
    def works(ctx: Any) -> Any:
        ctx.progress(1, 2)
        ctx.raise_if_cancelled()
        ref = ctx.from_thread(ctx.artifacts.put_bytes(b"kept"))
        return [ctx.task_id, ctx.from_thread(ctx.artifacts.get(ref)).decode()]

    async with stand_for(works=works) as stand:
        job = stand.job("works")
        await stand.send(job)
        report = await stand.result(job)
        assert isinstance(report, Succeeded)
        assert report.output.value == [job.task_id, "kept"]


async def test_a_plain_function_that_gives_an_awaitable_is_awaited() -> None:
    async def inner() -> int:
        return 5

    async with stand_for(gives=lambda: inner()) as stand:
        report = await stand.run("gives")
        assert isinstance(report, Succeeded)
        assert report.output.value == 5


async def test_a_stopped_plain_handler_notices_if_it_looks() -> None:
    looked = threading.Event()

    def looks(ctx: Any) -> None:
        while True:
            looked.set()
            ctx.raise_if_cancelled()
            time.sleep(0.002)

    async with stand_for(looks=looks) as stand:
        job = stand.job("looks")
        await stand.send(job)
        await stand.until(looked.is_set)
        await stand.send(stand.stop_of(job, grace_sec=30))
        assert isinstance(await stand.result(job, timeout=60), Released)


async def test_a_plain_handler_out_of_time_is_left_behind() -> None:
    gate = threading.Event()

    async with stand_for(stuck=lambda: gate.wait(20) and None, quick=lambda: 5) as stand:
        jobs = [stand.job("stuck", run_sec=0.02) for _ in range(4)]
        await stand.send(*jobs)
        for job in jobs:
            report = await stand.result(job, timeout=60)
            assert isinstance(report, Failed)
            assert report.error["code"] == "timeout"
        assert isinstance(await stand.run("quick"), Succeeded), "slots and threads are free for others"
        assert stand.telemetry.counts["attempts_abandoned"] == 4
        gate.set()


async def test_a_plain_handler_that_does_not_look_is_released_after_its_grace() -> None:
    gate, began = threading.Event(), threading.Event()

    def stuck() -> None:
        began.set()
        gate.wait(20)

    async with stand_for(stuck=stuck) as stand:
        job = stand.job("stuck")
        await stand.send(job)
        await stand.until(began.is_set)
        await stand.send(stand.stop_of(job, grace_sec=0.02))
        assert isinstance(await stand.result(job, timeout=60), Released)
        gate.set()


async def test_the_exceptions_of_a_plain_handler_show_its_own_lines() -> None:
    def breaks() -> None:
        raise Cancelled("by itself")

    async with stand_for(breaks=breaks) as stand:
        report = await stand.run("breaks")
        assert isinstance(report, Failed)
        assert report.error["code"] == "Cancelled"
        assert "in breaks" in report.error["traceback"]
        assert "flowkit/worker" not in report.error["traceback"]


async def test_from_thread_is_not_for_async_handlers() -> None:
    async def wrong(ctx: Any) -> Any:
        return ctx.from_thread(ctx.artifacts.put_bytes(b""))

    async with stand_for(wrong=wrong) as stand:
        report = await stand.run("wrong")
        assert isinstance(report, Failed)
        assert "await the coroutine" in report.error["message"]
