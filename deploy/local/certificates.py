"""Certificates for trials and tests: an authority of one's own, and what it signs. Not for production."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.server import ServiceUnavailable

DAY = dt.timedelta(days=1)
LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM: the certificate, its key, and one with both."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """A certificate authority in a folder; `ca` is the file that those who trust it are given."""

    def __init__(self, folder: Path, name: str = "FlowKit trial CA") -> None:
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives.asymmetric import ec
            from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
        except ImportError as error:
            raise ServiceUnavailable("cryptography is missing: pip install cryptography") from error
        self._x509, self._ec, self._usages, self._oids = x509, ec, ExtendedKeyUsageOID, NameOID
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = self._subject(name)
        now = dt.datetime.now(dt.UTC)
        builder = self._begin(self._name, self._key.public_key(), now - DAY, now + 30 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(x509, signs_others=True), critical=True)
        self.ca.write_bytes(self._sign(builder))

    def issue(self, name: str, *, hosts: Sequence[str] = LOCAL, expired: bool = False) -> Certificate:
        """A certificate for servers at these hosts and for clients of this name. One that is `expired` was good until
        yesterday."""
        x509 = self._x509
        key = self._ec.generate_private_key(self._ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        until = now - DAY if expired else now + 7 * DAY
        builder = self._begin(self._subject(name), key.public_key(), now - 3 * DAY, until)
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(x509, host) for host in hosts]), False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(x509, signs_others=False), critical=True)
        both_ways = [self._usages.SERVER_AUTH, self._usages.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both_ways), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return self._written(name, self._sign(builder), key)

    def _subject(self, name: str) -> Any:
        return self._x509.Name([self._x509.NameAttribute(self._oids.COMMON_NAME, name)])

    def _begin(self, subject: Any, public_key: Any, start: dt.datetime, end: dt.datetime) -> Any:
        x509 = self._x509
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public_key)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        return builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)

    def _sign(self, builder: Any) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding

        return bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _written(self, name: str, cert: bytes, key: Any) -> Certificate:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        made = Certificate(*(self.folder / f"{name}.{kind}.pem" for kind in ("cert", "key", "both")))
        for path, text in ((made.cert, cert), (made.key, secret), (made.both, secret + cert)):
            path.touch(mode=0o600)
            path.write_bytes(text)
        return made


def _host(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(x509: Any, *, signs_others: bool) -> Any:
    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False
    )  # fmt: skip
    return x509.KeyUsage(digital_signature=True, key_cert_sign=signs_others, crl_sign=signs_others, **uses)
