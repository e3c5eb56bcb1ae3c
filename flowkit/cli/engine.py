"""What `flowkit run` runs on: an engine of its own on a file, or the coordinators of Kafka and MongoDB, as a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flowkit.cli.fleet import roll_call, with_fleet
from flowkit.cli.house import House
from flowkit.client import Client
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.tasks import Tasks
from flowkit.coordinator.views import TaskView
from flowkit.core.graph import Graph
from flowkit.errors import FlowKitError
from flowkit.worker.worker import Worker

STUCK_SEC = 3.0


class Engine:
    """`verbs` creates, reads and steers tasks."""

    verbs: Coordinator | Client

    def __init__(self, db: str | Path | None, handlers: dict[str, Any], cfg: CoordinatorConfig,
                 worker_cfg: WorkerConfig, say: Callable[[str], None]) -> None:  # fmt: skip
        self._say = say
        self._stood_by = False
        self._client: Client | None = None
        self._house: House | None = None
        self._worker: Worker | None = None
        if db is None or isinstance(db, Path):
            self._house = House(db, handlers, cfg, worker_cfg, self._tell_owner)
            self.verbs, self._worker = self._house.coordinator, self._house.worker
            return
        self.verbs = self._client = Client(db=db, cfg=cfg)
        if handlers:
            self._worker = Worker(db=db, cfg=worker_cfg, handlers=handlers, backend=self._client.backend)

    async def __aenter__(self) -> Self:
        if self._house is not None:
            await self._house.start()
        elif self._client is not None:
            await self._client.start()
            try:
                await self._start_worker()
            except BaseException:
                await self._client.stop()
                raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        if self._house is not None:
            await self._house.stop()
            return
        if self._worker is not None:
            await self._worker.stop()
        if self._client is not None:
            await self._client.stop()

    async def _start_worker(self) -> None:
        if self._worker is not None:
            await self._worker.start()

    def _tell_owner(self, owner: bool) -> None:
        if not owner:
            self._stood_by = True
            self._say("another process coordinates this file: the nodes run there")
        elif self._stood_by:
            self._say("that process has ended: this one coordinates the file now")

    async def leave(self, drain_sec: float | None) -> None:
        """Before its time: what runs has so long to finish; None leaves it at once, where nothing of it is kept."""
        if self._worker is not None:
            await (self._worker.stop_now() if drain_sec is None else self._worker.stop(drain_sec))

    @property
    def alone(self) -> bool:
        """Whether no other process can run this one's nodes."""
        return self._house is not None and self._house.owner

    @property
    def runs_code(self) -> bool:
        """Whether this process runs nodes that bring their own code."""
        return self._worker is not None and self._worker.serves_code

    @property
    def api(self) -> Tasks:
        return self.verbs.runtime.api if isinstance(self.verbs, Coordinator) else self.verbs.api

    async def graph_of(self, view: TaskView) -> Graph:
        if isinstance(self.verbs, Coordinator):
            return await self.verbs.runtime.graphs.get(view.graph)
        return await self.verbs.get_graph(view)

    async def open_requests(self, task_id: str) -> int:
        """How many requests about the task nobody has acted on yet."""
        return sum(not request.applied for request in await self.api.store.read_requests(task_id))

    async def tell_stuck(self, task_id: str, say: Callable[[str], None]) -> None:
        """Say why nothing goes on, once for each reason. On a file, whoever waits for the task is told anyway."""
        told = ""
        while self._client is not None:
            await asyncio.sleep(STUCK_SEC)
            try:
                reason = await self._why_stuck(self._client, task_id)
            except FlowKitError as error:
                reason = f"nobody knows how it goes: {error}"
            if reason and reason != told:
                say(reason)
            told = reason

    async def _why_stuck(self, client: Client, task_id: str) -> str:
        view = await client.get_task(task_id)
        if view.status == "queued":
            return "no coordinator has taken the task up yet; does one run? (flowkit coordinator)"
        reasons = await client.explain(task_id)
        if not any(reason.code == "ready" for reason in reasons):
            return ""
        workers = await roll_call(client.backend.bus, client.topics)
        graph = await client.get_graph(view)
        told = with_fleet(reasons, graph, workers, client.code_policies.on(view.tenant, view.flow, graph))
        return next((reason.message for reason in told if reason.code == "no_worker"), "")
