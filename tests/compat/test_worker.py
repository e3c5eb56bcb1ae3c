"""Workers and handlers as older code writes them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.errors import Cancelled
from flowkit.worker import Batch, BatchResult, EchoHandler, FinalizeResult, RoleHandler, Worker, WorkerConfig
from flowkit.worker.handlers.base import Handler, RunContext
from tests.compat.conftest import House

ONE = {"nodes": [{"node_id": "n", "type": "it", "io": {"input_inline": {"data": [1, 2, 3]}}}], "edges": []}
Do = Callable[[RunContext], Any]


def doing(work: Do) -> RoleHandler:
    """A handler whose only batch does this; what it returns is the output."""

    class It(RoleHandler):
        role = "it"

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, output=await work(ctx))

    return It()


# ------------------------------------------------------------------------------------------ the worker


def test_its_parts_can_be_looked_at(house: House) -> None:
    handler = doing(asyncio.sleep)
    worker = Worker(db=house.db, cfg=WorkerConfig(roles=["it"], worker_version="2.0.0"), handlers={"it": handler})

    assert re.fullmatch(r"w-[0-9a-f]{8}", worker.worker_id)
    assert worker.worker_version == "2.0.0"
    assert worker.handlers == {"it": handler}
    assert worker.active == []
    assert Worker(db=house.db, cfg=WorkerConfig(worker_id="mine"), handlers=[handler]).worker_id == "mine"


async def test_echo_is_there_by_itself(any_house: House) -> None:
    worker = Worker(db=any_house.db, cfg=WorkerConfig(**any_house.settings), roles=["echo"])
    graph = {"nodes": [{"node_id": "n", "type": "echo", "io": {"input_inline": {"a": 1}}}], "edges": []}

    assert isinstance(worker.handlers["echo"], EchoHandler)
    async with any_house.coordinator() as coordinator, worker:
        task_id = await coordinator.create_task(params={}, graph=graph)
        assert (await coordinator.wait_task(task_id, timeout=30)).output == {"a": 1}


async def test_what_it_runs_is_active(house: House) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(ctx: RunContext) -> None:
        begun.set()
        await go_on.wait()

    worker = house.worker({"it": doing(work)})
    async with house.coordinator() as coordinator, worker:
        task_id = await coordinator.create_task(params={}, graph=ONE)
        await begun.wait()
        assert [(held.task_id, held.node) for held in worker.active] == [(task_id, "n")]
        go_on.set()
        await coordinator.wait_task(task_id, timeout=60)


# ------------------------------------------------------------------------------------------ the handler's contract


class Recorder(Handler):
    role = "it"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def init(self, cfg: dict[str, Any]) -> None:
        self.calls.append(("init", cfg))

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        self.calls.append(("load_input", input_ref, input_inline))
        return input_inline["data"]

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for number in loaded:
            yield Batch(batch_uid=str(number), payload={"number": number})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.calls.append(("process_batch", batch.batch_uid, batch.payload))
        return BatchResult(success=True, metrics={"total": batch.payload["number"], "count": 1})

    async def finalize(self, ctx: RunContext) -> FinalizeResult | None:
        self.calls.append(("finalize",))
        return FinalizeResult()


async def test_a_handler_is_called_in_the_documented_order(house: House) -> None:
    handler = Recorder()
    worker = house.worker({"it": handler})

    async with house.coordinator() as coordinator, worker:
        task_id = await coordinator.create_task(params={}, graph=ONE)
        result = await coordinator.wait_task(task_id, timeout=60)

    about = {"task_id": task_id, "node_id": "n", "attempt_epoch": 1, "worker_id": worker.worker_id, "role": "it"}
    assert handler.calls == [
        ("init", about),
        ("load_input", None, {"data": [1, 2, 3]}),
        ("process_batch", "1", {"number": 1}),
        ("process_batch", "2", {"number": 2}),
        ("process_batch", "3", {"number": 3}),
        ("finalize",),
    ]
    assert result.output == {"metrics": {"total": 6, "count": 3}}


async def test_by_default_there_is_one_batch_with_all_that_was_loaded(house: House) -> None:
    seen = []

    class Plain(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            seen.append(batch.payload)
            return await super().process_batch(batch, ctx)

    result = await house.run(ONE, {"it": Plain()})

    assert seen == [{"input_ref": {}, "input_inline": {"data": [1, 2, 3]}}]
    assert result.output == {"metrics": {"processed": 1}}


async def test_a_large_input_ref_and_batching_reach_the_handler(any_house: House) -> None:
    class Reads(RoleHandler):
        async def init(self, cfg: dict[str, Any]) -> None:
            self.batching = cfg["batching"]

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, output=[len(batch.payload["input_ref"]["uri"]), self.batching])

    io = {"input_ref": {"uri": "x" * 200_000}, "batching": {"size": 10}}

    result = await any_house.run({"nodes": [{"node_id": "n", "type": "it", "io": io}]}, {"it": Reads()})

    assert result.output == [200_000, {"size": 10}]


def test_the_models_have_the_documented_fields() -> None:
    assert Batch().model_dump() == {"batch_uid": None, "payload": {}}
    assert BatchResult(success=False).model_dump() == {
        "success": False, "metrics": {}, "artifacts_ref": None, "reason_code": None, "permanent": False, "error": None,
        "output": None,
    }  # fmt: skip
    assert FinalizeResult().model_dump() == {"metrics": {}, "artifacts_ref": None, "output": None}


@pytest.mark.parametrize("error", [TypeError("x"), ValueError("x"), KeyError("x")])
def test_bad_input_is_classified_as_documented(error: Exception) -> None:
    assert RoleHandler().classify_error(error) == ("bad_input", True)


def test_other_errors_are_tried_again() -> None:
    assert RoleHandler().classify_error(OSError("x"))[1] is False


async def test_a_batch_that_failed_for_good_fails_its_task_at_once(house: House) -> None:
    attempts = []

    class Fails(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            attempts.append(ctx.attempt_epoch)
            return BatchResult(success=False, reason_code="schema_mismatch", permanent=True, error="no column")

    began = time.monotonic()
    result = await house.run(ONE, {"it": Fails()})

    assert (result.status, result.error["code"], result.error["message"]) == ("failed", "schema_mismatch", "no column")
    assert attempts == [1]
    assert time.monotonic() - began < 30


async def test_what_was_promised_about_retries_is_kept(house: House) -> None:
    attempts = []

    class Flaky(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            attempts.append(ctx.attempt_epoch)
            return BatchResult(success=False, reason_code="bad_input", error="no")

    policy = {"max": 2, "backoff_sec": 0.01}
    node = ONE["nodes"][0]

    await house.run({"nodes": [{**node, "retry_policy": policy}]}, {"it": Flaky()})
    assert attempts == [1, 2], "max counts attempts"
    attempts.clear()
    await house.run({"nodes": [{**node, "retry_policy": {**policy, "permanent_on": ["bad_input"]}}]}, {"it": Flaky()})
    assert attempts == [1], "permanent_on is read"


async def test_a_reference_that_a_handler_gives_is_kept(house: House) -> None:
    class Refers(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, metrics={"rows": 3}, artifacts_ref={"uri": "s3://bucket/x"})

    result = await house.run(ONE, {"it": Refers()})

    assert result.output == {"metrics": {"rows": 3}, "artifacts_ref": {"uri": "s3://bucket/x"}}


# ------------------------------------------------------------------------------------------ the context


async def test_the_context_says_what_is_run(house: House) -> None:
    async def work(ctx: RunContext) -> Any:
        ctx.kv["mine"] = 1
        before = ctx.clock.mono_ms()
        await ctx.clock.sleep_ms(1)
        assert ctx.clock.now_dt().year > 2000
        assert ctx.clock.mono_ms() >= before
        return [ctx.task_id, ctx.node_id, ctx.attempt_epoch, ctx.worker_id[:2], ctx.kv, ctx.remaining_ms(),
                ctx.cancelled(), ctx.cancel_reason, ctx.cancel_deadline_ts_ms, ctx.cancel_flag.is_set()]  # fmt: skip

    result = await house.run(ONE, {"it": doing(work)})

    assert result.output == [result.task_id, "n", 1, "w-", {"mine": 1}, None, False, None, None, False]


async def test_remaining_time_is_told(house: House) -> None:
    async def work(ctx: RunContext) -> Any:
        return ctx.remaining_ms()

    node = {**ONE["nodes"][0], "timeout_sec": 5}
    result = await house.run({"nodes": [node]}, {"it": doing(work)})

    assert 0 < result.output <= 5000


async def cancelled_while(house: House, work: Do) -> None:
    """Cancel the task once its handler has begun, and wait for both to end."""
    begun = asyncio.Event()

    async def begins(ctx: RunContext) -> Any:
        begun.set()
        return await work(ctx)

    async with house.coordinator() as coordinator, house.worker({"it": doing(begins)}):
        task_id = await coordinator.create_task(params={}, graph=ONE)
        await begun.wait()
        assert await coordinator.cancel_task(task_id, reason="enough")
        assert (await coordinator.wait_task(task_id, timeout=60)).status == "cancelled"


async def test_a_cancel_is_seen_in_every_documented_way(house: House) -> None:
    seen: list[Any] = []

    async def work(ctx: RunContext) -> None:
        try:
            await ctx.cancel_flag.wait()
        except asyncio.CancelledError:
            seen.append((ctx.cancelled(), ctx.cancel_reason, ctx.cancel_flag.is_set()))
            seen.append(0 < (ctx.cancel_deadline_ts_ms or 0) - ctx.clock.now_ms() <= 30_000)
            with pytest.raises(Cancelled, match="enough"):
                await ctx.raise_if_cancelled()
            raise

    await cancelled_while(house, work)

    assert seen == [(True, "enough", True), True]


async def test_what_may_be_cancelled_ends_with_the_attempt(house: House) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("long")
            raise

    async def work(ctx: RunContext) -> None:
        await ctx.cancellable(long())

    await cancelled_while(house, work)

    assert ended == ["long"]


async def test_an_awaitable_that_ends_gives_its_value(house: House) -> None:
    async def work(ctx: RunContext) -> Any:
        return await ctx.cancellable(asyncio.sleep(0, "done"))

    assert (await house.run(ONE, {"it": doing(work)})).output == "done"


async def test_a_subprocess_gives_its_exit_status_however_much_it_writes(house: House) -> None:
    script = "import sys; sys.stdout.write('x' * 1_000_000); sys.exit(3)"

    async def work(ctx: RunContext) -> Any:
        status = await ctx.run_subprocess(sys.executable, "-c", script, grace_ms=500)
        return [status, status == 3]

    assert (await house.run(ONE, {"it": doing(work)})).output == [3, True]


async def test_a_subprocess_that_will_not_end_is_killed_after_the_grace(house: House, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(60)"

    async def work(ctx: RunContext) -> None:
        await ctx.run_subprocess(sys.executable, "-c", script, grace_ms=100)

    began = time.monotonic()
    await cancelled_while(house, work)

    assert time.monotonic() - began < 20


async def test_what_was_registered_is_cleaned_up_in_the_documented_order(house: House, tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    order: list[Any] = []
    processes: list[subprocess.Popen[bytes]] = []

    async def last() -> None:
        order.append(("async callback", path.exists(), processes[0].poll()))

    async def work(ctx: RunContext) -> None:
        path.mkdir()
        ctx.register_temp_path(path)
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        processes.append(subprocess.Popen(command, start_new_session=True))  # noqa: ASYNC220 - as older handlers do
        ctx.register_subprocess(processes[0])
        ctx.on_cleanup(last)
        ctx.on_cleanup(lambda: order.append("callback"))

    await house.run(ONE, {"it": doing(work)})

    assert order == ["callback", ("async callback", True, None)]
    assert not path.exists()
    assert processes[0].wait(timeout=60) != 0


async def test_artifacts_are_named_as_documented(house: House) -> None:
    async def work(ctx: RunContext) -> Any:
        return [await ctx.artifacts.upsert_partial("b1", {"rows": 3}), await ctx.artifacts.mark_complete({"rows": 3})]

    result = await house.run(ONE, {"it": doing(work)})

    about = {"task_id": result.task_id, "node_id": "n"}
    assert result.output == [{**about, "batch_uid": "b1"}, about]
