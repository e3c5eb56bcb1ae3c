"""Everything in one process, on one file, with no server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowkit.backend import open_backend, temporary_backend
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.handle import TaskHandle, raise_if_failed
from flowkit.coordinator.views import TaskResult
from flowkit.errors import ConfigError
from flowkit.worker.worker import Worker


class Embedded:
    """A coordinator and a worker in this process. `db` is a file's path, or None for a temporary one."""

    def __init__(self, db: str | Path | None = None, *, handlers: Any = (), cfg: CoordinatorConfig | None = None,
                 worker_cfg: WorkerConfig | None = None) -> None:  # fmt: skip
        coordinator_cfg = cfg if cfg is not None else CoordinatorConfig.load()
        backend = temporary_backend() if db is None else open_backend(db, coordinator_cfg)
        if not backend.embedded:
            raise ConfigError(f"Embedded runs on a file, not on {db}: use Coordinator and Worker there")
        self.coordinator = Coordinator(db=db, cfg=coordinator_cfg, backend=backend)
        self.worker = Worker(db=db, cfg=worker_cfg, handlers=handlers, backend=backend) if handlers else None

    async def start(self) -> None:
        await self.coordinator.start()
        if self.worker is not None:
            try:
                await self.worker.start()
            except BaseException:
                await self.coordinator.stop()
                raise

    async def stop(self, timeout: float | None = None) -> None:
        """Let what runs finish within `timeout` seconds (`WorkerConfig.drain_sec` by default), then stop."""
        if self.worker is not None:
            await self.worker.stop(timeout)
        await self.coordinator.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.stop(0.0 if kind is not None else None)

    async def submit(self, graph: Any, *, params: Mapping[str, Any] | None = None, **options: Any) -> TaskHandle:
        """Create a task, and give its handle. Options are those of `Coordinator.create_task`."""
        return self.task(await self.coordinator.create_task(graph=graph, params=params, **options))

    def task(self, task_id: str) -> TaskHandle:
        """The handle of a task. Asks nobody."""
        return self.coordinator.task(task_id)

    async def wait_task(self, task_id: str, timeout: float | None = None) -> TaskResult:
        """How the task ended, however it ended. Raises `TaskNotFound`, `WaitTimeout`."""
        return await self.coordinator.wait_task(task_id, timeout)


async def arun(graph: Any, *, handlers: Any, params: Mapping[str, Any] | None = None, db: str | Path | None = None,
               timeout: float | None = None, targets: Sequence[str] = (),
               on_wait: Callable[[str], None] | None = None) -> TaskResult:  # fmt: skip
    """Run a graph to its end in this process, and give the result. Raises `GraphError`, `TaskFailed`, `WaitTimeout`.

    `on_wait` hears why nothing goes on, when it does not; without one it is said on standard error.
    """
    async with Embedded(db, handlers=handlers) as engine:
        task = await engine.submit(graph, params=params, targets=targets)
        result = await engine.coordinator.runtime.api.wait(task.id, timeout, on_wait=on_wait or _say)
    return raise_if_failed(result, kept=db is not None)


def run(graph: Any, *, handlers: Any, params: Mapping[str, Any] | None = None, db: str | Path | None = None,
        timeout: float | None = None, targets: Sequence[str] = ()) -> TaskResult:  # fmt: skip
    """`arun` for code that is not asynchronous."""
    return asyncio.run(arun(graph, handlers=handlers, params=params, db=db, timeout=timeout, targets=targets))


def _say(message: str) -> None:
    sys.stderr.write(f"flowkit: {message}\n")
