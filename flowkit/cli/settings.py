"""Where settings come from: arguments, the environment, [tool.flowkit] of pyproject.toml, defaults; in this order."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from flowkit.config import CommonSettings, CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError, did_you_mean

S = TypeVar("S", bound=CommonSettings)
FILE = "pyproject.toml"
OF_THE_CLI = frozenset({"db", "handlers"})


@dataclass(frozen=True, slots=True)
class Project:
    """What [tool.flowkit] of the nearest pyproject.toml says; `root` is where that file is."""

    root: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def handlers(self) -> list[str]:
        given = self.values.get("handlers", [])
        return [given] if isinstance(given, str) else list(given)


def find_project(start: Path | None = None) -> Project:
    """The nearest pyproject.toml with a [tool.flowkit], from here upwards. Raises `ConfigError` if it is wrong."""
    here = (start if start is not None else Path.cwd()).resolve()
    for folder in (here, *here.parents):
        path = folder / FILE
        if path.is_file() and (values := _read(path)) is not None:
            _check(path, values)
            return Project(folder, values)
    return Project()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("flowkit")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path}: [tool.flowkit] must be a table")
    return values


def _check(path: Path, values: Mapping[str, Any]) -> None:
    known = known_settings() | OF_THE_CLI
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{path}: [tool.flowkit] has no setting {name!r}{did_you_mean(name, known)}")
        texts = value if name == "handlers" and isinstance(value, list) else [value]
        if name in OF_THE_CLI and not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"{path}: [tool.flowkit] {name} must be text, not {value!r}")


@cache
def known_settings() -> frozenset[str]:
    both = (CoordinatorConfig, WorkerConfig)
    return frozenset(item.name for kind in both for item in dataclasses.fields(kind))


def load(kind: type[S], args: Namespace, project: Project, **given: Any) -> S:
    """Settings of one kind. `given` are those that have an option of their own; None is not given.

    Raises `ConfigError`.
    """
    asked: dict[str, Any] = dict(pair(text, "--set") for text in getattr(args, "settings", ()))
    for name in asked:
        if name not in known_settings():
            raise ConfigError(f"--set: there is no setting {name!r}{did_you_mean(name, known_settings())}")
    options = {"kafka_bootstrap": getattr(args, "kafka", None)} | given
    asked |= {name: value for name, value in options.items() if value is not None}
    fields = {item.name for item in dataclasses.fields(kind)}
    from_file, asked = ({name: values[name] for name in values if name in fields} for values in (project.values, asked))
    return kind.load(below=from_file, overrides=asked)


def shown(args: Namespace) -> dict[str, Any]:
    """What the options say about spans and metrics."""
    return {"otel": True if args.otel else None, "metrics_port": args.metrics_port}


def named_database(args: Namespace, project: Project) -> str | None:
    """The database that somebody named. A relative file of [tool.flowkit] is relative to its pyproject.toml."""
    if (given := getattr(args, "db", None) or os.environ.get("FLOWKIT_DB")) is not None:
        return str(given)
    given = project.values.get("db")
    if given is None or "://" in given or project.root is None:
        return given
    return str(project.root / given)


def database(args: Namespace, project: Project, cfg: CommonSettings) -> str:
    """The database that somebody named, else MongoDB's own address of the settings."""
    return named_database(args, project) or mongo_url(cfg)


def mongo_url(cfg: CommonSettings) -> str:
    """`mongo_url` with `mongo_database` in it, unless it names one itself."""
    parts = urlsplit(cfg.mongo_url)
    return cfg.mongo_url if parts.path.strip("/") else urlunsplit(parts._replace(path=f"/{cfg.mongo_database}"))


def file_of(db: str) -> Path | None:
    """The file that a database is, None for MongoDB."""
    if db.startswith("sqlite://"):
        return Path(db.removeprefix("sqlite:///").removeprefix("sqlite://"))
    return None if "://" in db else Path(db)


def shown_address(db: str) -> str:
    """How a database may be named in a line: neither its password nor its options."""
    if "://" not in db:
        return db
    scheme, _, rest = db.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def without_password(db: str) -> str:
    """The database as it is, but for a password: that is for the user to fill in."""
    scheme, found, rest = db.partition("://")
    user, at, servers = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:***@{servers}" if found and at else db


def pair(text: str, option: str) -> tuple[str, str]:
    """`name=value`. Raises `ConfigError`."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise ConfigError(f"{option} takes NAME=VALUE, not {text!r}")
    return name, value


def pairs(texts: list[str], option: str) -> dict[str, str]:
    return dict(pair(text, option) for text in texts)
