"""Attempts run once each, so many at a time; what cannot start is declined; what is told to end ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit.core.payload import Payload
from flowkit.core.reports import Declined, Failed, Released, Started, Succeeded
from flowkit.errors import Permanent, Retry
from flowkit.telemetry import AttemptKilled
from flowkit.worker.handlers.base import RoleHandler
from flowkit.worker.registry import handler
from flowkit.worker.results import Next
from flowkit.worker.slots import PREFETCH
from tests.worker.stand import Stand, virtual


class Gate:
    """A handler that waits until it is let through, and knows who came."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.ended: list[str] = []
        self.open = asyncio.Event()

    async def pass_through(self, ctx: Any) -> str:
        self.came.append(ctx.task_id)
        try:
            await self.open.wait()
        finally:
            self.ended.append(ctx.task_id)
        return "through"


async def echo(inputs: Any) -> Any:
    return inputs


async def sleeps(sec: float) -> str:
    await asyncio.sleep(sec)
    return "slept"


# ---- results


@virtual
async def test_a_result_is_reported() -> None:
    async with Stand([echo]) as stand:
        job = stand.job("echo", {"a": 1}, node="hi", attempt=3, token="tok")
        await stand.send(job)

        report = await stand.result(job)

        assert report == Succeeded("hi", 3, "tok", Payload({"a": 1}), None, 0.0)
        assert (stand.told[0].task_id, stand.told[0].tenant) == (job.task_id, "default")


@virtual
async def test_the_handler_chooses_successors() -> None:
    async def chooses() -> Next:
        return Next(["b"], 5)

    async with Stand([chooses]) as stand:
        report = await stand.run("chooses")
        assert isinstance(report, Succeeded)
        assert (report.output, report.next) == (Payload(5), ("b",))


@virtual
async def test_the_run_is_measured() -> None:
    async with Stand([sleeps]) as stand:
        report = await stand.run("sleeps", {"sec": 2})
        assert isinstance(report, Succeeded)
        assert report.run_sec == pytest.approx(2)


@pytest.mark.parametrize(
    ("error", "code", "permanent", "after"),
    [
        (ValueError("no"), "ValueError", True, None),
        (OSError("no"), "OSError", False, None),
        (Permanent("schema_mismatch", "no"), "schema_mismatch", True, None),
        (Retry(after_sec=7), "retry", False, 7),
        (SystemExit(3), "SystemExit", False, None),
        (asyncio.CancelledError(), "CancelledError", False, None),
        (TimeoutError("mine"), "TimeoutError", False, None),
    ],
)
@virtual
async def test_an_exception_is_a_failure(error: BaseException, code: str, permanent: bool, after: float | None) -> None:
    async def raises() -> None:
        raise error

    async with Stand([raises]) as stand:
        report = await stand.run("raises")

        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent, report.retry_after) == (code, permanent, after)
        assert await stand.run("raises") is not None, "the worker goes on"


@virtual
async def test_unfit_inputs_fail_for_good() -> None:
    async with Stand([sleeps]) as stand:
        report = await stand.run("sleeps", {"seconds": 1})
        assert isinstance(report, Failed)
        assert report.permanent
        assert report.error["code"] == "bad_input"
        assert "misses sec" in report.error["message"]
        assert "traceback" not in report.error


@virtual
async def test_what_json_cannot_say_fails_for_good() -> None:
    async def bad() -> Any:
        return {"rows": [{"x": {1}}]}

    async with Stand([bad]) as stand:
        report = await stand.run("bad")
        assert isinstance(report, Failed)
        assert report.permanent
        assert report.error["code"] == "bad_output"
        assert report.error["message"].startswith("output.rows[0].x:")


@virtual
async def test_a_fault_of_the_worker_itself_counts_as_a_failure() -> None:
    async with Stand([echo]) as stand:
        performer = stand.runtime._slots._performer
        performer._encode_now = None  # type: ignore[method-assign, assignment]
        report = await stand.run("echo")
        assert isinstance(report, Failed)


# ---- a token runs once


@virtual
async def test_a_token_runs_once() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}) as stand:
        job = stand.job("gate")
        await stand.send(job, job)
        await stand.send(job)
        await stand.until(lambda: gate.came)
        gate.open.set()
        await stand.result(job)
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.read()

        assert gate.came == [job.task_id]
        assert len(stand.results(job)) == 1
        assert stand.telemetry.counts["duplicate_jobs"] == 3


# ---- declined


@virtual
async def test_an_unknown_role_is_declined_at_once() -> None:
    async with Stand([echo]) as stand:
        report = await stand.run("other")
        assert isinstance(report, Declined)
        assert "does not serve 'other'" in report.why


@virtual
async def test_a_full_worker_declines_at_once() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}, slots=2) as stand:
        jobs = [stand.job("gate") for _ in range(2 + PREFETCH + 3)]
        await stand.send(*jobs)
        await stand.until(lambda: len(stand.told) == 3)

        assert {told.task_id for told in stand.told} == {job.task_id for job in jobs[-3:]}
        assert all(isinstance(told.report, Declined) and told.report.why == "full" for told in stand.told)
        assert stand.held[-1] == 2 + PREFETCH


@virtual
async def test_what_comes_after_its_accept_deadline_is_declined() -> None:
    async with Stand([echo]) as stand:
        assert isinstance(await stand.run("echo", accept_by=stand.clock.mono() - 0.1), Declined)


@virtual
async def test_what_waits_past_its_accept_deadline_is_declined_then() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}, slots=1) as stand:
        first, late, patient = stand.job("gate"), stand.job("gate"), stand.job("gate")
        patient = stand.job("gate", accept_by=stand.clock.mono() + 60)
        began = asyncio.get_running_loop().time()
        await stand.send(first, late, patient)
        report = await stand.result(late)

        assert isinstance(report, Declined)
        assert 5.0 <= asyncio.get_running_loop().time() - began <= 5.5
        gate.open.set()
        assert isinstance(await stand.result(patient), Succeeded)
        assert gate.came == [first.task_id, patient.task_id]


@virtual
async def test_the_accept_deadline_is_in_the_workers_own_clock() -> None:
    async with Stand([echo]) as stand:
        stand.clock.ahead = -500.0
        assert isinstance(await stand.run("echo", accept_by=-499.0), Succeeded)


# ---- slots


@virtual
async def test_no_more_run_than_there_are_slots_and_the_first_come_first() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}, slots=3) as stand:
        jobs = [stand.job("gate") for _ in range(5)]
        await stand.send(*jobs)
        await stand.until(lambda: len(gate.came) == 3)
        await asyncio.sleep(0.2)
        assert gate.came == [job.task_id for job in jobs[:3]]

        gate.open.set()
        for job in jobs:
            await stand.result(job)
        assert gate.came == [job.task_id for job in jobs]


@virtual
async def test_reports_tell_how_many_are_held() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through, "echo": echo}, slots=3) as stand:
        await stand.send(stand.job("gate"), stand.job("gate"))
        await stand.run("echo")
        assert stand.held[-1] == 2


@virtual
async def test_an_instance_of_a_class_runs_one_attempt_at_a_time() -> None:
    class Slow(RoleHandler):
        def __init__(self) -> None:
            self.task_id = ""
            self.mixed = False

        async def init(self, cfg: dict[str, Any]) -> None:
            self.task_id = cfg["task_id"]

        async def process_batch(self, batch: Any, ctx: Any) -> Any:
            await asyncio.sleep(0.1)
            self.mixed |= self.task_id != ctx.task_id
            return await super().process_batch(batch, ctx)

    slow = Slow()
    async with Stand({"slow": slow, "echo": echo}) as stand:
        jobs = [stand.job("slow") for _ in range(4)]
        await stand.send(*jobs[:3], stand.job("echo"), jobs[3])
        await stand.until(lambda: len(stand.told) == 1)
        assert stand.told[0].task_id not in {job.task_id for job in jobs}, "others overtake those who take turns"
        for job in jobs:
            assert isinstance(await stand.result(job), Succeeded)
        assert not slow.mixed


@virtual
async def test_those_who_wait_for_their_turn_are_declined_in_time_and_forgotten() -> None:
    class Long(RoleHandler):
        async def process_batch(self, batch: Any, ctx: Any) -> Any:
            await asyncio.sleep(100)
            return await super().process_batch(batch, ctx)

    async with Stand({"long": Long(), "echo": echo}) as stand:
        first = stand.job("long")
        await stand.send(first)
        for _ in range(3):
            jobs = [stand.job("long") for _ in range(5)]
            await stand.send(*jobs)
            for job in jobs:
                assert isinstance(await stand.result(job, timeout=5.5), Declined)
        slots = stand.runtime._slots
        assert (slots.load, sum(map(len, slots._lanes.values())), bool(slots._queue)) == (1, 0, False)
        assert isinstance(await stand.result(first, timeout=100), Succeeded)


# ---- started


@virtual
async def test_only_what_runs_for_long_is_announced() -> None:
    async with Stand([sleeps]) as stand:
        short, long = stand.job("sleeps", {"sec": 0.4}), stand.job("sleeps", {"sec": 3})
        await stand.send(short, long)
        await stand.result(long)

        started = [told for told in stand.told if isinstance(told.report, Started)]
        assert [told.task_id for told in started] == [long.task_id]
        assert started[0].report == Started("n", 1, long.token)


# ---- time limits


@pytest.mark.parametrize("by", ["job", "decorator"])
@virtual
async def test_a_run_that_takes_too_long_fails(by: str) -> None:
    unwound = []

    async def endless() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            unwound.append(True)

    if by == "decorator":
        handler(timeout_sec=2)(endless)
    async with Stand([endless]) as stand:
        job = stand.job("endless", run_sec=2.0 if by == "job" else None)
        await stand.send(job)
        report = await stand.result(job, timeout=2.5)

        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("timeout", False)
        assert "longer than 2 s" in report.error["message"]
        assert report.run_sec == pytest.approx(2)
        assert unwound
        assert AttemptKilled("w-test", job.token, "timeout") in stand.happenings


@virtual
async def test_a_handler_that_will_not_end_is_given_up() -> None:
    stop = asyncio.Event()

    async def stubborn() -> str:
        while not stop.is_set():
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                if stop.is_set():
                    raise
        return "at last"

    async with Stand({"stubborn": stubborn, "echo": echo}, slots=1) as stand:
        job = stand.job("stubborn", run_sec=1.0)
        await stand.send(job)
        report = await stand.result(job, timeout=7)
        assert isinstance(report, Failed)
        assert report.error["code"] == "timeout"
        assert isinstance(await stand.run("echo"), Succeeded), "its slot is free"
        stop.set()
    assert len(stand.results(job)) == 1


@virtual
async def test_a_late_result_of_a_timed_out_run_is_no_success() -> None:
    async def swallows() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "too late"
        return ""

    async with Stand([swallows]) as stand:
        report = await stand.run("swallows", run_sec=1.0)
        assert isinstance(report, Failed)
        assert report.error["code"] == "timeout"


@virtual
async def test_a_handlers_own_timeout_is_its_own() -> None:
    async def own() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(10)

    async with Stand([own]) as stand:
        report = await stand.run("own", run_sec=5.0)
        assert isinstance(report, Failed)
        assert report.error["code"] == "TimeoutError"


@virtual
async def test_the_deadline_counts_from_receipt() -> None:
    async with Stand([sleeps], slots=1) as stand:
        before = stand.job("sleeps", {"sec": 2})
        job = stand.job("sleeps", {"sec": 100}, deadline_sec=5.0)
        await stand.send(before, job)
        report = await stand.result(job, timeout=6)
        assert isinstance(report, Failed)
        assert "deadline" in report.error["message"]
        assert report.run_sec == pytest.approx(3)


@virtual
async def test_silence_between_reports_of_progress_fails_it() -> None:
    async def talks(ctx: Any, times: int) -> str:
        for number in range(times):
            await asyncio.sleep(1)
            ctx.progress(number, times)
        await asyncio.sleep(3 if times < 5 else 0)
        return "done"

    async with Stand([talks]) as stand:
        assert isinstance(await stand.run("talks", {"times": 6}, heartbeat_sec=2.0), Succeeded)
        report = await stand.run("talks", {"times": 2}, heartbeat_sec=2.0)
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("heartbeat_timeout", False)


# ---- stop


@virtual
async def test_a_stop_cancels_and_the_attempt_is_released() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}) as stand:
        job = stand.job("gate")
        await stand.send(job)
        await stand.until(lambda: gate.came)
        await stand.send(stand.stop_of(job, reason="user_request"))
        report = await stand.result(job, timeout=1)

        assert report == Released("n", 1, job.token, "user_request")
        assert gate.ended == gate.came
        assert AttemptKilled("w-test", job.token, "revoked") in stand.happenings


@virtual
async def test_the_handler_may_use_its_grace() -> None:
    notes = []

    async def careful(ctx: Any) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            notes.append((ctx.cancelled(), ctx.cancel_reason, ctx.cancel_flag.is_set(), ctx.remaining_ms()))
            await asyncio.sleep(4)
            notes.append("saved")

    async with Stand([careful]) as stand:
        job = stand.job("careful")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.send(stand.stop_of(job, grace_sec=5, reason="why"))
        await asyncio.sleep(3)
        await stand.read()
        assert not stand.results(job)
        assert isinstance(await stand.result(job), Released)
        assert notes == [(True, "why", True, pytest.approx(5000, abs=50)), "saved"]


@virtual
async def test_after_its_grace_it_is_given_up() -> None:
    async def careless() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1000)

    async with Stand([careless]) as stand:
        job = stand.job("careless")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.send(stand.stop_of(job, grace_sec=2))
        assert isinstance(await stand.result(job, timeout=2.5), Released)


@virtual
async def test_a_result_after_a_stop_is_a_release() -> None:
    async def swallows() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "finished after all"
        return ""

    async with Stand([swallows]) as stand:
        job = stand.job("swallows")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.send(stand.stop_of(job))
        assert isinstance(await stand.result(job), Released)


@virtual
async def test_a_failure_after_a_stop_is_a_release() -> None:
    async def breaks() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise ValueError("while stopping") from None
        return ""

    async with Stand([breaks]) as stand:
        job = stand.job("breaks")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.send(stand.stop_of(job))
        assert isinstance(await stand.result(job), Released)


@virtual
async def test_a_stop_for_what_is_queued_drops_it() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}, slots=1) as stand:
        first, second, third = stand.job("gate"), stand.job("gate"), stand.job("gate")
        await stand.send(first, second, third)
        await stand.send(stand.stop_of(second))
        assert isinstance(await stand.result(second), Declined)
        gate.open.set()
        await stand.result(third)
        assert gate.came == [first.task_id, third.task_id]


@virtual
async def test_a_stop_in_the_same_message_as_its_job_drops_it() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}) as stand:
        job = stand.job("gate")
        await stand.send(job, stand.stop_of(job))
        assert isinstance(await stand.result(job), Declined)
        assert gate.came == []


@virtual
async def test_a_stop_for_an_unknown_token_is_ignored_and_its_job_never_starts() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}) as stand:
        job = stand.job("gate")
        await stand.send(stand.stop_of(job))
        await stand.send(job)
        await asyncio.sleep(5)
        await stand.read()
        assert (gate.came, stand.told) == ([], [])


@virtual
async def test_a_stop_after_the_result_changes_nothing() -> None:
    async with Stand([echo]) as stand:
        stand.bus.deaf.add(stand.topics.facts)
        job = stand.job("echo")
        await stand.send(job)
        await asyncio.sleep(0.1)
        await stand.send(stand.stop_of(job))
        stand.bus.deaf.clear()
        assert isinstance(await stand.result(job), Succeeded)


@virtual
async def test_a_stop_overrules_a_timeout() -> None:
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(3)

    async with Stand([slow_to_end]) as stand:
        job = stand.job("slow_to_end", run_sec=1.0)
        await stand.send(job)
        await asyncio.sleep(2)
        await stand.send(stand.stop_of(job, grace_sec=10))
        assert isinstance(await stand.result(job), Released)


@virtual
async def test_a_stop_that_comes_before_the_first_step_drops_the_attempt() -> None:
    gate = Gate()
    async with Stand({"gate": gate.pass_through}, slots=1) as stand:
        first, second = stand.job("gate"), stand.job("gate")
        stand.runtime._slots.receive([first, second])
        stand.runtime._slots.receive([stand.stop_of(first)])
        assert isinstance(await stand.result(first), Declined)
        await asyncio.sleep(0.1)
        assert gate.came == [second.task_id]
        gate.open.set()
