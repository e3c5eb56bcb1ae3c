"""What wraps the keys of secrets: a ring of master keys, some of them of yesterday, which still open what is theirs."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Final, Protocol

from flowkit.errors import MasterKeyError, MasterKeyUnknown
from flowkit.secrets.envelope import KEY_BYTES, Place, decrypt, encrypt, key_bound_to, new_key

ID_RULE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class MasterKeys(Protocol):
    """Wraps and unwraps under keys that never leave it. A new provider (a KMS, an HSM) answers these five; each is
    bounded in time, and raises `SecretsUnavailable` where asking again may help."""

    async def current(self) -> str:
        """The id of the key that what is new goes under. Raises `MasterKeyError`."""

    async def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
        """The key of a version under the master key `key_id`, bound to both. Raises `MasterKeyError`."""

    async def unwrap(self, wrapped: bytes, place: Place, key_id: str) -> bytes:
        """Undo `wrap`. Raises `SecretTampered`; `MasterKeyUnknown` where there is no such key (any more);
        `MasterKeyError`."""

    async def add_key(self) -> str:
        """Make a new key and let it be the current one; gives its id. The others stay. Raises `MasterKeyError`, and
        says how keys are added where that is not done here."""

    async def describe(self) -> Mapping[str, str]:
        """`kind`, `where`, `current`, `ids`: for the operator. No key."""


class Ring:
    """Master keys that this process holds, by their ids; the first is the current one."""

    def __init__(self, keys: Mapping[str, bytes], where: str) -> None:
        if not keys:
            raise MasterKeyError(f"{where} holds no master key: write one as ID BASE64, 32 random bytes")
        self.keys = dict(keys)
        self.where = where

    @property
    def current(self) -> str:
        return next(iter(self.keys))

    def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
        return encrypt(self._key(key_id, place), key, key_bound_to(place, key_id))

    def unwrap(self, wrapped: bytes, place: Place, key_id: str) -> bytes:
        return decrypt(self._key(key_id, place), wrapped, key_bound_to(place, key_id), place)

    def _key(self, key_id: str, place: Place) -> bytes:
        try:
            return self.keys[key_id]
        except KeyError:
            raise MasterKeyUnknown(
                f"{place} is under the master key {key_id!r}, which {self.where} does not have (it has: "
                f"{', '.join(self.keys)}): put that key back, or set the secret anew"
            ) from None


class StaticKeys:
    """A ring that stays as it is: from the environment, or given by whoever embeds FlowKit."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    async def current(self) -> str:
        return self._ring.current

    async def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
        return self._ring.wrap(key, place, key_id)

    async def unwrap(self, wrapped: bytes, place: Place, key_id: str) -> bytes:
        return self._ring.unwrap(wrapped, place, key_id)

    async def add_key(self) -> str:
        raise MasterKeyError(
            f"no key can be added to {self._ring.where} from here: put ID=BASE64 (32 random bytes) there as the first, "
            "keep the others behind it, start every process that has them anew, and rotate again"
        )

    async def describe(self) -> Mapping[str, str]:
        return {
            "kind": "static", "where": self._ring.where, "current": self._ring.current,
            "ids": ", ".join(self._ring.keys),
        }  # fmt: skip


def new_key_id() -> str:
    return f"k{secrets.token_hex(4)}"


def key_line(key_id: str, key: bytes) -> str:
    """As a key stands in a file."""
    return f"{key_id} {base64.b64encode(key).decode()}"


def fresh_line() -> str:
    return key_line(new_key_id(), new_key())


def read_ring(text: str, where: str) -> Ring:
    """Keys as they stand in a file (a line each, `ID BASE64`, `#` before what is to be skipped) or in a variable
    (`ID=BASE64`, commas between). Raises `MasterKeyError`, which never has a key."""
    lines = [line.partition("#")[0] for line in re.split(r"[\n,]", text)]
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        key_id, digits = _split(line.strip(), f"{where}, entry {number}")
        if key_id in keys:
            raise MasterKeyError(f"{where}: there are two keys with the id {key_id!r}; each needs one of its own")
        keys[key_id] = _decoded(digits, f"{where}, key {key_id!r}")
    return Ring(keys, where)


def _split(line: str, where: str) -> tuple[str, str]:
    found = re.match(r"([^\s=]*)[\s=]+(\S+)$", line)
    if found is None:
        raise MasterKeyError(f"{where}: expected an id and 32 bytes in base64, as ID BASE64 (or ID=BASE64)")
    if not ID_RULE.fullmatch(found[1]):
        raise MasterKeyError(f"{where}: the id of a key is letters, digits and `_ . -`, at most 64")
    return found[1], found[2]


def _decoded(digits: str, where: str) -> bytes:
    try:
        key = base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError):
        raise MasterKeyError(f"{where} is not base64") from None
    if len(key) != KEY_BYTES:
        raise MasterKeyError(f"{where} has {len(key)} bytes; a master key has {KEY_BYTES} (openssl rand -base64 32)")
    return key
