"""Master keys in the transit engine of OpenBao (or Vault): they never leave it, it wraps and unwraps when asked."""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flowkit.errors import ConfigError, MasterKeyError, MasterKeyUnknown, SecretsUnavailable, SecretTampered
from flowkit.secrets.envelope import Place, key_bound_to
from flowkit.secrets.http_json import NoAnswer, ask_json

TIMEOUT_SEC: Final = 5.0
KEY_ID: Final = re.compile(r"transit:(?P<path>[A-Za-z0-9_./-]+):v(?P<version>[1-9][0-9]{0,8})")
PATH_RULE: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class TransitKeys:
    """The key `key` of the transit engine at `mount`, of the type aes256-gcm96; its versions are the ring.

    `address` is the server's URL: https, or http on this machine. `token` may encrypt, decrypt and read the key.
    """

    def __init__(self, address: str, token: str, key: str, *, mount: str = "transit", namespace: str = "",
                 context: ssl.SSLContext | None = None, timeout: float = TIMEOUT_SEC) -> None:  # fmt: skip
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address!r} is no address of OpenBao: write https://host:8200")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigError(f"{address}: keys travel over it, so it has to be https (http only to this machine)")
        if not PATH_RULE.fullmatch(mount) or not PATH_RULE.fullmatch(key) or ".." in f"{mount}/{key}":
            raise ConfigError(f"{mount}/{key} is no key of a transit engine: write transit:MOUNT/KEY")
        if not token:
            raise MasterKeyError("OpenBao asks for a token: set BAO_TOKEN (or VAULT_TOKEN), or BAO_TOKEN_FILE")
        self._address = address.rstrip("/")
        self._key = key
        self._mount = mount
        self._headers = {"X-Vault-Token": token} | ({"X-Vault-Namespace": namespace} if namespace else {})
        self._context = context
        self._timeout = timeout

    async def current(self) -> str:
        found = await self._ask("GET", f"keys/{self._key}")
        kind, latest = found.get("type"), found.get("latest_version")
        if kind != "aes256-gcm96" or not isinstance(latest, int):
            raise MasterKeyError(
                f"{self._where} is of type {kind}; what is wrapped has to be bound to its place: make one of "
                "type aes256-gcm96"
            )
        return self._id_of(latest)

    async def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
        said = {
            "plaintext": base64.b64encode(key).decode(),
            "associated_data": base64.b64encode(key_bound_to(place, key_id)).decode(),
            "key_version": self._version_of(key_id, place),
        }
        found = await self._ask("POST", f"encrypt/{self._key}", said)
        return str(found["ciphertext"]).encode()

    async def unwrap(self, wrapped: bytes, place: Place, key_id: str) -> bytes:
        version = self._version_of(key_id, place)
        text = wrapped.decode("utf-8", "replace")
        if not text.startswith(f"vault:v{version}:"):
            raise SecretTampered(f"{place}: its key is not under {key_id}; restore it, or set it anew")
        said = {"ciphertext": text, "associated_data": base64.b64encode(key_bound_to(place, key_id)).decode()}
        try:
            found = await self._ask("POST", f"decrypt/{self._key}", said)
            return base64.b64decode(found["plaintext"], validate=True)
        except _Refused as refusal:
            if "version" in refusal.why and ("disallowed" in refusal.why or "too old" in refusal.why):
                raise MasterKeyUnknown(
                    f"{place} is under {key_id}, which {self._where} does not open any more ({refusal.why}): lower "
                    "its min_decryption_version, or set the secret anew"
                ) from refusal
            if refusal.status == 400:
                raise SecretTampered(f"{place} does not open ({refusal.why}); restore it, or set it anew") from refusal
            raise
        except binascii.Error as error:
            raise MasterKeyError(f"{self._where} gave a key that is not base64") from error

    async def add_key(self) -> str:
        await self._ask("POST", f"keys/{self._key}/rotate", {})
        return await self.current()

    async def describe(self) -> Mapping[str, str]:
        found = await self._ask("GET", f"keys/{self._key}")
        ids = ", ".join(self._id_of(int(version)) for version in sorted(found["keys"], key=int))
        return {"kind": "transit", "where": self._where, "current": await self.current(), "ids": ids}

    @property
    def _where(self) -> str:
        return f"the key {self._mount}/{self._key} of {self._address}"

    def _id_of(self, version: int) -> str:
        return f"transit:{self._mount}/{self._key}:v{version}"

    def _version_of(self, key_id: str, place: Place) -> int:
        found = KEY_ID.fullmatch(key_id)
        if found is None or found["path"] != f"{self._mount}/{self._key}":
            raise MasterKeyUnknown(
                f"{place} is under the master key {key_id!r}, and this process has {self._where}: let it have "
                "the other, or set the secret anew"
            )
        return int(found["version"])

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self._address}/v1/{self._mount}/{path}"
        try:
            status, found = await ask_json(
                method, url, headers=self._headers, body=body, timeout=self._timeout, context=self._context
            )
        except NoAnswer as error:
            raise SecretsUnavailable(
                f"{self._address} does not answer: {error}; is it running, and unsealed?"
            ) from error
        if status in (200, 204):
            return (found or {}).get("data") or {}
        errors = found.get("errors") if isinstance(found, dict) else None
        why = "; ".join(map(str, errors or ())) or "no reason given"
        if status >= 500 or status == 429:
            do = "unseal it: bao operator unseal" if status == 503 else "see its log"
            raise SecretsUnavailable(f"{self._where}: status {status}: {why}; {do}")
        raise _Refused(self._where, status, why)


class _Refused(MasterKeyError):
    def __init__(self, where: str, status: int, why: str) -> None:
        do = {
            403: "may its token encrypt, decrypt and read the key?",
            404: "make it: bao secrets enable transit; bao write -f transit/keys/flowkit",
        }.get(status, "see its log")
        super().__init__(f"{where}: status {status}: {why}; {do}")
        self.status = status
        self.why = why


def open_transit(path: str, environment: Mapping[str, str] = os.environ) -> TransitKeys:
    """The keys that `KEY` or `MOUNT/KEY` names; the rest is in the variables that OpenBao's and Vault's own tools read:
    `BAO_ADDR`, `BAO_TOKEN`, `BAO_NAMESPACE`, `BAO_CACERT`, or `VAULT_...`; and `BAO_TOKEN_FILE`. Raises `ConfigError`,
    `MasterKeyError`."""

    def given(name: str) -> str:
        return environment.get(f"BAO_{name}") or environment.get(f"VAULT_{name}") or ""

    mount, _, key = path.rpartition("/")
    token = given("TOKEN")
    if not token and (file := given("TOKEN_FILE")):
        try:
            token = Path(file).read_text().strip()
        except OSError as error:
            raise MasterKeyError(f"cannot read OpenBao's token from {file}: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=given("CACERT")) if given("CACERT") else None
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read the certificates of {given('CACERT')}: {error}") from error
    address = given("ADDR") or "https://127.0.0.1:8200"
    return TransitKeys(address, token, key, mount=mount or "transit", namespace=given("NAMESPACE"), context=context)
