"""Everything in one process, on one file, with no server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flowkit.backend import open_backend, temporary_backend
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.flow_views import FlowPage, FlowView, VersionPage
from flowkit.coordinator.handle import TaskHandle, raise_if_failed
from flowkit.coordinator.views import TaskResult
from flowkit.core.graph_diff import GraphDiff
from flowkit.errors import ConfigError
from flowkit.telemetry import Telemetry
from flowkit.trace.log_reader import LogPage
from flowkit.trace.traces import Traces
from flowkit.wire.logs import LogLine
from flowkit.worker.worker import Worker, runs_code

if TYPE_CHECKING:
    from flowkit.secrets.secrets import Secrets


class Embedded:
    """A coordinator and a worker in this process. `db` is a file's path, or None for a temporary one; `handlers` and
    `input_adapters` are those of the worker; `telemetry` is what both tell what happens."""

    def __init__(self, db: str | Path | None = None, *, handlers: Any = (), cfg: CoordinatorConfig | None = None,
                 worker_cfg: WorkerConfig | None = None, input_adapters: Mapping[str, Any] | None = None,
                 telemetry: Telemetry | None = None) -> None:  # fmt: skip
        coordinator_cfg = cfg if cfg is not None else CoordinatorConfig.load()
        backend = temporary_backend() if db is None else open_backend(db, coordinator_cfg)
        if not backend.embedded:
            raise ConfigError(f"Embedded runs on a file, not on {db}: use Coordinator and Worker there")
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.coordinator = Coordinator(db=db, cfg=coordinator_cfg, backend=backend, telemetry=self.telemetry)
        self.worker: Worker | None = None
        if handlers or runs_code(worker_cfg):
            self.worker = Worker(
                db=db,
                cfg=worker_cfg,
                handlers=handlers,
                backend=backend,
                input_adapters=input_adapters,
                also_code=True,
                coordinator_cfg=coordinator_cfg,
                telemetry=self.telemetry,
            )

    async def start(self) -> None:
        """Open the file and begin; where another process coordinates it, stand by. Raises `StoreUnavailable`."""
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

    @property
    def secrets(self) -> Secrets:
        """The secrets: set, list, delete, rotate. Needs the extra `secrets`. Raises `ConfigError`, `MasterKeyError`."""
        return self.coordinator.secrets

    async def submit(self, graph: Any = None, *, params: Mapping[str, Any] | None = None, **options: Any) -> TaskHandle:
        """Create a task of a graph, or of a flow (`flow="etl"`), and give its handle. Options are those of
        `Coordinator.create_task`."""
        return self.task(await self.coordinator.create_task(graph=graph, params=params, **options))

    def task(self, task_id: str) -> TaskHandle:
        """The handle of a task. Asks nobody."""
        return self.coordinator.task(task_id)

    async def wait_task(self, task_id: str, timeout: float | None = None) -> TaskResult:
        """How the task ended, however it ended. Raises `TaskNotFound`, `WaitTimeout`."""
        return await self.coordinator.wait_task(task_id, timeout)

    async def delete_task(self, task_id: str) -> bool:
        """Delete a task that has ended, for good; False for an unknown task. Raises `RequestRefused` while it has not
        ended."""
        return await self.coordinator.delete_task(task_id)

    @property
    def traces(self) -> Traces:
        """What happened to tasks, and where their time went."""
        return self.coordinator.traces

    def logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None, level: str | None = None,
             since: float | None = None, limit: int | None = None,
             follow: bool = False) -> AsyncIterator[LogLine]:  # fmt: skip
        """What the task's attempts have said, `limit` lines at most; with `follow`, live until it has ended. `node` is
        a node, or the node of items; `level` the least (`debug`, `info`, `warning`, `error`); `since` epoch seconds.
        Raises `TaskNotFound`."""
        return self.coordinator.logs(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, follow=follow
        )  # fmt: skip

    async def list_logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None,
                        level: str | None = None, since: float | None = None, limit: int = 1000,
                        cursor: str | None = None) -> LogPage:  # fmt: skip
        """A page of what `logs` gives, behind `cursor`."""
        return await self.coordinator.list_logs(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, cursor=cursor
        )

    async def put_flow(self, name: str, graph: Any, *, tags: Iterable[str] = (), note: str = "") -> int:
        """Store a graph as the newest version of a flow, and give its number; the graph of the newest version makes no
        other. `tags` are moved to it. Raises `GraphError`, `FlowNameError`, `StoreUnavailable` (ask again)."""
        return await self.coordinator.put_flow(name, graph, tags=tags, note=note)

    async def get_flow(self, flow: str) -> FlowView:
        """The version that `name` (its `default`, else its newest), `name@3` or `name@tag` means. Raises
        `FlowNotFound`."""
        return await self.coordinator.get_flow(flow)

    async def list_flows(self, *, limit: int = 100, cursor: str | None = None) -> FlowPage:
        """A page of flows, in order of their names."""
        return await self.coordinator.list_flows(limit=limit, cursor=cursor)

    async def list_flow_versions(self, name: str, *, limit: int = 100, cursor: str | None = None) -> VersionPage:
        """A page of a flow's versions, newest first. Raises `FlowNotFound`."""
        return await self.coordinator.list_flow_versions(name, limit=limit, cursor=cursor)

    async def tag_flow(self, name: str, version: int | str, tag: str) -> int:
        """Let a tag name this version from now on, whichever it named before; gives the version. Raises
        `FlowNotFound`, `FlowNameError`."""
        return await self.coordinator.tag_flow(name, version, tag)

    async def untag_flow(self, name: str, tag: str) -> bool:
        """Take a tag off a flow; False where it had none. Raises `FlowNotFound`, `FlowNameError`."""
        return await self.coordinator.untag_flow(name, tag)

    async def diff_flows(self, old: str, new: str) -> GraphDiff:
        """What differs between two versions, of one flow or of two. Raises `FlowNotFound`."""
        return await self.coordinator.diff_flows(old, new)

    async def validate_graph(self, graph: Any, *, params: Mapping[str, Any] | None = None) -> None:
        """Raise `GraphError` for what `create_task` would refuse; nothing is run or stored. Without `params`, those are
        not looked at."""
        await self.coordinator.validate_graph(graph, params=params)


async def arun(graph: Any, *, handlers: Any = (), params: Mapping[str, Any] | None = None, db: str | Path | None = None,
               timeout: float | None = None, targets: Sequence[str] = (),
               on_wait: Callable[[str], None] | None = None) -> TaskResult:  # fmt: skip
    """Run a graph to its end in this process, and give the result. Raises `GraphError`, `TaskFailed`, `WaitTimeout`.

    `on_wait` hears why nothing goes on, when it does not; without one it is said on standard error.
    """
    async with Embedded(db, handlers=handlers) as engine:
        task = await engine.submit(graph, params=params, targets=targets)
        result = await engine.coordinator.runtime.api.wait(task.id, timeout, on_wait=on_wait or _say)
    return raise_if_failed(result, kept=db is not None)


def run(graph: Any, *, handlers: Any = (), params: Mapping[str, Any] | None = None, db: str | Path | None = None,
        timeout: float | None = None, targets: Sequence[str] = ()) -> TaskResult:  # fmt: skip
    """`arun` for code that is not asynchronous. Raises `ConfigError` where a loop runs already."""
    if _in_a_loop():
        raise ConfigError(
            "an event loop runs here already (asyncio, a notebook): write await flowkit.arun(...) instead"
        )
    return asyncio.run(arun(graph, handlers=handlers, params=params, db=db, timeout=timeout, targets=targets))


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _say(message: str) -> None:
    sys.stderr.write(f"flowkit: {message}\n")
