"""What a handler knows of its attempt, and does in its name."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from flowkit.clock import SystemClock
from flowkit.core.reports import Failed, Released, Succeeded
from flowkit.errors import Cancelled
from flowkit.wire.messages import Heartbeat
from flowkit.worker.context import Context
from tests.worker.stand import WORKER, Stand, until_gone, virtual


class Holder:
    """A handler that hands its context to the test, and waits."""

    def __init__(self) -> None:
        self.ctx: Any = None
        self.go = asyncio.Event()

    async def run(self, ctx: Context) -> None:
        self.ctx = ctx
        await self.go.wait()


@virtual
async def test_it_knows_its_attempt() -> None:
    holder = Holder()
    async with Stand({"hold": holder.run}) as stand:
        job = stand.job("hold", node="n.1", attempt=4, generation=2, params={"p": 1}, run_sec=30.0)
        await stand.send(job)
        await stand.until(lambda: holder.ctx)
        ctx = holder.ctx

        assert (ctx.task_id, ctx.node_id, ctx.tenant, ctx.role) == (job.task_id, "n.1", "default", "hold")
        assert (ctx.attempt, ctx.attempt_epoch, ctx.worker_id) == (4, 4, WORKER)
        assert ctx.idempotency_key == f"{job.task_id}:2:n.1"
        assert (ctx.params, ctx.kv) == ({"p": 1}, {})
        assert (ctx.cancelled(), ctx.cancel_reason, ctx.cancel_deadline_ts_ms) == (False, None, None)
        assert ctx.remaining_ms() == pytest.approx(30_000, abs=100)
        assert ctx.deadline == pytest.approx(stand.clock.wall() + 30, abs=0.1)
        await ctx.raise_if_cancelled()
        holder.go.set()


@virtual
async def test_without_limits_there_is_no_deadline() -> None:
    holder = Holder()
    async with Stand({"hold": holder.run}) as stand:
        await stand.send(stand.job("hold"))
        await stand.until(lambda: holder.ctx)
        assert (holder.ctx.deadline, holder.ctx.remaining_ms(), holder.ctx.params) == (None, None, {})


@virtual
async def test_the_cancelled_one_knows_why_and_until_when() -> None:
    holder = Holder()
    async with Stand({"hold": holder.run}) as stand:
        job = stand.job("hold")
        await stand.send(job)
        await stand.until(lambda: holder.ctx)
        await stand.send(stand.stop_of(job, grace_sec=20, reason="enough"))
        await stand.until(lambda: holder.ctx.cancelled())

        ctx = holder.ctx
        assert ctx.cancel_reason == "enough"
        assert ctx.cancel_flag.is_set()
        assert ctx.cancel_deadline_ts_ms == pytest.approx((stand.clock.wall() + 20) * 1000, abs=100)
        with pytest.raises(Cancelled, match="enough"):
            await ctx.raise_if_cancelled()
        with pytest.raises(Cancelled, match="enough"):
            ctx.raise_if_cancelled()


@virtual
async def test_a_handler_that_gives_up_by_itself_when_stopped_is_released() -> None:
    async def polite(ctx: Context) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await ctx.raise_if_cancelled()

    async with Stand([polite]) as stand:
        job = stand.job("polite")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.send(stand.stop_of(job))
        assert isinstance(await stand.result(job), Released)


@virtual
async def test_looking_for_a_stop_lets_it_through() -> None:
    began = asyncio.Event()

    async def busy(ctx: Context) -> None:
        began.set()
        while True:
            await ctx.raise_if_cancelled()

    async with Stand([busy], started_after_sec=100.0) as stand:
        job = stand.job("busy")
        stopping = stand.stop_of(job)
        await stand.send(job)
        await began.wait()
        await stand.send(stopping)
        for _ in range(2000):
            await asyncio.sleep(0)
            await stand.read()
            if stand.results(job):
                break
        assert isinstance(stand.results(job)[0], Released)


@virtual
async def test_cancellable_gives_the_result_or_ends_with_the_stop() -> None:
    notes: list[Any] = []

    async def waits(ctx: Context) -> None:
        async def value() -> int:
            return 5

        notes.append(await ctx.cancellable(value()))
        with pytest.raises(ZeroDivisionError):
            await ctx.cancellable(asyncio.sleep(1 / 0 if notes == [5] else 0))

    async def flagged(ctx: Context) -> None:
        asyncio.get_running_loop().call_later(1, ctx.cancel_flag.set)
        ctx._attempt.lost = True
        with pytest.raises(Cancelled):
            await ctx.cancellable(asyncio.sleep(1000))
        ctx._attempt.lost = False
        notes.append("cancelled")

    async with Stand([waits, flagged]) as stand:
        assert isinstance(await stand.run("waits"), Succeeded)
        assert isinstance(await stand.run("flagged"), Succeeded)
        assert notes == [5, "cancelled"]


@virtual
async def test_progress_is_remembered() -> None:
    holder = Holder()
    async with Stand({"hold": holder.run}) as stand:
        await stand.send(stand.job("hold"))
        await stand.until(lambda: holder.ctx)
        holder.ctx.progress(3, 10, "half way")
        assert holder.ctx.last_progress == (3, 10, "half way")


@virtual
async def test_the_next_heartbeat_tells_the_progress_as_json_can_say_it() -> None:
    holder = Holder()

    def told() -> list[Any]:
        return [held.progress for message in stand.fleet if isinstance(message, Heartbeat) for held in message.held]

    async with Stand({"hold": holder.run}) as stand:
        await stand.send(stand.job("hold"))
        await stand.until(lambda: holder.ctx)
        await stand.until(told)
        assert told()[-1] is None

        holder.ctx.progress(3, 10, "half way")
        await stand.until(lambda: told()[-1] == (3.0, 10.0, "half way"))
        holder.ctx.progress(float("nan"), "many", "x" * 500 + "\ud800")  # type: ignore[arg-type]
        await stand.until(lambda: told()[-1][0] is None)

        assert told()[-1][:2] == (None, None)
        assert len(told()[-1][2]) == 200


@virtual
async def test_its_log_says_whose_it_is() -> None:
    seen: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = seen.append  # type: ignore[method-assign]
    logger = logging.getLogger("flowkit.handler")
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)

    async def says(ctx: Context) -> None:
        ctx.log.info("hello %s", "there")

    try:
        async with Stand([says]) as stand:
            job = stand.job("says")
            await stand.send(job)
            await stand.result(job)
    finally:
        logger.removeHandler(listener)
        logger.setLevel(logging.NOTSET)
    assert [(record.getMessage(), record.task_id, record.attempt) for record in seen] == [  # type: ignore[attr-defined]
        ("hello there", job.task_id, 1)
    ]


@virtual
async def test_artifacts_are_kept_and_read_back() -> None:
    async def keeps(ctx: Context) -> Any:
        text = await ctx.artifacts.put_json({"a": [1, 2]})
        data = await ctx.artifacts.put_bytes(b"abc")
        assert await ctx.artifacts.get(text) == {"a": [1, 2]}
        assert await ctx.artifacts.get(data["ref"]) == b"abc"
        with pytest.raises(KeyError):
            await ctx.artifacts.get("nothing")
        return [text, data]

    async with Stand([keeps]) as stand:
        report = await stand.run("keeps")
        assert isinstance(report, Succeeded), report
        text, data = report.output.value
        assert (text["kind"], text["size"]) == ("json", 11)
        assert (data["kind"], data["size"]) == ("bytes", 3)


@virtual
async def test_partial_artifacts_have_the_documented_references() -> None:
    async def notes(ctx: Context) -> Any:
        partial = await ctx.artifacts.upsert_partial("b1", {"n": 1})
        return [partial, await ctx.artifacts.mark_complete({"n": 1})]

    async with Stand([notes]) as stand:
        job = stand.job("notes")
        await stand.send(job)
        report = await stand.result(job)
        assert isinstance(report, Succeeded)
        place = {"task_id": job.task_id, "node_id": "n"}
        assert report.output.value == [place | {"batch_uid": "b1"}, place]


@virtual
async def test_a_value_that_json_cannot_say_is_no_artifact() -> None:
    async def bad(ctx: Context) -> Any:
        await ctx.artifacts.put_json({1: 2})

    async with Stand([bad]) as stand:
        report = await stand.run("bad")
        assert isinstance(report, Failed)
        assert report.error["code"] == "bad_output"


# ---- cleaning up


@pytest.mark.parametrize("ends", ["well", "badly", "stopped"])
@virtual
async def test_cleanup_runs_in_reverse_order_however_it_ends(ends: str, tmp_path: Path) -> None:
    order: list[str] = []
    folder, file = tmp_path / "folder", tmp_path / "file"

    async def works(ctx: Context) -> None:
        (folder / "deep").mkdir(parents=True)
        file.write_text("x")
        ctx.register_temp_path(folder)
        ctx.register_temp_path(str(file))
        ctx.register_temp_path(tmp_path / "never made")

        async def second() -> None:
            order.append(f"second {folder.exists()}")

        ctx.on_cleanup(lambda: order.append("first"))
        ctx.on_cleanup(lambda: 1 / 0)
        ctx.on_cleanup(second)
        if ends == "badly":
            raise ValueError("badly")
        if ends == "stopped":
            await asyncio.sleep(1000)

    async def run_sync(function: Any) -> Any:
        return function()

    async with Stand([works], options={"run_sync": run_sync}) as stand:
        job = stand.job("works")
        await stand.send(job)
        await asyncio.sleep(1)
        if ends == "stopped":
            await stand.send(stand.stop_of(job))
        kinds = {"well": Succeeded, "badly": Failed, "stopped": Released}
        assert isinstance(await stand.result(job), kinds[ends])
        assert order == ["second True", "first"]
        assert stand.telemetry.counts["cleanup_failures"] == 1
        assert list(tmp_path.iterdir()) == []


@virtual
async def test_a_cleanup_that_hangs_does_not_hold_the_result_for_ever() -> None:
    async def works(ctx: Context) -> str:
        ctx.on_cleanup(lambda: asyncio.sleep(1000))
        return "done"

    async with Stand([works]) as stand:
        job = stand.job("works")
        await stand.send(job)
        assert isinstance(await stand.result(job, timeout=11), Succeeded)
        assert stand.telemetry.counts["cleanup_timeouts"] == 1


# ---- processes (in real time)


def real(**handlers: Any) -> Stand:
    return Stand(handlers, clock=SystemClock())


async def test_a_command_is_run_and_its_output_kept() -> None:
    async def runs(ctx: Context) -> Any:
        done = await ctx.run_subprocess("sh", "-c", "echo out; echo err >&2; exit 3")
        return [done, done == 3, done.stdout.decode(), done.stderr.decode()]

    async with real(runs=runs) as stand:
        report = await stand.run("runs")
        assert isinstance(report, Succeeded), report
        assert report.output.value == [3, True, "out\n", "err\n"]


async def test_a_stop_ends_the_command_and_its_children() -> None:
    async def runs(ctx: Context) -> None:
        await ctx.run_subprocess("sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", grace_ms=30)

    async with real(runs=runs) as stand:
        job = stand.job("runs")
        await stand.send(job)
        await stand.until(lambda: groups_of(stand, job))
        (group,) = groups_of(stand, job)
        await stand.send(stand.stop_of(job, grace_sec=10))
        assert isinstance(await stand.result(job), Released)
        await until_gone(group)


def groups_of(stand: Stand, job: Any) -> list[int]:
    attempt = stand.runtime._slots.held.get(job.token)
    return [] if attempt is None or attempt.groups is None else list(attempt.groups._leaders)


async def test_a_registered_process_ends_with_the_attempt() -> None:
    groups: list[int] = []

    async def leaves(ctx: Context) -> None:
        process = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
        ctx.register_subprocess(process)
        groups.append(process.pid)

    async with real(leaves=leaves) as stand:
        assert isinstance(await stand.run("leaves"), Succeeded)
        await until_gone(groups[0])
