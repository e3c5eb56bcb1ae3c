"""Seals one version of a secret: the value under a key of its own, that key under a master key (AES-256-GCM, both).

The value is bound to tenant, name, version and to who may use it; its key to tenant, name, version and the id of the
master key. So nothing that is stored opens in another place, and another master key costs no other encryption.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from flowkit.errors import ConfigError, SecretTampered, how_to_install

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    raise ConfigError(f"cryptography is not installed: {how_to_install('secrets')}") from error

FORM: Final = "v1"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version belongs."""

    tenant: str
    name: str
    version: int

    def __str__(self) -> str:
        return f"secret {self.name!r}, version {self.version}, of tenant {self.tenant!r}"


def new_key() -> bytes:
    """A random 256-bit key, for one version and nothing else."""
    return os.urandom(KEY_BYTES)


def encrypt(key: bytes, data: bytes, bound_to: bytes) -> bytes:
    """A random 96-bit nonce, then the ciphertext with its tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, bound_to)


def decrypt(key: bytes, sealed: bytes, bound_to: bytes, what: object) -> bytes:
    """Raises `SecretTampered`, which names `what`."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SecretTampered(f"{what}: what is stored is too short to be sealed data; restore it, or set it anew")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
    except InvalidTag:
        raise SecretTampered(
            f"{what} does not open: it, or where it belongs, was changed in the store; restore it, or set it anew"
        ) from None


def key_bound_to(place: Place, key_id: str) -> bytes:
    """What the key of a version is bound to."""
    return canonical(FORM, place.tenant, place.name, str(place.version), key_id)


def value_bound_to(place: Place, allow: str) -> bytes:
    """What the value of a version is bound to."""
    return canonical(FORM, "value", place.tenant, place.name, str(place.version), allow)


def canonical(*parts: str) -> bytes:
    """Bytes that no other parts have: each with its length before it."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
