"""`flowkit secrets serve`: the secret manager as a service, the one process that holds master keys."""

from __future__ import annotations

import asyncio
import ssl
from argparse import Namespace
from collections.abc import Callable

from flowkit import cli
from flowkit.backend import open_backend
from flowkit.cli import settings
from flowkit.cli.console import UsageError, say
from flowkit.cli.lifecycle import Signals, serve
from flowkit.cli.logs import set_up
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.safe import open_desk
from flowkit.secrets.address import server_tls
from flowkit.secrets.service import SecretService
from flowkit.telemetry import Telemetry


def main(args: Namespace) -> int:
    project = settings.find_project()
    cfg = settings.load(CoordinatorConfig, args, project)
    db = settings.database(args, project, cfg)
    if settings.file_of(db) is not None:
        raise UsageError("the process that coordinates a SQLite file is its secret manager: there is nothing to serve")
    tls = _tls(args)
    set_up(args.log_level, debug=hasattr(args, "debug"))
    asyncio.run(_live(lambda: Manager(db, cfg, args.listen, tls)))
    return cli.FINISHED


def _tls(args: Namespace) -> ssl.SSLContext | None:
    if not args.tls_cert and not args.tls_key and not args.client_ca:
        return None
    if not args.tls_cert or not args.tls_key:
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    return server_tls(args.tls_cert, args.tls_key, client_ca=args.client_ca)


class Manager:
    """A secret manager on MongoDB; what `serve` starts and stops."""

    def __init__(self, db: str, cfg: CoordinatorConfig, listen: str, tls: ssl.SSLContext | None) -> None:
        self._where = settings.shown_address(db)
        self._backend = open_backend(db, cfg)
        telemetry, clock = Telemetry(), SystemClock()
        self._desk = open_desk(self._backend, cfg, clock, telemetry)
        self._service = SecretService(self._desk, listen, tls=tls, telemetry=telemetry)

    async def start(self) -> None:
        await self._backend.store.start()  # without Kafka: nothing of a secret travels there
        try:
            await self._desk.start()
            await self._service.start()
        except BaseException:
            await self._backend.store.stop()
            raise

    async def started(self) -> None:
        say(f"secret manager at {self._service.address}, on {self._where}")

    async def stop(self) -> None:
        await self._service.stop()
        await self._backend.store.stop()


async def _live(make: Callable[[], Manager]) -> None:
    with Signals() as signals:
        await serve(make, signals)
