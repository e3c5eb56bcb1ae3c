"""What a service is told, by the names that its predecessor's users know: the environment, then a `.env` file, then
defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from flowkit.errors import ConfigError, did_you_mean

LARGEST_FILE: Final = 64 * 1024
FILE: Final = ".env"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to know it, not to listen there
NAME_RULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PASSED_ON: Final = ("FLOWKIT_", "KAFKA_BOOTSTRAP_SERVERS")
"""What the file says of the engine's own settings goes into the environment, where the engine looks."""

COMMON: Final = {
    "HOST": "127.0.0.1",
    "PORT": "",
    "TOKEN_FILE": "",
    "TLS_CERT": "",
    "TLS_KEY": "",
    "WITHOUT_TLS": "",
    "DRAIN_SEC": "30",
}
DATABASE: Final = {"DB": "flowkit.db", "MONGODB": "", "DB_NAME": "flowkit"}
PROGRAMS: Final = {
    "PARALLEL_PROCESS": "4", "QUEUE": "100", "MEMORY_MB": "256", "WALL_SEC": "300", "VENV_PATH": "",
    "EXECUTION_ENV_PATH": "",
}  # fmt: skip
TO_SECRETS: Final = {"SECRET_MANAGER": "", "SECRET_MANAGER_TOKEN_FILE": "flowkit-secret-manager.token"}
TO_RUNNER: Final = {"NODE_RUNNER_ADDR": "", "NODE_RUNNER_TOKEN_FILE": "flowkit-node-runner.token"}

KEPT: Final = "FlowKit keeps them in collections of its own; which database that is, DB_NAME says"
GONE: Final[Mapping[str, Mapping[str, str]]] = {
    "control-unit": {
        "COLLECTION": f"it named where flows are kept: {KEPT}",
        "TRACE_SERVICE_ADDR": "the trace monitor reads what the engine records: give both the same database",
    },
    "trace-monitor": {},
    "node-runner": {
        "REDIS_HOST": "node processing units register again by themselves, so their register needs no Redis",
        "REDIS_PORT": "node processing units register again by themselves, so their register needs no Redis",
    },
    "secret-manager": {"COLLECTION": f"it named where secrets are kept: {KEPT}"},
    "npu": {},
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the five. `others` are those who may speak to it with a token of their own, beside its operator."""

    name: str
    port: int
    about: str
    settings: Mapping[str, str]
    others: tuple[str, ...] = ()


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("control-unit", 9500, "runs flows whose nodes choose by name what is next",
             {**DATABASE, **TO_RUNNER, "MAX_HOPS": "1000"}),
        Kind("trace-monitor", 9000, "shows what ran, node by node", {**DATABASE, "COLLECTION": "traces_posted"},
             ("control-unit",)),
        Kind("node-runner", 8500, "runs a node's code on a node processing unit", {**PROGRAMS, **TO_SECRETS},
             ("control-unit", "npu")),
        Kind("secret-manager", 8000, "keeps secrets, sealed", {**DATABASE, "ALLOW_GET": ""}, ("node-runner", "npu")),
        Kind("npu", 0, "a node processing unit: runs code in the sandbox",
             {**PROGRAMS, **TO_RUNNER, **TO_SECRETS, "SELF_ADDR": ""}),
    )
}  # fmt: skip


@dataclass(slots=True)
class Settings:
    """The settings of one service. `notes` are for the person who started it."""

    kind: Kind
    values: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        return self.values.get(name, "")

    def flag(self, name: str) -> bool:
        """Raises `ConfigError` for what is neither yes nor no."""
        said = self.text(name).lower()
        if said not in ("", "0", "1", "true", "false", "yes", "no"):
            raise ConfigError(f"{name} is 1 or 0, not {said[:40]!r}")
        return said in ("1", "true", "yes")

    def number(self, name: str, least: float, most: float) -> float:
        """Raises `ConfigError` for what is no number between these."""
        said = self.text(name)
        try:
            value = float(said)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ConfigError(f"{name} is a number from {least:g} to {most:g}, not {said[:40]!r}")
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """Raises `ConfigError` for what is no whole number between these."""
        value = self.number(name, least, most)
        if value != int(value):
            raise ConfigError(f"{name} is a whole number, not {self.text(name)[:40]!r}")
        return int(value)

    @property
    def token_file(self) -> Path:
        return Path(self.text("TOKEN_FILE") or f"flowkit-{self.kind.name}.token")

    @property
    def db(self) -> str:
        """The database: MONGODB with DB_NAME, unless it names one itself; else the SQLite file DB."""
        url = self.text("MONGODB")
        if not url:
            return self.text("DB")
        parts = urlsplit(url)
        if parts.scheme not in ("mongodb", "mongodb+srv"):
            raise ConfigError(f"MONGODB is a URL such as mongodb://localhost:27017, not one of {parts.scheme!r}")
        return url if parts.path.strip("/") else urlunsplit(parts._replace(path=f"/{self.text('DB_NAME')}"))

    @property
    def where(self) -> str:
        """The database as it may be shown: neither its password nor its options."""
        scheme, found, rest = self.db.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if found else self.db

    def address(self, name: str) -> str:
        """The address of another service, with `http://` where it was left out; empty if there is none. Without TLS
        only this machine is spoken to, unless WITHOUT_TLS says that the network is safe. Raises `ConfigError`."""
        return service_address(name, self.text(name), plain=self.flag("WITHOUT_TLS"))


def service_address(name: str, said: str, *, plain: bool) -> str:
    """Raises `ConfigError` for what is no address of a service, or one that may not be spoken to."""
    if not said:
        return ""
    address = (said if "://" in said else f"http://{said}").rstrip("/")
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise ConfigError(f"{name} is an address such as http://127.0.0.1:8500, not {said[:100]!r}")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not plain:
        raise ConfigError(
            f"{name} is another machine, and would be sent tokens in the open: use https://, or set WITHOUT_TLS=1 on a "
            "network that encrypts by itself"
        )
    return address


def read_settings(kind: Kind, file: Path | None, environment: Mapping[str, str],
                  asked: Mapping[str, str] | None = None) -> Settings:  # fmt: skip
    """The settings of a service: what is `asked` for counts most. `file`: this one, else `.env` of the working
    directory, where there is one. Raises `ConfigError`."""
    said, asked = _read_file(file), asked or {}
    known = {**COMMON, **kind.settings}
    for name in asked:
        if name not in known:
            raise ConfigError(f"the {kind.name} has no setting {name!r}{did_you_mean(name, known)}")
    gone = GONE[kind.name]
    notes = []
    for name in sorted({*said, *environment} & gone.keys()):
        notes.append(f"{name} is not needed any more: {gone[name]}")
    for name in sorted(said.keys() - known.keys() - gone.keys()):
        if hint := did_you_mean(name, known):
            notes.append(f"{name} is no setting of the {kind.name}{hint}")
    layers = (asked, environment, said, known)
    given = {name: next(layer[name] for layer in layers if name in layer) for name in known}
    if not given["PORT"] and kind.port:
        given["PORT"] = str(kind.port)
    return Settings(kind, given, notes)


def pass_on(file: Path | None) -> None:
    """Put what the file says of the engine's own settings into this process's environment, where nobody said it."""
    for name, value in _read_file(file).items():
        if name.startswith(PASSED_ON):
            os.environ.setdefault(name, value)


def _read_file(file: Path | None) -> dict[str, str]:
    path = Path(FILE) if file is None else file
    try:
        with path.open("rb") as opened:
            data = opened.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"{path} has more than {LARGEST_FILE} bytes: it is no settings file")
        text = data.decode()
    except FileNotFoundError:
        if file is None:
            return {}
        raise ConfigError(f"there is no settings file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error}") from error
    return dict(_lines(path, text))


def _lines(path: Path, text: str) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, is_one, value = line.removeprefix("export ").partition("=")
        name = name.strip()
        if not is_one or not NAME_RULE.fullmatch(name):
            raise ConfigError(f"{path}, line {number}: write NAME=VALUE")
        found.append((name, _unquoted(value.strip())))
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.partition(" #")[0].rstrip()
