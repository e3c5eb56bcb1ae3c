"""`flowkit worker` and `flowkit coordinator`: long-running processes that outlive the outages of what they run on."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit import cli, loop
from flowkit.backend import open_backend
from flowkit.cli import settings
from flowkit.cli.console import UsageError, say
from flowkit.cli.house import House
from flowkit.cli.lifecycle import Signals, serve
from flowkit.cli.loading import load_handlers
from flowkit.cli.logs import set_up
from flowkit.cli.outage import Outages
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.hurry import done_before
from flowkit.observing import observing_of
from flowkit.worker.worker import Worker

WITHOUT_HANDLERS = frozenset({"echo", "code"})
"""Roles that need no function of the user's."""


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
    def serves(self) -> bool:
        return bool(self.handlers or self.worker_cfg.roles)

    @property
    def where(self) -> str:
        if self.file is not None:
            return str(self.file)
        return f"{settings.shown_address(self.db)} and Kafka at {self.cfg.kafka_bootstrap}"


def main(args: Namespace) -> int:
    duty = _read(args)
    set_up(args.log_level, debug=hasattr(args, "debug"))
    loop.run(_live(duty))
    return cli.FINISHED


def _read(args: Namespace) -> Duty:
    project = settings.find_project()
    shown = settings.shown(args)
    cfg = settings.load(CoordinatorConfig, args, project, **shown)
    db = settings.database(args, project, cfg)
    if args.command == "coordinator":
        return Duty(db, cfg, WorkerConfig())
    worker_cfg = settings.load(
        WorkerConfig, args, project, slots=args.slots, drain_sec=args.drain_timeout, roles=args.role or None,
        labels=settings.pairs(args.label, "--label") or None, **shown,
    )  # fmt: skip
    handlers = load_handlers(args.handlers, project)
    if not handlers and not WITHOUT_HANDLERS.intersection(worker_cfg.roles):
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
        stopping = f"draining for at most {duty.worker_cfg.drain_sec:g} s; again to stop at once"
        await serve(make, signals, stopping=stopping if duty.serves else "stopping")


class Part:
    """A coordinator, a worker, or on a file both; what `serve` starts and stops."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._service: House | Coordinator | Worker
        self._coordinator: Coordinator | None = None
        self._worker: Worker | None = None
        self._outages: Outages | None = None
        self._told = False
        self._watching: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()
        if duty.file is not None:
            house = self._service = House(
                duty.file, duty.handlers, duty.cfg, duty.worker_cfg, self._tell_owner, only_coordinates=not duty.serves
            )
            self._worker, self._coordinator = house.worker, house.coordinator
            return
        backend = open_backend(duty.db, duty.cfg)
        self._outages = Outages(backend, duty.cfg.kafka_bootstrap)
        if duty.serves:
            self._service = self._worker = Worker(
                db=duty.db, cfg=duty.worker_cfg, handlers=duty.handlers, backend=backend
            )
        else:
            self._service = self._coordinator = Coordinator(db=duty.db, cfg=duty.cfg, backend=backend)

    async def start(self) -> None:
        await self._service.start()

    async def started(self) -> None:
        if self._outages is not None:
            self._tell_role()
            self._watching = asyncio.create_task(self._outages.watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._worker is not None and not await done_before(self._hurried, self._worker.stop()):
            await self._worker.stop_now()
        await self._service.stop()

    def hurry(self) -> None:
        """Wait for nothing that runs."""
        self._hurried.set()

    # what it says

    def _tell_role(self) -> None:
        part = self._worker or self._coordinator
        server = observing_of(part.telemetry).server if part is not None else None
        if server is not None:
            say(f"metrics at http://{self._duty.cfg.metrics_host}:{server.port}/metrics")
        if self._worker is not None:
            roles, slots = ", ".join(sorted(self._worker.cfg.roles)), self._worker.cfg.slots
            say(f"worker {self._worker.worker_id} serves {roles}: {slots} slots, on {self._duty.where}")
        elif self._coordinator is not None:
            say(f"coordinator {self._coordinator.runtime.coordinator_id} on {self._duty.where}")

    def _tell_owner(self, owner: bool) -> None:
        """A file has one coordinating process; the others stand by."""
        if not self._told:
            self._tell_role()
            self._told = True
        if not owner:
            say("another process coordinates this file; this one stands by")
            return
        if self._worker is not None:
            say("this process coordinates the file")
            return
        both = f"flowkit worker MODULE --db {self._duty.file} does both"
        say(f"this process coordinates the file, but runs no nodes, and no other process can for it: {both}")
