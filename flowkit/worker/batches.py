"""Drives a `RoleHandler` through one attempt: init, load, batches, finalize."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowkit.utils import stable_hash
from flowkit.worker.outcome import AttemptFailure

if TYPE_CHECKING:
    from flowkit.worker.context import Context
    from flowkit.worker.handlers.base import Batch, BatchResult, FinalizeResult, RoleHandler


async def run(handler: RoleHandler, inputs: Any, ctx: Context, io: Mapping[str, Any]) -> Any:
    """The node's output. `io` may hold an `input_ref` for `load_input`, and a `batching` for `init`. Raises
    `AttemptFailure` where a batch says that it failed."""
    about = {
        "task_id": ctx.task_id,
        "node_id": ctx.node_id,
        "attempt_epoch": ctx.attempt_epoch,
        "worker_id": ctx.worker_id,
        "role": ctx.role,
    }
    await handler.init(about | {"batching": io["batching"]} if "batching" in io else about)
    loaded = await handler.load_input(io.get("input_ref"), inputs)
    summary = Summary()
    batches: Any = handler.iter_batches(loaded)
    if inspect.isawaitable(batches):  # written as a coroutine that returns an iterator
        batches = await batches
    try:
        async for batch in batches:
            await _process(handler, batch, ctx, summary)
    finally:
        if (close := getattr(batches, "aclose", None)) is not None:
            await close()
    final = await handler.finalize(ctx)
    output = summary.output(final)
    await ctx.artifacts.mark_complete(final.metrics if final is not None else {})
    return output


class Summary:
    """What the batches came to: their metrics, numbers added up, and the outputs of those that gave one."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {}
        self.outputs: list[Any] = []
        self.batches = 0
        self.artifacts_ref: Any = None

    def add(self, result: BatchResult) -> None:
        self.batches += 1
        for name, value in result.metrics.items():
            before = self.metrics.get(name)
            self.metrics[name] = before + value if _is_number(before) and _is_number(value) else value
        if result.artifacts_ref is not None:
            self.artifacts_ref = result.artifacts_ref
        if "output" in result.model_fields_set:
            self.outputs.append(result.output)

    def output(self, final: FinalizeResult | None) -> Any:
        """What `finalize` says, else the batch's output, else the list of the batches' outputs, else the metrics."""
        if final is not None and "output" in final.model_fields_set:
            return final.output
        if self.outputs:
            return self.outputs[0] if self.batches == 1 else self.outputs
        metrics = final.metrics if final is not None and final.metrics else self.metrics
        reference = final.artifacts_ref if final is not None and final.artifacts_ref else self.artifacts_ref
        return {"metrics": metrics} if reference is None else {"metrics": metrics, "artifacts_ref": reference}


async def _process(handler: RoleHandler, batch: Batch, ctx: Context, summary: Summary) -> None:
    uid = batch.batch_uid or stable_hash({"payload": batch.payload})
    result = await handler.process_batch(batch, ctx)
    if not result.success:
        code = result.reason_code or "batch_failed"
        raise AttemptFailure(code, result.error or f"batch {uid} failed", permanent=result.permanent)
    summary.add(result)
    await ctx.artifacts.upsert_partial(uid, result.metrics)
    ctx.progress(summary.batches)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
