"""Opens the keys that a setting names: master keys, and those under which tickets are sealed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flowkit.errors import ConfigError, MasterKeyError
from flowkit.secrets.key_file import FileKeys, read_key_file
from flowkit.secrets.master_keys import MasterKeys, Ring, StaticKeys, read_ring
from flowkit.secrets.transit import open_transit

MASTER_KEYS: Final = "FLOWKIT_MASTER_KEYS"
TICKET_KEYS: Final = "FLOWKIT_TICKET_KEYS"
SAYS: Final = "write file:PATH, env:VARIABLE, or transit:KEY (transit:MOUNT/KEY) for OpenBao"


def open_master_keys(where: str, *, beside: Path | None = None, on_made: Callable[[Path], None] | None = None,
                     environment: Mapping[str, str] = os.environ) -> MasterKeys:  # fmt: skip
    """The master keys that `where` names: `file:PATH`, `env:VARIABLE`, `transit:KEY`. Empty: those in the variable
    `FLOWKIT_MASTER_KEYS`, else a file beside the database's, `beside`, which the first secret makes.

    Raises `ConfigError`, `MasterKeyError`.
    """
    kind, _, rest = where.partition(":")
    if not where and MASTER_KEYS in environment:
        return StaticKeys(_of_variable(MASTER_KEYS, environment))
    if not where and beside is not None:
        return FileKeys(key_file_beside(beside), make=True, on_made=on_made)
    if not where:
        raise MasterKeyError(
            "there is no master key: let `secrets_keys` (FLOWKIT_SECRETS_KEYS) say where it is, or put ID=BASE64 into "
            f"{MASTER_KEYS} (openssl rand -base64 32); {SAYS}"
        )
    if kind == "file" and rest:
        return FileKeys(Path(rest))
    if kind == "env" and rest:
        return StaticKeys(_of_variable(rest, environment))
    if kind == "transit" and rest:
        return open_transit(rest, environment)
    raise ConfigError(f"secrets_keys: {_shown(where)} names no master keys; {SAYS}")


def open_ticket_keys(where: str, environment: Mapping[str, str] = os.environ) -> Mapping[str, bytes]:
    """The ticket keys that `where` names: `file:PATH`, `env:VARIABLE`; empty: those in `FLOWKIT_TICKET_KEYS`. Raises
    `ConfigError`, `MasterKeyError`."""
    kind, _, rest = where.partition(":")
    if not where:
        kind, rest = "env", TICKET_KEYS
    if kind == "file" and rest:
        return read_key_file(Path(rest))[0].keys
    if kind == "env" and rest:
        return _of_variable(rest, environment).keys
    raise ConfigError(f"secrets_tickets: {_shown(where)} names no ticket keys; write file:PATH or env:VARIABLE")


def key_file_beside(database: Path) -> Path:
    return database.with_name(f"{database.name}.keys")


def _shown(where: str) -> str:
    # Somebody may have put the key itself there.
    kind, found, _ = where.partition(":")
    return f"{kind}:..." if found and kind.isalpha() and len(kind) < 16 else "what it says"


def _of_variable(name: str, environment: Mapping[str, str]) -> Ring:
    text = environment.get(name, "")
    if not text.strip():
        raise MasterKeyError(
            f"the variable {name} is not set, or empty: put ID=BASE64 there, 32 random bytes (openssl rand -base64 32)"
        )
    return read_ring(text, f"the variable {name}")
