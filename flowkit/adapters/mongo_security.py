"""How FlowKit's MongoDB clients prove who they are and whom they talk to, where they are made from a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from flowkit.errors import ConfigError

USUAL = "is it running, and is the address right?"
NOISE = re.compile(r" \(configured timeouts|, Timeout:|, full error:")
"""Here begins what the driver appends, its settings, the topology or the raw answer, which goes over pages."""


@dataclass(frozen=True, slots=True)
class MongoSecurity:
    """What the settings of the same names say; what is not given, the URL may say. Raises `ConfigError` where they
    contradict one another."""

    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    check_hostname: bool = True
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.tls and (self.ca_file or self.cert_file):
            raise ConfigError("there are certificates for MongoDB, but mongo_tls is off: nobody would look at them")
        if bool(self.user) != bool(self.password):
            raise ConfigError("mongo_user and its password (mongo_password or mongo_password_file) come together")

    def options(self) -> dict[str, Any]:
        """For PyMongo's client."""
        found: dict[str, Any] = {}
        if self.tls:
            found["tls"] = True
            if self.ca_file:
                found["tlsCAFile"] = self.ca_file
            if self.cert_file:
                found["tlsCertificateKeyFile"] = self.cert_file
            if not self.check_hostname:
                found["tlsAllowInvalidHostnames"] = True
        if self.user:
            found |= {"username": self.user, "password": self.password}
        return found


def said_by(error: BaseException) -> str:
    """What a server or the driver said, on one line."""
    return NOISE.split(str(error))[0] or type(error).__name__


def what_to_do(error: BaseException) -> str:
    """A hint for what a server or the driver said while connecting."""
    said = str(error)
    match getattr(error, "code", None):
        case 18:
            return (
                "are the user (mongo_user) and the password right, and is authSource the database that knows the user?"
            )
        case 13 | 8000:
            return "may this user create indexes, and read and write the database (readWrite)?"
    if "certificate has expired" in said:
        return "renew the server's certificate, or mend this machine's clock"
    if "ostname mismatch" in said or "not valid for" in said:
        return "use a name that the server's certificate has, or make one with this name"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "does mongo_ca_file hold the CA that signed the server's certificate?"
    if "WRONG_VERSION_NUMBER" in said or "UNEXPECTED_EOF" in said or "EOF occurred in violation" in said:
        return "does the server speak TLS at all? Or it asks for a client's certificate: mongo_cert_file"
    if "ALERT" in said.upper() and "SSL" in said:
        return "does the server accept our certificate (mongo_cert_file)?"
    if "connection closed" in said or "connection is already closed" in said:
        return "is it running, and does it want TLS (mongo_tls)?"
    return USUAL
