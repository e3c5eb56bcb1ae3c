"""The handler of the role `echo`: gives back what it got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkit.worker.handlers.base import Batch, BatchResult, RoleHandler

if TYPE_CHECKING:
    from flowkit.worker.context import Context


class EchoHandler(RoleHandler):
    """For trials: a node of type `echo` has its inputs as its output."""

    role = "echo"
    concurrent = True

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return input_inline

    async def process_batch(self, batch: Batch, ctx: Context) -> BatchResult:
        return BatchResult(success=True, metrics={"processed": 1}, output=batch.payload)
