"""The secret manager over the database that a process runs on, and the ways to it: put together where a process needs
them."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.backend import Backend
from flowkit.code_policies import read_code_policies
from flowkit.errors import ConfigError
from flowkit.ports import Clock, SecretSource
from flowkit.telemetry import MasterKeyMade, Telemetry
from flowkit.wire.tickets import TicketOffice

if TYPE_CHECKING:
    from flowkit.config import CoordinatorConfig, WorkerConfig
    from flowkit.secrets.desk import Desk
    from flowkit.secrets.manager import SecretManager
    from flowkit.secrets.secrets import Secrets

# Encryption is an extra, and costs what a program without secrets need not pay: what needs it is imported within.


def open_manager(backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry) -> SecretManager:
    """The manager over a started backend's store. Needs the extra `secrets`. Raises `ConfigError`,
    `MasterKeyError`."""
    from flowkit.secrets.manager import SecretManager
    from flowkit.secrets.opening import open_master_keys

    store = backend.secrets
    if store is None:
        raise ConfigError("this store keeps no secrets: use a SQLite file or MongoDB")
    beside = None if backend.file is None else backend.file.path

    def made(path: Path) -> None:
        telemetry.emit(MasterKeyMade(str(path)))

    keys = open_master_keys(cfg.secrets_keys, beside=beside, on_made=made)
    return SecretManager(store, keys, clock, read_code_policies(cfg.code_policy))


def open_secrets(backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry, *,
                 tenant: str = "default", principal: str = "") -> Secrets:  # fmt: skip
    """The secrets of one tenant. `principal` is who the record says did it; by default the user of this process. Raises
    as `open_manager`."""
    from flowkit.secrets.secrets import Secrets

    manager = open_manager(backend, cfg, clock, telemetry)
    return Secrets(manager, tenant=tenant, principal=principal or user_of_process())


def open_office(backend: Backend, cfg: CoordinatorConfig, clock: Clock) -> TicketOffice:
    """What a coordinator issues tickets with. On a file the manager is in the same process, and nobody else has to know
    the key; elsewhere the key is the one that `secrets_tickets` names. Raises `ConfigError`, `MasterKeyError`."""
    if backend.embedded:
        return TicketOffice(backend.ticket_keys, clock)
    from flowkit.secrets.opening import open_ticket_keys

    return TicketOffice(open_ticket_keys(cfg.secrets_tickets), clock)


def open_desk(backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry) -> Desk:
    """What takes tickets: for a service, and for the workers of a file's process. Raises as `open_manager`."""
    from flowkit.secrets.desk import Desk
    from flowkit.secrets.opening import open_ticket_keys

    manager = open_manager(backend, cfg, clock, telemetry)
    keys = backend.ticket_keys if backend.embedded else open_ticket_keys(cfg.secrets_tickets)
    return Desk(manager, keys, clock)


def open_source(backend: Backend, worker_cfg: WorkerConfig, cfg: CoordinatorConfig, clock: Clock,
                telemetry: Telemetry) -> SecretSource:  # fmt: skip
    """Where a worker gets the secrets of its attempts: from the manager in its own process on a file, else from the
    service at `secrets_address`. A worker of a cluster needs, and gets, no master key. Raises as `open_manager`."""
    if backend.embedded:
        from flowkit.secrets.desk import OwnDesk

        return OwnDesk(open_desk(backend, cfg, clock, telemetry))
    from flowkit.secrets.address import client_tls
    from flowkit.secrets.client import SecretClient

    if not worker_cfg.secrets_address:
        raise ConfigError(
            "this worker does not know the secret manager: start one (flowkit secrets serve), and set secrets_address "
            "(FLOWKIT_SECRETS_ADDRESS) to host:port, or unix:/path"
        )
    tls = None
    if worker_cfg.secrets_ca or worker_cfg.secrets_certificate:
        tls = client_tls(
            worker_cfg.secrets_ca or None,
            certificate=worker_cfg.secrets_certificate or None,
            key=worker_cfg.secrets_private_key or None,
        )
    return SecretClient(worker_cfg.secrets_address, tls=tls)


def user_of_process() -> str:
    """Who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "local"
