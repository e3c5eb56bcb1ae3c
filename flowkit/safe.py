"""The secret manager over the database that a process runs on: put together where a process needs one."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.backend import Backend
from flowkit.errors import ConfigError
from flowkit.ports import Clock
from flowkit.telemetry import MasterKeyMade, Telemetry

if TYPE_CHECKING:
    from flowkit.config import CoordinatorConfig
    from flowkit.secrets.manager import SecretManager
    from flowkit.secrets.secrets import Secrets


def open_manager(backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry) -> SecretManager:
    """The manager over a started backend's store. Needs the extra `secrets`. Raises `ConfigError`,
    `MasterKeyError`."""
    # Not at the top: encryption is an extra, and costs what a program without secrets need not pay.
    from flowkit.secrets.manager import SecretManager
    from flowkit.secrets.opening import open_master_keys

    store = backend.secrets
    if store is None:
        raise ConfigError("this store keeps no secrets: use a SQLite file or MongoDB")
    beside = None if backend.file is None else backend.file.path

    def made(path: Path) -> None:
        telemetry.emit(MasterKeyMade(str(path)))

    keys = open_master_keys(cfg.secrets_keys, beside=beside, on_made=made)
    return SecretManager(store, keys, clock)


def open_secrets(backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry, *,
                 tenant: str = "default", principal: str = "") -> Secrets:  # fmt: skip
    """The secrets of one tenant. `principal` is who the record says did it; by default the user of this process. Raises
    as `open_manager`."""
    from flowkit.secrets.secrets import Secrets

    manager = open_manager(backend, cfg, clock, telemetry)
    return Secrets(manager, tenant=tenant, principal=principal or user_of_process())


def user_of_process() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "local"
