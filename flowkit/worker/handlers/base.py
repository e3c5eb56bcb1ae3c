"""The contract of a handler that is a class: it loads its input, works through it in batches, and sums up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from flowkit.errors import FlowKitError, Permanent, Retry

if TYPE_CHECKING:
    from flowkit.worker.context import Context as RunContext

UNFIT = (TypeError, ValueError, KeyError)
PERMANENT = (*UNFIT, AssertionError)


class Batch(BaseModel):
    """A part of a node's input. Without a `batch_uid` it is known by the hash of its payload."""

    batch_uid: str | None = None
    payload: Any = Field(default_factory=dict)


class BatchResult(BaseModel):
    """What became of a batch. Without success the attempt fails with `reason_code` and `error`."""

    success: bool
    metrics: dict[str, Any] = Field(default_factory=dict)
    artifacts_ref: dict[str, Any] | None = None
    reason_code: str | None = None
    permanent: bool = False
    error: str | None = None
    output: Any = None


class FinalizeResult(BaseModel):
    """What a handler says at the end. A given `output` is the node's; else the batches' outputs are."""

    metrics: dict[str, Any] = Field(default_factory=dict)
    artifacts_ref: dict[str, Any] | None = None
    output: Any = None


class RoleHandler:
    """Subclass this and override what you need; only `process_batch` does nothing useful by itself.

    An instance runs one attempt at a time, because it may keep an attempt's state in itself. Where it does not, set
    `concurrent = True`; or give the worker the class, which is then instantiated for every attempt.
    """

    role: str = ""
    concurrent: bool = False

    async def init(self, cfg: dict[str, Any]) -> None:
        """Called first, with `task_id, node_id, attempt_epoch, worker_id, role`, and the node's `io.batching`, if it
        has one, as `batching`."""

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        """What `iter_batches` will get. `input_inline` are the node's inputs, `input_ref` its `io.input_ref`."""
        return {"input_ref": input_ref or {}, "input_inline": {} if input_inline is None else input_inline}

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        """The batches, in order; by default a single one with all that was loaded."""
        yield Batch(payload=loaded)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        """What came of one batch; one that was no success fails the attempt."""
        return BatchResult(success=True, metrics={"processed": 1})

    async def finalize(self, ctx: RunContext) -> FinalizeResult | None:
        """Called last: the node's output, where the batches' own will not do."""
        return FinalizeResult()

    def classify_error(self, exc: BaseException) -> tuple[str, bool]:
        """The error's code, and whether trying again is of no use."""
        if isinstance(exc, Permanent | Retry | FlowKitError):
            return exc.code, isinstance(exc, (Permanent, *PERMANENT))
        return "bad_input" if isinstance(exc, UNFIT) else type(exc).__name__, isinstance(exc, PERMANENT)


Handler = RoleHandler


def __getattr__(name: str) -> Any:
    if name == "RunContext":
        from flowkit.worker.context import Context

        return Context
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
