"""The worker beside a coordinator, in its process, that runs the coordinator functions of the user's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flowkit.config import CommonSettings, WorkerConfig
from flowkit.errors import FunctionError, Permanent

if TYPE_CHECKING:
    from flowkit.backend import Backend
    from flowkit.ports import Clock
    from flowkit.telemetry import Telemetry
    from flowkit.worker.worker import Worker


def companion(functions: Mapping[str, Callable[..., Any]], *, backend: Backend, cfg: CommonSettings, clock: Clock,
              telemetry: Telemetry) -> Worker:  # fmt: skip
    """A worker for functions by role. Each is called as `fn(task_id, **fn_args)`; what it returns is the node's
    output."""
    from flowkit.worker.worker import Worker

    common = {item.name: getattr(cfg, item.name) for item in dataclasses.fields(CommonSettings)}
    handlers = {role: _handler(call) for role, call in functions.items()}
    own = WorkerConfig(**common, roles=[], worker_id=None, labels={})
    return Worker(cfg=own, handlers=handlers, backend=backend, clock=clock, telemetry=telemetry)


def _handler(call: Callable[..., Any]) -> Callable[..., Any]:
    async def in_the_loop(inputs: Any, ctx: Any) -> Any:
        try:
            return await call(ctx.task_id, **inputs)
        except FunctionError as error:
            raise Permanent(error.code, str(error)) from error

    def in_a_thread(inputs: Any, ctx: Any) -> Any:
        try:
            return call(ctx.task_id, **inputs)
        except FunctionError as error:
            raise Permanent(error.code, str(error)) from error

    return in_the_loop if inspect.iscoroutinefunction(call) else in_a_thread
