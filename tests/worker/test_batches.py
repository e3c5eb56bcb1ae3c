"""A `RoleHandler` is driven through init, load, batches and finalize."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.payload import Payload
from flowkit.core.reports import Failed, Succeeded
from flowkit.errors import Permanent, Retry
from flowkit.utils import stable_hash
from flowkit.worker import Batch, BatchResult, EchoHandler, FinalizeResult, RoleHandler
from flowkit.worker.handlers.base import Handler, RunContext
from tests.worker.stand import WORKER, Stand, virtual


class Recorder(RoleHandler):
    """Does what a handler may do, and notes in which order it was asked."""

    role = "recorder"

    def __init__(self, sizes: tuple[int, ...] = (2, 1), **give: Any) -> None:
        self.sizes = sizes
        self.give = give
        self.notes: list[Any] = []

    async def init(self, cfg: dict[str, Any]) -> None:
        self.notes.append(cfg)

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        self.notes.append(("load", input_ref, input_inline))
        return await super().load_input(input_ref, input_inline)

    async def iter_batches(self, loaded: Any) -> Any:
        self.notes.append(("iter", loaded))
        for number, size in enumerate(self.sizes):
            yield Batch(batch_uid=f"b{number}", payload={"size": size})

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.notes.append(("batch", batch.batch_uid))
        outputs = {"output": batch.payload["size"]} if self.give.get("outputs") else {}
        return BatchResult(success=True, metrics={"n": batch.payload["size"], "name": batch.batch_uid}, **outputs)

    async def finalize(self, ctx: RunContext) -> FinalizeResult | None:
        self.notes.append(("finalize", list(ctx.artifacts.partials)))
        return self.give.get("final", FinalizeResult())


async def succeeded(handler: Any, inputs: Any = None) -> Any:
    async with Stand({"it": handler}) as stand:
        report = await stand.run("it", inputs)
        assert isinstance(report, Succeeded), report
        return report.output.value


@virtual
async def test_its_methods_are_called_in_order() -> None:
    recorder = Recorder()
    async with Stand([recorder]) as stand:
        job = stand.job("recorder", {"a": 1}, attempt=3)
        await stand.send(job)
        await stand.result(job)

        assert recorder.notes == [
            {"task_id": job.task_id, "node_id": "n", "attempt_epoch": 3, "worker_id": WORKER, "role": "recorder"},
            ("load", None, {"a": 1}),
            ("iter", {"input_ref": {}, "input_inline": {"a": 1}}),
            ("batch", "b0"),
            ("batch", "b1"),
            ("finalize", ["b0", "b1"]),
        ]


@virtual
async def test_a_handler_that_overrides_only_process_batch_gets_one_batch() -> None:
    class Plain(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, output=batch.payload)

    assert await succeeded(Plain(), {"data": "hello"}) == {"input_ref": {}, "input_inline": {"data": "hello"}}


@pytest.mark.parametrize(
    ("handler", "output"),
    [
        (Recorder(), {"metrics": {"n": 3, "name": "b1"}}),
        (Recorder(outputs=True), [2, 1]),
        (Recorder((7,), outputs=True), 7),
        (Recorder((), outputs=True), {"metrics": {}}),
        (Recorder(final=None), {"metrics": {"n": 3, "name": "b1"}}),
        (Recorder(final=FinalizeResult(metrics={"all": 1})), {"metrics": {"all": 1}}),
        (Recorder(final=FinalizeResult(output="whole"), outputs=True), "whole"),
        (Recorder(final=FinalizeResult(output=None), outputs=True), None),
        (Recorder(final=FinalizeResult(artifacts_ref={"s3": "x"})),
         {"metrics": {"n": 3, "name": "b1"}, "artifacts_ref": {"s3": "x"}}),
        (RoleHandler(), {"metrics": {"processed": 1}}),
    ],
)  # fmt: skip
@virtual
async def test_the_output_is_what_was_said_last_and_clearest(handler: RoleHandler, output: Any) -> None:
    assert await succeeded(handler) == output


@virtual
async def test_a_batch_without_success_fails_the_attempt() -> None:
    class Fails(Recorder):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=False, reason_code="schema_mismatch", permanent=True, error="no column")

    async with Stand({"it": Fails()}) as stand:
        report = await stand.run("it")
        assert isinstance(report, Failed)
        assert (report.error["code"], report.error["message"], report.permanent) == (
            "schema_mismatch",
            "no column",
            True,
        )


@pytest.mark.parametrize(
    ("error", "code", "permanent"),
    [
        (ValueError("x"), "bad_input", True),
        (KeyError("x"), "bad_input", True),
        (AssertionError("x"), "AssertionError", True),
        (OSError("x"), "OSError", False),
        (Permanent("schema_mismatch", "x"), "schema_mismatch", True),
        (Retry(after_sec=3), "retry", False),
    ],
)
@virtual
async def test_errors_are_classified_as_documented(error: Exception, code: str, permanent: bool) -> None:
    class Raises(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise error

    async with Stand({"it": Raises}) as stand:
        report = await stand.run("it")
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == (code, permanent)
        assert report.retry_after == (3 if isinstance(error, Retry) else None)


@virtual
async def test_its_own_classification_decides() -> None:
    class Own(RoleHandler):
        async def iter_batches(self, loaded: Any) -> Any:
            raise ValueError("transient, really")
            yield

        def classify_error(self, exc: BaseException) -> tuple[str, bool]:
            return "flaky", False

    async with Stand({"it": Own()}) as stand:
        report = await stand.run("it")
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("flaky", False)


@virtual
async def test_batches_are_closed_when_the_attempt_ends_early() -> None:
    closed = []

    class Open(RoleHandler):
        async def iter_batches(self, loaded: Any) -> Any:
            try:
                yield Batch()
                yield Batch()
            finally:
                closed.append(True)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            raise OSError("no")

    async with Stand({"it": Open()}) as stand:
        await stand.run("it")
        assert closed


@virtual
async def test_an_iterator_may_be_returned_by_a_coroutine() -> None:
    class Lists(RoleHandler):
        async def iter_batches(self, loaded: Any) -> Any:
            async def batches() -> Any:
                yield Batch(payload=1)

            return batches()

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True, output=batch.payload)

    assert await succeeded(Lists()) == 1


@virtual
async def test_ten_thousand_batches_are_fine() -> None:
    class Many(RoleHandler):
        async def iter_batches(self, loaded: Any) -> Any:
            for number in range(10_000):
                yield Batch(payload={"n": number})

    assert await succeeded(Many()) == {"metrics": {"processed": 10_000}}


@virtual
async def test_echo_gives_back_its_inputs() -> None:
    for inputs in ({"a": [1]}, "text", None, [1]):
        assert await succeeded(EchoHandler(), inputs) == ({} if inputs is None else inputs)


def test_the_documented_names_are_there() -> None:
    from flowkit.worker.context import Context

    assert Handler is RoleHandler
    assert RunContext is Context
    assert Batch().payload == {}
    assert BatchResult(success=True).metrics == {}
    assert FinalizeResult().artifacts_ref is None


def test_a_hash_depends_on_the_value_alone() -> None:
    assert stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
    assert len(stable_hash({"payload": {}})) == 40
    assert stable_hash({1, 2}) != stable_hash([1, 2])


@virtual
async def test_payload_survives_a_payload_that_is_no_dict() -> None:
    async with Stand({"it": EchoHandler()}) as stand:
        report = await stand.run("it", [1, 2])
        assert isinstance(report, Succeeded)
        assert report.output == Payload([1, 2])


@virtual
async def test_what_the_nodes_io_says_reaches_the_handler() -> None:
    recorder = Recorder()
    async with Stand([recorder]) as stand:
        job = stand.job("recorder", {"a": 1}, io={"input_ref": {"uri": "s3://x"}, "batching": {"size": 10}})
        await stand.send(job)
        await stand.result(job)

        assert recorder.notes[0]["batching"] == {"size": 10}
        assert recorder.notes[1] == ("load", {"uri": "s3://x"}, {"a": 1})
        assert recorder.notes[2] == ("iter", {"input_ref": {"uri": "s3://x"}, "input_inline": {"a": 1}})
