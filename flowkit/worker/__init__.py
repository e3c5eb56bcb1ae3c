"""The worker: receives attempts, runs handlers, reports what came of them, and keeps its leases alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.lazy import lazily

if TYPE_CHECKING:
    from flowkit.config import WorkerConfig as WorkerConfig
    from flowkit.worker.context import Context as Context
    from flowkit.worker.handlers.base import Batch as Batch
    from flowkit.worker.handlers.base import BatchResult as BatchResult
    from flowkit.worker.handlers.base import FinalizeResult as FinalizeResult
    from flowkit.worker.handlers.base import RoleHandler as RoleHandler
    from flowkit.worker.handlers.echo import EchoHandler as EchoHandler
    from flowkit.worker.results import Next as Next
    from flowkit.worker.worker import Worker as Worker

_HOMES = {
    "Batch": "flowkit.worker.handlers.base",
    "BatchResult": "flowkit.worker.handlers.base",
    "Context": "flowkit.worker.context",
    "EchoHandler": "flowkit.worker.handlers.echo",
    "FinalizeResult": "flowkit.worker.handlers.base",
    "Next": "flowkit.worker.results",
    "RoleHandler": "flowkit.worker.handlers.base",
    "Worker": "flowkit.worker.worker",
    "WorkerConfig": "flowkit.config",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the keys are strings

__getattr__ = lazily(__name__, _HOMES)
