"""Where the secret manager listens: a host and a port, or a socket in the file system; and what protects the way."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from flowkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """`path` is that of a Unix socket; else `host` and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def local(self) -> bool:
        """Whether nobody on another machine is on the way."""
        return bool(self.path) or _is_loopback(self.host)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """`host:port`, `[::1]:port` or `unix:/path`. Raises `ConfigError`."""
    if text.startswith("unix:"):
        if text == "unix:":
            raise ConfigError("unix: names no socket: write unix:/run/flowkit/secrets.sock")
        return Address(path=text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(f"{text!r} is no address of a secret manager: write host:port, or unix:/path")
    return Address(host, int(port))


def check_way(address: Address, tls: ssl.SSLContext | None) -> None:
    """Raise `ConfigError` where secrets would travel to other machines in the clear."""
    if tls is None and not address.local:
        raise ConfigError(
            f"{address} is not on this machine, and without TLS secrets would travel in the clear: give a certificate, "
            "or listen on 127.0.0.1 or unix:/path"
        )


def server_tls(certificate: str | Path, key: str | Path, *, client_ca: str | Path | None = None) -> ssl.SSLContext:
    """TLS for the secret manager; with `client_ca`, only workers with a certificate of it are heard. Raises
    `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the certificate, its key or the CA of the secret manager cannot be read: {error}"
        ) from error
    return context


def client_tls(ca: str | Path | None = None, *, certificate: str | Path | None = None,
               key: str | Path | None = None) -> ssl.SSLContext:  # fmt: skip
    """TLS for a worker: the manager has to have a certificate of `ca` (None: of those that the system trusts) for the
    host by which it is reached. Raises `ConfigError`."""
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the worker's certificates for the secret manager cannot be read: {error}") from error
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
