"""Drives a `RoleHandler` through one attempt: init, load, batches, finalize."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowkit.utils import stable_hash
from flowkit.worker.input_adapters import InputAdapters
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.stream import Fetch

if TYPE_CHECKING:
    from flowkit.worker.context import Context
    from flowkit.worker.handlers.base import Batch, BatchResult, FinalizeResult, RoleHandler
    from flowkit.worker.stream_flow import StreamFlow

__all__ = ["Summary", "run", "stable_hash"]


async def run(handler: RoleHandler, inputs: Any, ctx: Context, io: Mapping[str, Any], *,
              flow: StreamFlow | None = None, fetch: Fetch | None = None,
              adapters: InputAdapters | None = None) -> Any:  # fmt: skip
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
    summary = Summary(kept=flow is None or not flow.plan.readers)
    if flow is not None:
        await summary.resume(flow, fetch)
    adapters = adapters if adapters is not None else InputAdapters()
    name, args = _adapter(flow, loaded, adapters)
    batches, named = handler.iter_batches(loaded), True
    if name:
        batches, named = adapters.adapt(name, args, flow=flow, fetch=fetch, ctx=ctx)
    if inspect.isawaitable(batches):  # written as a coroutine that returns an iterator
        batches = await batches
    try:
        async for batch in batches:
            await _process(handler, batch, ctx, summary, flow, named=named)
    finally:
        if (close := getattr(batches, "aclose", None)) is not None:
            await close()
    if flow is not None:
        flow.finish()
    final = await handler.finalize(ctx)
    output = summary.output(final)
    await ctx.artifacts.mark_complete(final.metrics if final is not None else {})
    return output


def _adapter(flow: StreamFlow | None, loaded: Any, adapters: InputAdapters) -> tuple[str, Mapping[str, Any]]:
    """What the graph says comes first, then what the handler proposes, if it is known."""
    if flow is not None and flow.plan.adapter:
        return flow.plan.adapter, flow.plan.args
    proposed = loaded.get("input_inline") if isinstance(loaded, dict) else None
    name = proposed.get("input_adapter") if isinstance(proposed, dict) else None
    if isinstance(proposed, dict) and isinstance(name, str) and name in adapters:
        args = proposed.get("input_args", {})
        return name, args if isinstance(args, dict) else {}
    return "", {}


class Summary:
    """What the batches came to: their metrics, numbers added up, and the outputs of those that gave one, unless those
    go into a stream that is read (`kept` is false)."""

    def __init__(self, *, kept: bool = True) -> None:
        self.metrics: dict[str, Any] = {}
        self.outputs: list[Any] = []
        self.batches = 0
        self.artifacts_ref: Any = None
        self.kept = kept

    def add(self, result: BatchResult) -> None:
        self.batches += 1
        for name, value in result.metrics.items():
            before = self.metrics.get(name)
            self.metrics[name] = before + value if _is_number(before) and _is_number(value) else value
        if result.artifacts_ref is not None:
            self.artifacts_ref = result.artifacts_ref
        if self.kept and "output" in result.model_fields_set:
            self.outputs.append(result.output)

    async def resume(self, flow: StreamFlow, fetch: Fetch | None) -> None:
        """Go on from what the batches of earlier attempts came to, and say what they come to from now on."""
        if flow.state is not None:
            self.batches, self.metrics, self.artifacts_ref = flow.state
        flow.state_of = lambda: [self.batches, dict(self.metrics), self.artifacts_ref]
        if self.kept:
            for batch in await flow.made_before():
                _, value, _, artifact = (*batch, None, None)[:4]
                self.outputs.append(value if artifact is None or fetch is None else await fetch(artifact))

    def output(self, final: FinalizeResult | None) -> Any:
        """What `finalize` says, else the batch's output, else the list of the batches' outputs, else the metrics."""
        if final is not None and "output" in final.model_fields_set:
            return final.output
        if self.outputs:
            return self.outputs[0] if self.batches == 1 else self.outputs
        metrics = final.metrics if final is not None and final.metrics else self.metrics
        reference = final.artifacts_ref if final is not None and final.artifacts_ref else self.artifacts_ref
        return {"metrics": metrics} if reference is None else {"metrics": metrics, "artifacts_ref": reference}


async def _process(handler: RoleHandler, batch: Batch, ctx: Context, summary: Summary, flow: StreamFlow | None, *,
                   named: bool) -> None:  # fmt: skip
    """`named`: whoever made the batch gave it an id, if it has one, that identifies it; else its place does."""
    given = batch.batch_uid if named else None
    if flow is not None and flow.passes(given):
        return
    uid = batch.batch_uid or stable_hash({"payload": batch.payload})
    result = await handler.process_batch(batch, ctx)
    if flow is not None:
        result = await _covered(result, flow)
    if not result.success:
        code = result.reason_code or "batch_failed"
        raise AttemptFailure(code, result.error or f"batch {uid} failed", permanent=result.permanent)
    if flow is None:
        summary.add(result)
        await ctx.artifacts.upsert_partial(uid, result.metrics)
    else:
        await _stream(result, batch, summary, flow, given)
    if flow is None:
        ctx.progress(summary.batches)


async def _covered(result: BatchResult, flow: StreamFlow) -> BatchResult:
    """What becomes part of the stream's own notes, without the secrets of the attempt; the output is when it is put."""
    said = {
        "metrics": await flow.covered(dict(result.metrics)),
        "artifacts_ref": await flow.covered(result.artifacts_ref),
    }
    changed = {name: value for name, value in said.items() if value != getattr(result, name)}
    return result.model_copy(update=changed) if changed else result


async def _stream(result: BatchResult, batch: Batch, summary: Summary, flow: StreamFlow, given: str | None) -> None:
    """What came of a batch, as a batch of the node's own stream: its output, or else its metrics."""
    said = "output" in result.model_fields_set
    if not (said or flow.plan.readers):
        summary.add(result)
        flow.count(given)
        return
    made = await flow.prepare(result.output if said else result.metrics)
    await flow.room()
    summary.add(result)  # with `put`, at one moment: a block says both or neither
    flow.put(made, given, dict(result.metrics) if said else None, label=batch.batch_uid or "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
