"""`flowkit worker` and `flowkit coordinator`: long-running processes that outlive the outages of what they run on."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit import cli
from flowkit.backend import Backend, open_backend
from flowkit.cli import settings
from flowkit.cli.console import UsageError, say
from flowkit.cli.lifecycle import Signals, serve
from flowkit.cli.loading import load_handlers
from flowkit.cli.logs import set_up
from flowkit.cli.outage import Outages
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.worker.worker import Worker

OWNERSHIP_SEC = 1.0


@dataclass(slots=True)
class Duty:
    """What one process is to do: coordinate, or serve `handlers`; on a file, both."""

    db: str
    cfg: CoordinatorConfig
    worker_cfg: WorkerConfig
    handlers: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path | None:
        return settings.file_of(self.db)

    @property
    def where(self) -> str:
        if self.file is not None:
            return str(self.file)
        return f"{settings.shown_address(self.db)} and Kafka at {self.cfg.kafka_bootstrap}"


def main(args: Namespace) -> int:
    duty = _read(args)
    set_up(args.log_level, debug=hasattr(args, "debug"))
    asyncio.run(_live(duty))
    return cli.FINISHED


def _read(args: Namespace) -> Duty:
    project = settings.find_project()
    cfg = settings.load(CoordinatorConfig, args, project)
    db = settings.database(args, project, cfg)
    if args.command == "coordinator":
        return Duty(db, cfg, settings.load(WorkerConfig, args, project))
    worker_cfg = settings.load(
        WorkerConfig, args, project, slots=args.slots, drain_sec=args.drain_timeout, roles=args.role or None,
        labels=settings.pairs(args.label, "--label") or None,
    )  # fmt: skip
    handlers = load_handlers(args.handlers, project)
    if not handlers and "echo" not in worker_cfg.roles:
        raise UsageError("name the MODULE with the functions: flowkit worker app, or `handlers` in [tool.flowkit]")
    return Duty(db, cfg, worker_cfg, handlers)


async def _live(duty: Duty) -> None:
    part: Part | None = None

    def make() -> Part:
        nonlocal part
        part = Part(duty)
        return part

    def at_once() -> None:
        if part is not None:
            part.hurry()

    if duty.file is None:
        say(f"connecting to {duty.where}")
    with Signals(at_once=at_once) as signals:
        working = duty.handlers or duty.worker_cfg.roles
        stopping = f"draining for at most {duty.worker_cfg.drain_sec:g} s; again to stop at once"
        await serve(make, signals, stopping=stopping if working else "stopping")


class Part:
    """A coordinator, a worker, or on a file both, over one connection; what `serve` starts and stops."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        serves = bool(duty.handlers or duty.worker_cfg.roles)
        db = duty.file if duty.file is not None else duty.db
        self._backend: Backend = open_backend(db, duty.cfg)
        self.coordinator = (
            None if serves and duty.file is None else Coordinator(db=duty.db, cfg=duty.cfg, backend=self._backend)
        )
        self.worker = (
            Worker(db=duty.db, cfg=duty.worker_cfg, handlers=duty.handlers, backend=self._backend) if serves else None
        )
        self._watching: list[asyncio.Task[None]] = []
        self._hurrying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self.coordinator is not None:
            await self.coordinator.start()
        if self.worker is not None:
            try:
                await self.worker.start()
            except BaseException:
                if self.coordinator is not None:
                    await self.coordinator.stop()
                raise

    async def stop(self) -> None:
        for watching in self._watching:
            watching.cancel()
        if self.worker is not None:
            await self.worker.stop()
        if self._hurrying is not None:
            await self._hurrying
        if self.coordinator is not None:
            await self.coordinator.stop()

    def hurry(self) -> None:
        """Wait for nothing that runs."""
        if self.worker is not None:
            self._hurrying = asyncio.ensure_future(self.worker.stop_now())

    async def started(self) -> None:
        """Say what this process does, and keep an eye on what it depends on."""
        if self.worker is not None:
            roles = ", ".join(sorted(self.worker.cfg.roles))
            say(f"worker {self.worker.worker_id} serves {roles}: {self.worker.cfg.slots} slots, on {self._duty.where}")
        elif self.coordinator is not None:
            say(f"coordinator {self.coordinator.runtime.coordinator_id} on {self._duty.where}")
        if self._backend.file is not None:
            self._watching.append(asyncio.create_task(self._tell_of_ownership()))
        else:
            self._watching.append(asyncio.create_task(Outages(self._backend, self._duty.cfg.kafka_bootstrap).watch()))

    async def _tell_of_ownership(self) -> None:
        """A file has one coordinating process; the others stand by."""
        file = self._backend.file
        assert file is not None
        told = ""
        while True:
            owner = bool((await file.describe())["owner"])
            message = self._of_owner() if owner else "another process coordinates this file; this one stands by"
            if message != told:
                say(message)
            told = message
            await asyncio.sleep(OWNERSHIP_SEC)

    def _of_owner(self) -> str:
        if self.worker is not None:
            return "this process coordinates the file"
        return (
            "this process coordinates the file, but runs no nodes, and no other process can for it: "
            f"flowkit worker MODULE --db {self._duty.file} does both"
        )
