"""Seals on messages: a tag that only who holds a pool's key can make, over all of a message that anybody acts on.

A key belongs to a pool, and its id says to which: `POOL/NAME`. Processes of a pool trust one another. Coordinators
hold the keys of all pools, those of a pool only its own: so nobody but a coordinator and the pool itself can give
orders to a pool's workers or report about what was leased to them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from flowkit.errors import ConfigError
from flowkit.ports import Record
from flowkit.wire.topics import Topics

HEADER = "flowkit-seal"
OWN_HEADERS = "flowkit-"
COORDINATORS = "coordinator"
POOL_END = "/"
LEAST_KEY_BYTES = 32

_DOMAIN = b"flowkit message seal v1\x00"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_.-]{1,64}")
_LENGTHS = struct.Struct(">IiI")
_NONE = 0xFFFFFFFF
_DIGEST = "sha256"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a ring."""

    key_id: str
    secret: bytes = field(repr=False)

    @property
    def pool(self) -> str:
        return pool_of(self.key_id)


class KeyRing:
    """The keys that a process holds, the first of each pool to sign with; all of them count."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._first: dict[str, Key] = {}
        for key in self._keys.values():
            self._first.setdefault(key.pool, key)

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Of ids and base64. Raises `ConfigError`, which never has a key in it."""
        return cls(_key(key_id, secret) for key_id, secret in given.items())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def own(self) -> Key:
        """The key that this process speaks with, of the pool that it belongs to."""
        return next(iter(self._keys.values()))

    def get(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def first_of(self, pool: str) -> Key | None:
        """The key to address the workers of a pool with."""
        return self._first.get(pool)


class Seals:
    """Puts seals on what is sent and looks at those of what comes. `require`: what has none is refused; else only what
    has a wrong one, so that those who sign and those who do not yet can work together."""

    def __init__(self, ring: KeyRing, topics: Topics, *, require: bool) -> None:
        self.ring = ring
        self.require = require
        self._topics = topics
        self._sealed = frozenset({topics.facts, topics.work, topics.fleet, topics.streams, topics.logs})

    @property
    def pool(self) -> str:
        """The pool that this process belongs to."""
        return self.ring.own.pool

    def seal(self, record: Record) -> Record:
        """The record as it is to be sent."""
        if record.topic not in self._sealed:
            return record
        key: Key | None = self.ring.own
        if record.topic == self._topics.work:  # to be understood by one worker, who holds the keys of its pool alone
            key = self.ring.first_of(pool_of((record.key or b"").decode("utf-8", "replace")))
        if key is None:
            return record
        headers = tuple(header for header in record.headers if header[0] != HEADER)
        stamp = f"{key.key_id}:{_tag(key, record, headers).hex()}".encode()
        return Record(record.topic, record.partition, record.value, record.key, (*headers, (HEADER, stamp)))

    def look(self, record: Record) -> Record:
        """The record as it came, with whose it is, or why it is nobody's."""
        if record.topic not in self._sealed:
            return record
        signer, refused = self._judge(record)
        return Record(
            record.topic, record.partition, record.value, record.key, record.headers, record.offset, signer, refused
        )

    def _judge(self, record: Record) -> tuple[str, str]:
        stamps = [value for name, value in record.headers if name == HEADER]
        if not stamps:
            return "", "not signed" if self.require else ""
        if len(stamps) > 1:
            return "", "signed twice"
        name, _, tag = stamps[0].partition(b":")
        key_id = name.decode("ascii", "replace")
        key = self.ring.get(key_id)
        if key is None:
            return "", f"signed with a key that is not known here: {key_id[:129]!r}" if self.require else ""
        headers = tuple(header for header in record.headers if header[0] != HEADER)
        if not hmac.compare_digest(_tag(key, record, headers).hex().encode(), tag):
            return "", f"the signature with {key_id!r} is wrong: forged, or changed on the way"
        return key.pool, ""


def pool_of(name: str) -> str:
    """The pool in the id of a key or a worker, empty for none."""
    pool, found, _ = name.partition(POOL_END)
    return pool if found else ""


def in_pool(worker_id: str, pool: str) -> str:
    """The id of a worker of a pool: whoever reads it knows whose signature to expect."""
    return worker_id if not pool or pool_of(worker_id) == pool else f"{pool}{POOL_END}{worker_id}"


def may_speak_for(signer: str, worker: str) -> bool:
    """Whether what `signer` signed may be about what `worker` holds. Nobody signed: that was allowed on arrival."""
    return signer in ("", COORDINATORS) or pool_of(worker) == signer


def _tag(key: Key, record: Record, headers: Iterable[tuple[str, bytes]]) -> bytes:
    # Every part with its length before it: no two messages are the same bytes.
    topic = record.topic.encode()
    parts = [_DOMAIN, _LENGTHS.pack(len(topic), record.partition, len(key.key_id)), topic, key.key_id.encode()]
    for part in (record.key, record.value):
        parts.append((_NONE if part is None else len(part)).to_bytes(4, "big"))
        parts.append(part or b"")
    for name, value in headers:
        if name.startswith(OWN_HEADERS):  # others nobody here reads, and whoever watches the traffic may add some
            text = name.encode("utf-8", "surrogatepass")
            parts += [struct.pack(">II", len(text), len(value)), text, value]
    return hmac.digest(key.secret, b"".join(parts), _DIGEST)


def _key(key_id: str, secret: str) -> Key:
    if not _KEY_ID.fullmatch(key_id):
        raise ConfigError(
            f"message_keys: {key_id!r} is no name of a key: it is POOL/NAME, of letters, digits, '-' and '_', as in "
            "default/2026-11"
        )
    try:
        found = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"message_keys: the key {key_id} is not base64") from error
    if len(found) < LEAST_KEY_BYTES:
        raise ConfigError(
            f"message_keys: the key {key_id} has {len(found)} bytes, and needs {LEAST_KEY_BYTES}: "
            f"head -c {LEAST_KEY_BYTES} /dev/urandom | base64"
        )
    return Key(key_id, found)
