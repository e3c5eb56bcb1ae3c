"""How FlowKit's Kafka clients prove who they are and whom they talk to: TLS, a certificate, a password."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from flowkit.errors import ConfigError, did_you_mean

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """What the settings of the same names say. Raises `ConfigError` where they contradict one another."""

    protocol: str = "PLAINTEXT"
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True
    mechanism: str = "SCRAM-SHA-512"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sasl_without_tls: bool = False

    def __post_init__(self) -> None:
        _one_of("kafka_security_protocol", self.protocol, PROTOCOLS)
        _one_of("kafka_sasl_mechanism", self.mechanism, MECHANISMS)
        if self.sasl and not (self.user and self.password):
            raise ConfigError(
                f"kafka_security_protocol {self.protocol} needs kafka_user, and kafka_password or kafka_password_file"
            )
        if not self.sasl and (self.user or self.password):
            raise ConfigError(
                f"there is a user or a password for Kafka, but kafka_security_protocol is {self.protocol}: "
                "nobody would ask for it; set SASL_SSL"
            )
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ConfigError(
                f"there are certificates for Kafka, but kafka_security_protocol is {self.protocol}: set SSL or SASL_SSL"
            )
        if self.key_file and not self.cert_file:
            raise ConfigError("kafka_key_file is the key of a certificate: give kafka_cert_file too")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    def check_roads(self, address: str) -> None:
        """Raises `ConfigError` where a password would travel to another machine in the open."""
        if not self.sasl or self.tls or self.sasl_without_tls:
            return
        abroad = [host for host in hosts_of(address) if not is_loopback(host)]
        if abroad:
            raise ConfigError(
                f"SASL_PLAINTEXT sends what proves the password to {', '.join(abroad)} in the open: set "
                "kafka_security_protocol to SASL_SSL, or kafka_sasl_without_tls if the network encrypts by itself"
            )

    def options(self) -> dict[str, Any]:
        """For aiokafka's clients. Reads the files. Raises `ConfigError` for one that cannot be used."""
        if self.protocol == "PLAINTEXT":
            return {}
        found: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            found["ssl_context"] = self._context()
        if self.sasl:
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return found

    def shown(self) -> str:
        """In words, for an operator."""
        said = "TLS" if self.tls else "not encrypted"
        if self.tls and not self.check_hostname:
            said += ", the brokers' names are not checked"
        if self.cert_file:
            said += ", with a certificate of our own"
        return f"{said}, {self.mechanism} as {self.user!r}" if self.sasl else said

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"kafka_ca_file {self.ca_file}: {_why(error)}; it is to hold certificates in PEM"
            ) from error
        context.check_hostname = self.check_hostname
        if self.cert_file:
            try:
                # A key with a passphrase would make OpenSSL ask for it on the terminal, and wait.
                context.load_cert_chain(self.cert_file, self.key_file or self.cert_file, password=_no_passphrase)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"kafka_cert_file {self.cert_file} and kafka_key_file {self.key_file or self.cert_file}: "
                    f"{_why(error)}; they are to hold a certificate and its key in PEM"
                ) from error
        return context


def hosts_of(address: str) -> list[str]:
    """The hosts of `host:port,[::1]:port`."""
    return [part.strip().rpartition(":")[0].strip("[]") or part.strip() for part in address.split(",") if part.strip()]


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}{did_you_mean(value, known)}")


def _no_passphrase() -> str:
    raise ConfigError(
        "the key has a passphrase: FlowKit reads keys without one, from files that only its user may read"
    )


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
