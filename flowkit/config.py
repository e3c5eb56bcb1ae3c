"""Typed settings. What is given counts in this order: arguments, environment, file, defaults."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flowkit.errors import ConfigError, did_you_mean
from flowkit.older_settings import BEAT, modernise, why_gone
from flowkit.setting_bounds import check_number

S = TypeVar("S")

LOG_LEVELS = ("debug", "info", "warning", "error")
MOST_AT_ONCE = 2000
"""So many may run at a time under one limit: `flowkit.core.limits` has the same, which would be slow to import here."""


@dataclass(repr=False)
class _Settings:
    def __repr__(self) -> str:
        shown = (f"{item.name}={shown_value(item.name, getattr(self, item.name))}" for item in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def load(cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None, *,
             below: Mapping[str, Any] | None = None) -> Self:  # fmt: skip
        """Settings from `below` (a table of another file), then a JSON file (if given), then `FLOWKIT_<NAME>` variables
        (and `KAFKA_BOOTSTRAP_SERVERS`, `WORKER_TYPES`), then `overrides`. Raises `ConfigError` for an unknown name or a
        value of the wrong type."""
        values: dict[str, Any] = dict(below or {})
        if path is not None:
            values.update(_read_file(Path(path)))
        values.update(_from_environment(cls))
        values.update(overrides or {})
        known = {item.name: item for item in dataclasses.fields(cls)}
        values = modernise(cls.__name__, values, known, _usual(cls, "heartbeat_sec"))
        for name, value in values.items():
            values[name] = _cast(cls.__name__, name, str(known[name].type), value)
        return cls(**values)

    if not TYPE_CHECKING:  # or no misspelt setting would be seen before it runs

        def __getattr__(self, name: str) -> Any:
            seconds = f"{name.removesuffix('_ms')}_sec" if name.endswith("_ms") else name
            today = "heartbeat_sec" if seconds == BEAT else seconds
            if today != name and today in self.__dataclass_fields__:
                value = getattr(self, today)
                return value if seconds == name else round(value * 1000)
            say = why_gone(name) or did_you_mean(name, self.__dataclass_fields__)
            raise AttributeError(f"{type(self).__name__} has no setting {name!r}{say and f': {say.strip()}'}")

        def __setattr__(self, name: str, value: Any) -> None:
            if name in self.__dataclass_fields__:
                check_number(type(self).__name__, name, value)
                object.__setattr__(self, name, value)
                return
            given = modernise(
                type(self).__name__, {name: value}, self.__dataclass_fields__, _usual(type(self), "heartbeat_sec")
            )
            self.__dict__.update(given)


def _older_names_too(cls: type[S]) -> type[S]:
    """Let settings be given by the names that older FlowKit had for them."""
    usual_init: Any = cls.__init__

    @wraps(usual_init)
    def init(self: Any, *given: Any, **named: Any) -> None:
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]
        usual_init(self, *given, **modernise(cls.__name__, named, known, _usual(cls, "heartbeat_sec")))

    cls.__init__ = init  # type: ignore[method-assign]
    return cls


def _usual(cls: type, name: str) -> Any:
    """What a setting is where nobody gives it to the class."""
    return cls.__dataclass_fields__[name].default_factory()  # type: ignore[attr-defined]


def _environment_first(cls: type[S]) -> type[S]:
    """Let what nobody gives come from the environment, in settings that nobody loaded too: an example that says
    `CoordinatorConfig()` runs wherever Kafka is."""
    for name, kind in cls.__annotations__.items():
        default = getattr(cls, name)
        usual: Any = default.default_factory if isinstance(default, dataclasses.Field) else partial(_itself, default)
        setattr(cls, name, field(default_factory=partial(_given_or, cls.__name__, name, str(kind), usual)))
    return cls


def _itself(value: Any) -> Any:
    return value


def _given_or(owner: str, name: str, kind: str, usual: Callable[[], Any]) -> Any:
    given = _in_environment(name)
    return usual() if given is None else _cast(owner, name, kind, given)


@_older_names_too
@dataclass(repr=False)
@_environment_first
class CommonSettings(_Settings):
    """What coordinators and workers must agree on.

    `kafka_bootstrap` is taken from `KAFKA_BOOTSTRAP_SERVERS` where that is set; `mongo_url` and `mongo_database` are
    for the command line, which has no database handle to be given. `facts_partitions` divides the tasks; it is fixed
    when the topics are created. Times are seconds.

    `kafka_security_protocol` is `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`; `kafka_ca_file` holds the
    certificates that the brokers' are checked against (PEM; by default the system's), `kafka_cert_file` and
    `kafka_key_file` the client's own, for brokers that ask for one. `kafka_sasl_mechanism` is `SCRAM-SHA-512`,
    `SCRAM-SHA-256` or `PLAIN`. `kafka_sasl_without_tls` lets a password travel to other machines in the open, for
    networks that encrypt by themselves. `mongo_cert_file` holds the client's certificate and its key. The `mongo_`
    settings are for URLs: a handle that was handed over has its own. A password is given itself, or in a file.
    `message_keys` are by id (`POOL/NAME`) and in base64, the first is signed with; `message_keys_file` has one
    `POOL/NAME=BASE64` a line. `message_signing` is `require`, or `sign` while others do not sign yet.
    `code_policy` says what code of nodes may ask for, by tenant and by flow: a file of JSON, or the JSON itself.

    `otel`: make OpenTelemetry spans; None: where `OTEL_EXPORTER_OTLP_ENDPOINT` says where to. `metrics_port`: serve
    metrics for Prometheus there, on `metrics_host`; None: nowhere, 0: any. `metrics_tenants`: how many tenants the
    metrics tell apart.
    """

    kafka_bootstrap: str = "localhost:9092"
    mongo_url: str = "mongodb://localhost:27017"
    mongo_database: str = "flowkit"
    kafka_security_protocol: str = "PLAINTEXT"
    kafka_ca_file: str | None = None
    kafka_cert_file: str | None = None
    kafka_key_file: str | None = None
    kafka_check_hostname: bool = True
    kafka_sasl_mechanism: str = "SCRAM-SHA-512"
    kafka_user: str | None = None
    kafka_password: str | None = None
    kafka_password_file: str | None = None
    kafka_sasl_without_tls: bool = False
    mongo_tls: bool = False
    mongo_ca_file: str | None = None
    mongo_cert_file: str | None = None
    mongo_check_hostname: bool = True
    mongo_user: str | None = None
    mongo_password: str | None = None
    mongo_password_file: str | None = None
    message_keys: dict[str, str] = field(default_factory=dict)
    message_keys_file: str | None = None
    message_signing: str = "require"
    code_policy: str = ""
    topic_prefix: str = "flowkit."
    facts_partitions: int = 8
    connect_timeout_sec: float = 10.0
    heartbeat_sec: float = 2.0
    lease_ttl_sec: float = 10.0
    otel: bool | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_tenants: int = 0

    def topic_cmd(self, step_type: str) -> str:
        """Raises `ConfigError`: a role has no topic of its own."""
        work = f"{self.topic_prefix}work.v1"
        raise ConfigError(f"no topic carries the commands of {step_type!r} alone: create tasks; {work} is the engine's")

    def topic_status(self, step_type: str) -> str:
        """Raises `ConfigError`: a role has no topic of its own."""
        events = f"{self.topic_prefix}events.v1"
        raise ConfigError(f"no topic carries the statuses of {step_type!r} alone: read {events}, or watch the tasks")


@_older_names_too
@dataclass(repr=False)
@_environment_first
class CoordinatorConfig(CommonSettings):
    """Settings of a coordinator.

    `group`: the consumer group that shares the tasks; by default the topic prefix and `coordinators`.
    `accept_sec`: how long a dispatched attempt may take to reach its worker. `prefetch`: how many attempts beyond its
    slots a worker may be sent when its nodes are short. `sweep_sec`: how often the store is searched for work
    that no message announced. `cancel_grace_sec`: how long a cancelled attempt may take to stop.
    `evict_after_sec`: a task with nothing to do for so long leaves memory; sooner, where the commits of those in memory
    have more than `cache_bytes`, a measure of what they take. `tune_gc`: let Python's cycle collector
    run seldom, and all of it only when idle; an app that has set its thresholds itself is left alone.
    `snapshot_bytes`: a task's state is written down when the commits since the last time exceed this, and that state.
    `retention_sec`: how long after its end a task is kept; None (in the environment `none`) or `inf`: for ever.
    `retention_failed_sec`: the same for tasks that failed; None: as long as the others.
    `trace_index`: count ended attempts and keep a record of each, for questions about many tasks; a record costs the
    store a document. None: on a cluster they are counted only; False: neither, anywhere.
    `retention_logs_sec`: how long after it was said a line of a log is kept; None: as long as its task.
    `priority_ageing_sec`: how much waiting a point of priority is worth. `sticky_patience_sec`: how long a node waits
    for room at the worker that it follows. `tenant_weights`: how often a tenant has its turn, beside the others' 1.
    `limits`: how many attempts of a role may run at a time, in the whole cluster, and of all roles together (`*`).
    `secrets_keys`: where the master keys of secrets are, `file:PATH`, `env:VARIABLE` or `transit:KEY`; empty: in
    `FLOWKIT_MASTER_KEYS`, else beside the SQLite file. `secrets_tickets`: where the keys are that coordinators and the
    secret manager share, `file:PATH` or `env:VARIABLE`; empty: in `FLOWKIT_TICKET_KEYS`.
    `worker_types`: the roles there are (also from `WORKER_TYPES`); given any, a graph with another role is refused.
    """

    group: str = ""
    coordinator_id: str | None = None
    accept_sec: float = 5.0
    prefetch: int = 256
    sweep_sec: float = 1.0
    head_sec: float = 0.5
    cancel_grace_sec: float = 30.0
    evict_after_sec: float = 60.0
    cache_bytes: int = 256 * 1024 * 1024
    commit_flights: int = 2
    max_commit_bytes: int = 512 * 1024
    snapshot_bytes: int = 256 * 1024
    retention_sec: float | None = 30 * 86_400.0
    retention_failed_sec: float | None = None
    retention_logs_sec: float | None = None
    trace_index: bool | None = None
    priority_ageing_sec: float = 60.0
    sticky_patience_sec: float = 5.0
    tenant_weights: dict[str, float] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    secrets_keys: str = ""
    secrets_tickets: str = ""
    worker_types: list[str] = field(default_factory=list)
    tune_gc: bool = True

    def __post_init__(self) -> None:
        for role, most in self.limits.items():
            if not 1 <= most <= MOST_AT_ONCE:
                raise ConfigError(f"CoordinatorConfig.limits: {role!r} is to be 1 to {MOST_AT_ONCE:,}, not {most!r}")

    @property
    def consumer_group(self) -> str:
        """The consumer group that shares the tasks."""
        return self.group or f"{self.topic_prefix}coordinators"

    @property
    def log_group(self) -> str:
        """The consumer group of those who write log lines down."""
        return f"{self.consumer_group}.logs"

    @property
    def kept_sec(self) -> dict[str, float | None]:
        """By the status that a task ended with, how long it is kept after that; None: for ever."""
        usual, failed = self.retention_sec, self.retention_failed_sec
        kept = {"finished": usual, "cancelled": usual, "failed": usual if failed is None else failed}
        return {status: None if sec == math.inf else sec for status, sec in kept.items()}


@_older_names_too
@dataclass(repr=False)
@_environment_first
class WorkerConfig(CommonSettings):
    """Settings of a worker.

    `slots` is how many attempts run at once; `drain_sec` how long a draining worker lets them finish;
    `started_after_sec` after which an attempt is announced as running. `secrets_address`: where the secret manager
    listens, `host:port` or `unix:/path`; `secrets_ca`, `secrets_certificate`, `secrets_private_key`: files, for TLS:
    whose certificate it has to have, and the worker's own.
    `code_level`: code of nodes runs at this level (`L1`, `L2`, `L3`), not at the highest that there is here.
    `code_trusted`: it may run at level L1, as a plain process that may do what the worker's user may.
    `code_dir`: where the `file`s of code nodes are. `code_index`: whence the packages that code requires come, and
    nothing else: an index's address, or a folder of wheels; empty: none are installed. `code_cache`: where they are
    kept (by default in the user's cache), in at most `code_environments` sets and `code_cache_bytes` of the disk, of
    which the least recently used go first, and never those in use. `code_install_sec`: how long making one may take.
    Of what an attempt logs, the lines from `log_level` on are kept, `log_lines` of them at most, and `log_bytes`.
    `capture_logging`: what libraries log by Python's `logging` while an attempt runs is kept as its own.
    """

    roles: list[str] = field(default_factory=list)
    worker_id: str | None = None
    worker_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    slots: int = 16
    drain_sec: float = 30.0
    started_after_sec: float = 0.5
    max_output_bytes: int = 64 * 1024 * 1024
    log_level: str = "debug"
    log_lines: int = 10_000
    log_bytes: int = 4 * 1024 * 1024
    capture_logging: bool = False
    code_level: str = ""
    code_trusted: bool = False
    code_dir: str = ""
    code_index: str = "https://pypi.org/simple"
    code_cache: str = ""
    code_environments: int = 20
    code_cache_bytes: int = 4 * 1024 * 1024 * 1024
    code_install_sec: float = 300.0
    secrets_address: str = ""
    secrets_ca: str = ""
    secrets_certificate: str = ""
    secrets_private_key: str = ""

    def __post_init__(self) -> None:
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"WorkerConfig.log_level is one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")


SECRET = frozenset({"kafka_password", "mongo_password", "message_keys"})
"""Settings whose values are never shown."""


def own_settings(cfg: S | None, kind: type[S]) -> S:
    """A copy of the settings that were handed over, else those that the environment gives. Raises `ConfigError`."""
    if cfg is None:
        return kind.load()  # type: ignore[attr-defined, no-any-return]
    if not isinstance(cfg, kind):
        hint = f": {kind.__name__}(**cfg) makes one of it" if isinstance(cfg, Mapping) else ""
        raise ConfigError(f"cfg is a {kind.__name__}, not a {type(cfg).__name__}{hint}")
    return copy.deepcopy(cfg)


def shown_value(name: str, value: object) -> str:
    """A setting as a line may have it: no password, no key."""
    if value and name in SECRET:
        return f"<{len(value)} of them>" if isinstance(value, Mapping) else "<hidden>"
    return repr(_without_password(value)) if isinstance(value, str) else repr(value)


def _without_password(text: str) -> str:
    scheme, found, rest = text.partition("://")
    user, at, servers = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:***@{servers}" if found and at else text


_OTHER_VARIABLES = {"kafka_bootstrap": "KAFKA_BOOTSTRAP_SERVERS", "worker_types": "WORKER_TYPES"}
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read settings from {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return values


def _from_environment(cls: type) -> dict[str, Any]:
    given = {item.name: _in_environment(item.name) for item in dataclasses.fields(cls)}
    return {name: value for name, value in given.items() if value is not None}


def _in_environment(name: str) -> str | None:
    given = os.environ.get(f"FLOWKIT_{name.upper()}")
    if given is None and name in _OTHER_VARIABLES:
        return os.environ.get(_OTHER_VARIABLES[name]) or None
    return given


def _cast(owner: str, name: str, kind: str, value: Any) -> Any:
    """A value of the declared type from what an environment, a file or a caller gave."""
    try:
        match kind.removesuffix(" | None"):
            case "bool" if isinstance(value, bool):
                return value
            case "bool" if isinstance(value, str) and value.lower() in _YES | _NO:
                return value.lower() in _YES
            case "float" | "bool" | "int" if kind.endswith("None") and (value is None or value in ("", "none", "None")):
                return None
            case "float" if isinstance(value, (int, float, str)) and not isinstance(value, bool):
                return float(value)
            case "int" if isinstance(value, (int, str)) and not isinstance(value, bool):
                return int(value)
            case "str" if isinstance(value, str) or (value is None and kind.endswith("None")):
                return value
            case "list[str]" if isinstance(value, str):
                return [part.strip() for part in value.split(",") if part.strip()]
            case "list[str]" if isinstance(value, (list, tuple)):
                return [str(part) for part in value]
            case "dict[str, float]" if isinstance(value, str):
                pairs = (part.split("=", 1) for part in value.split(",") if part)
                return {key: float(part) for key, part in pairs}
            case "dict[str, float]" if isinstance(value, Mapping):
                return {str(key): float(part) for key, part in value.items()}
            case "dict[str, int]" if isinstance(value, str):
                counts = (part.split("=", 1) for part in value.split(",") if part)
                return {key: int(part) for key, part in counts}
            case "dict[str, int]" if isinstance(value, Mapping) and all(type(part) is int for part in value.values()):
                return {str(key): part for key, part in value.items()}
            case "dict[str, str]" if isinstance(value, str):
                return dict(part.split("=", 1) for part in value.split(",") if part)
            case "dict[str, str]" if isinstance(value, Mapping):
                return {str(key): str(part) for key, part in value.items()}
    except ValueError:
        pass
    said = "what was given" if name in SECRET else repr(value)
    raise ConfigError(f"{owner}.{name} must be {kind}, not {said}")
