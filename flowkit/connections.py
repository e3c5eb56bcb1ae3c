"""What the settings say about the roads to Kafka and MongoDB, put together in one place for all who travel them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import ConfigError
from flowkit.ports import Bus
from flowkit.wire.seals import KeyRing, Seals
from flowkit.wire.topics import Topics

if TYPE_CHECKING:
    from flowkit.adapters.kafka_client import Clients
    from flowkit.adapters.kafka_security import KafkaSecurity
    from flowkit.adapters.mongo import MongoStore
    from flowkit.adapters.mongo_handles import Handle
    from flowkit.adapters.mongo_security import MongoSecurity
    from flowkit.config import CommonSettings


def kafka_security(cfg: CommonSettings) -> KafkaSecurity:
    """Raises `ConfigError` where the settings contradict one another, or a password would travel in the open."""
    from flowkit.adapters.kafka_security import KafkaSecurity

    found = KafkaSecurity(
        protocol=cfg.kafka_security_protocol,
        ca_file=cfg.kafka_ca_file or None,
        cert_file=cfg.kafka_cert_file or None,
        key_file=cfg.kafka_key_file or None,
        check_hostname=cfg.kafka_check_hostname,
        mechanism=cfg.kafka_sasl_mechanism,
        user=cfg.kafka_user or None,
        password=_password("kafka_password", cfg.kafka_password, cfg.kafka_password_file),
        sasl_without_tls=cfg.kafka_sasl_without_tls,
    )
    found.check_roads(cfg.kafka_bootstrap)
    return found


def kafka_clients(cfg: CommonSettings, client_id: str, *, request_sec: float) -> Clients:
    """Raises `ConfigError`."""
    from flowkit.adapters.kafka_client import Clients

    return Clients(cfg.kafka_bootstrap, client_id, kafka_security(cfg).options(), request_sec=request_sec)


def kafka_bus(cfg: CommonSettings, *, seals: Seals | None, client_id: str = "flowkit",
              start_timeout: float | None = None) -> Bus:  # fmt: skip
    """A bus that signs and checks what travels by `seals`, which `message_seals` makes. Raises `ConfigError`."""
    from flowkit.adapters.kafka import KafkaBus
    from flowkit.adapters.sealed_bus import SealedBus

    seconds = cfg.connect_timeout_sec if start_timeout is None else start_timeout
    bus = KafkaBus(
        cfg.kafka_bootstrap, client_id=client_id, security=kafka_security(cfg).options(), start_timeout=seconds
    )
    return bus if seals is None else SealedBus(bus, seals)


def mongo_security(cfg: CommonSettings) -> MongoSecurity:
    """Raises `ConfigError`."""
    from flowkit.adapters.mongo_security import MongoSecurity

    return MongoSecurity(
        tls=cfg.mongo_tls,
        ca_file=cfg.mongo_ca_file or None,
        cert_file=cfg.mongo_cert_file or None,
        check_hostname=cfg.mongo_check_hostname,
        user=cfg.mongo_user or None,
        password=_password("mongo_password", cfg.mongo_password, cfg.mongo_password_file),
    )


def mongo_store(db: object, cfg: CommonSettings, *, start_timeout: float | None = None) -> MongoStore:
    """Raises `ConfigError`."""
    from flowkit.adapters.mongo import MongoStore

    seconds = cfg.connect_timeout_sec if start_timeout is None else start_timeout
    return MongoStore(db, start_timeout=seconds, options=_mongo_options(db, cfg))


def mongo_handle(db: object, cfg: CommonSettings) -> Handle:
    """Raises `ConfigError`."""
    from flowkit.adapters.mongo_handles import open_handle

    return open_handle(db, _mongo_options(db, cfg))


def message_seals(cfg: CommonSettings) -> Seals | None:
    """How messages are signed and checked; None without keys. Raises `ConfigError`."""
    lines = _lines(cfg.message_keys_file) if cfg.message_keys_file else {}
    both = cfg.message_keys.keys() & lines.keys()
    if both:
        raise ConfigError(f"message_keys and message_keys_file both have {', '.join(sorted(both))}: keep one")
    ring = KeyRing.read({**cfg.message_keys, **lines})
    if cfg.message_signing not in ("sign", "require"):
        raise ConfigError(f"message_signing is 'sign' or 'require', not {cfg.message_signing!r}")
    if not ring:
        return None
    topics = Topics(cfg.topic_prefix, cfg.facts_partitions)
    return Seals(ring, topics, require=cfg.message_signing == "require")


def _mongo_options(db: object, cfg: CommonSettings) -> dict[str, Any]:
    return mongo_security(cfg).options() if isinstance(db, str) else {}


def _password(name: str, given: str | None, file: str | None) -> str | None:
    if not file:
        return given or None
    if given:
        raise ConfigError(f"both {name} and {name}_file are given: keep one")
    found = _text(f"{name}_file", file).rstrip("\r\n")
    if not found:
        raise ConfigError(f"{name}_file {file} is empty")
    return found


def _lines(file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_text("message_keys_file", file).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key_id, sign, secret = text.partition("=")
        if not sign:
            raise ConfigError(f"message_keys_file {file}, line {number}: a line is POOL/NAME=BASE64")
        if key_id.strip() in found:
            raise ConfigError(f"message_keys_file {file}, line {number}: {key_id.strip()} is there twice")
        found[key_id.strip()] = secret.strip()
    return found


def _text(name: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
