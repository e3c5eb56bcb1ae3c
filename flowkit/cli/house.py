"""A coordinator and a worker on one file, in one process: the worker begins once this process coordinates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowkit.backend import open_backend, temporary_backend
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.telemetry import Telemetry
from flowkit.worker.worker import Worker, runs_code

LOOK_SEC = 0.5


class House:
    """A file has one process that coordinates it and runs its nodes; another stands by until that one ends.

    `db` None is a temporary file. `tell` hears whether this process coordinates, at the start and when it comes to.
    `only_coordinates`: there is no worker, not even one for code, which needs no handlers.
    """

    def __init__(self, db: Path | None, handlers: dict[str, Any], cfg: CoordinatorConfig, worker_cfg: WorkerConfig,
                 tell: Callable[[bool], None], *, only_coordinates: bool = False) -> None:  # fmt: skip
        self._backend = temporary_backend() if db is None else open_backend(db, cfg)
        telemetry = Telemetry()
        self.coordinator = Coordinator(db=db, cfg=cfg, backend=self._backend, telemetry=telemetry)
        self.worker: Worker | None = None
        if not only_coordinates and (handlers or worker_cfg.roles or runs_code(worker_cfg)):
            self.worker = Worker(db=db, cfg=worker_cfg, handlers=handlers, backend=self._backend, also_code=True,
                                 coordinator_cfg=cfg, telemetry=telemetry)  # fmt: skip
        self._tell = tell
        self._waiting: asyncio.Task[None] | None = None

    @property
    def owner(self) -> bool:
        """Whether this process coordinates the file."""
        return self.coordinator.coordinating

    async def start(self) -> None:
        await self.coordinator.start()
        try:
            if self.owner:
                await self._move_in()
            else:
                self._tell(False)
                self._waiting = asyncio.create_task(self._wait())
        except BaseException:
            await self.coordinator.stop()
            raise

    async def stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait({self._waiting})
        if self.worker is not None:
            await self.worker.stop()
        await self.coordinator.stop()

    async def _wait(self) -> None:
        while not self.owner:
            await asyncio.sleep(LOOK_SEC)
        await self._move_in()

    async def _move_in(self) -> None:
        if self.worker is not None:
            await self.worker.start()
        self._tell(True)
