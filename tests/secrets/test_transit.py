"""Master keys in a real OpenBao: what it wraps opens in its place only, and rotating is its own affair."""

from __future__ import annotations

import asyncio
import urllib.error
import uuid
from dataclasses import replace
from typing import Any

import pytest

from deploy.local import OpenBaoServer
from deploy.local.openbao import TOKEN
from flowkit.errors import ConfigError, MasterKeyError, MasterKeyUnknown, SecretsUnavailable, SecretTampered
from flowkit.secrets.envelope import Place, new_key
from flowkit.secrets.frames import hang_up
from flowkit.secrets.opening import open_master_keys
from flowkit.secrets.transit import TransitKeys, open_transit
from tests.secrets.room import Room, pretender

PLACE = Place("acme", "KEY", 1)

# It allows what a secret manager needs, and nothing else.
POLICY = """
path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/keys/{key}/rotate" {{ capabilities = ["update"] }}
path "transit/encrypt/{key}" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}
"""


@pytest.fixture
def key(openbao: OpenBaoServer) -> str:
    name = f"key-{uuid.uuid4().hex[:12]}"
    openbao.ask("POST", f"transit/keys/{name}", {"type": "aes256-gcm96"})
    return name


@pytest.fixture
def token(openbao: OpenBaoServer, key: str) -> str:
    openbao.ask("PUT", f"sys/policies/acl/{key}", {"policy": POLICY.format(key=key)})
    made = openbao.ask("POST", "auth/token/create", {"policies": [key], "no_default_policy": True})
    return str(made["auth"]["client_token"])


@pytest.fixture
def keys(openbao: OpenBaoServer, key: str, token: str) -> TransitKeys:
    return TransitKeys(openbao.address, token, key)


async def test_what_it_wraps_it_unwraps_and_the_master_key_stays_there(keys: TransitKeys, key: str) -> None:
    secret, key_id = new_key(), await keys.current()
    assert key_id == f"transit:transit/{key}:v1"
    wrapped = await keys.wrap(secret, PLACE, key_id)
    assert secret not in wrapped
    assert await keys.unwrap(wrapped, PLACE, key_id) == secret


@pytest.mark.parametrize(
    "other", [replace(PLACE, tenant="other"), replace(PLACE, name="OTHER"), replace(PLACE, version=2)], ids=str
)
async def test_nothing_opens_in_another_place(keys: TransitKeys, other: Place) -> None:
    key_id = await keys.current()
    with pytest.raises(SecretTampered, match="does not open"):
        await keys.unwrap(await keys.wrap(new_key(), PLACE, key_id), other, key_id)


async def test_nothing_opens_under_another_key_nor_changed(keys: TransitKeys, openbao: OpenBaoServer) -> None:
    key_id = await keys.current()
    wrapped = await keys.wrap(new_key(), PLACE, key_id)
    await keys.add_key()
    with pytest.raises(SecretTampered, match="its key is not under"):
        await keys.unwrap(wrapped, PLACE, await keys.current())
    with pytest.raises(MasterKeyUnknown, match="under the master key 'k1', and this process has the key transit/"):
        await keys.unwrap(wrapped, PLACE, "k1")
    with pytest.raises(MasterKeyUnknown):
        await keys.unwrap(wrapped, PLACE, "transit:transit/another:v1")
    for broken in (wrapped[:-4], wrapped[:-8] + b"AAAAAAA=", wrapped[:12], b"vault:v1:"):
        with pytest.raises(SecretTampered):
            await keys.unwrap(broken, PLACE, key_id)


async def test_secrets_are_kept_under_it_and_rotated_while_it_is_used(keys: TransitKeys, key: str) -> None:
    room = Room(keys=keys)
    for n in range(5):
        await room.secrets.set("KEY", f"some-value-{n}")
    done = await room.secrets.rotate()
    assert (done.key_id, done.added, done.rewrapped, done.failed) == (f"transit:transit/{key}:v2", True, 5, ())
    assert {one.key_id for one in room.data.secrets.values()} == {done.key_id}
    assert await room.resolve("KEY", "KEY@1") == {"KEY": "some-value-4", "KEY@1": "some-value-0"}
    assert (await keys.describe())["ids"] == f"transit:transit/{key}:v1, transit:transit/{key}:v2"


async def test_a_version_that_it_does_not_decrypt_any_more_is_a_key_that_was_rotated_out(
    keys: TransitKeys, key: str, openbao: OpenBaoServer
) -> None:
    room = Room(keys=keys)
    await room.secrets.set("KEY", "some-value")
    await keys.add_key()
    openbao.ask("POST", f"transit/keys/{key}/config", {"min_decryption_version": 2})
    with pytest.raises(MasterKeyUnknown, match="does not open any more"):
        await room.resolve("KEY")
    openbao.ask("POST", f"transit/keys/{key}/config", {"min_decryption_version": 1})
    assert await room.resolve("KEY") == {"KEY": "some-value"}


async def test_what_it_refuses_is_told_with_what_to_do(openbao: OpenBaoServer, key: str, token: str) -> None:
    with pytest.raises(MasterKeyError, match=r"status 403: .*may its token encrypt, decrypt and read the key\?"):
        await TransitKeys(openbao.address, "wrong", key).current()
    with pytest.raises(MasterKeyError, match=r"status 404: .*make it: bao secrets enable transit"):
        await TransitKeys(openbao.address, TOKEN, f"no-{key}").current()
    with pytest.raises(MasterKeyError, match="status 403"):
        await TransitKeys(openbao.address, token, f"no-{key}").current()
    openbao.ask("POST", f"transit/keys/{key}-rsa", {"type": "rsa-2048"})
    with pytest.raises(MasterKeyError, match=r"is of type rsa-2048; .* make one of type aes256-gcm96"):
        await TransitKeys(openbao.address, TOKEN, f"{key}-rsa").current()


async def test_another_mount_and_openbaos_own_variables_are_known(
    openbao: OpenBaoServer, key: str, tmp_path: Any
) -> None:
    openbao.ask("POST", f"sys/mounts/mount-{key}", {"type": "transit"})
    openbao.ask("POST", f"mount-{key}/keys/mine", {"type": "aes256-gcm96"})
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    for environment in (
        {"BAO_ADDR": openbao.address, "BAO_TOKEN": TOKEN},
        {"VAULT_ADDR": openbao.address, "VAULT_TOKEN": TOKEN},
        {"BAO_ADDR": openbao.address, "BAO_TOKEN_FILE": str(tmp_path / "token")},
    ):
        keys = open_master_keys(f"transit:mount-{key}/mine", environment=environment)
        assert await keys.current() == f"transit:mount-{key}/mine:v1"


async def test_a_server_that_is_away_frozen_or_no_openbao_is_told(tmp_path: Any) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        await reader.read()
        await hang_up(writer)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await hang_up(writer)

    with pytest.raises(SecretsUnavailable, match=r"http://127.0.0.1:1 does not answer: .*refused"):
        await TransitKeys("http://127.0.0.1:1", "t", "k").current()
    cases = ((babble, 20.0, "status 200, and what is no JSON"), (mute, 0.3, "timed out|no answer within"))
    for talk, timeout, why in cases:
        async with pretender(talk) as address:
            with pytest.raises(SecretsUnavailable, match=why):
                await TransitKeys(f"http://{address}", "t", "k", timeout=timeout).current()


async def test_a_sealed_one_is_told_and_may_be_asked_again(openbao: OpenBaoServer) -> None:
    assert openbao.running  # or this would fail, not be skipped, where there is none
    with OpenBaoServer() as own:
        own.ask("POST", "sys/mounts/transit", {"type": "transit"})
        own.ask("POST", "transit/keys/k", {"type": "aes256-gcm96"})
        keys = TransitKeys(own.address, TOKEN, "k")
        assert await keys.current()
        own.ask("PUT", "sys/seal")
        with pytest.raises(SecretsUnavailable, match=r"status 503: .*unseal it: bao operator unseal"):
            await keys.current()


@pytest.mark.parametrize(
    ("address", "key", "why"),
    [
        ("http://10.0.0.1:8200", "k", "has to be https"),
        ("ftp://127.0.0.1", "k", "is no address of OpenBao"),
        ("127.0.0.1:8200", "k", "is no address of OpenBao"),
        ("https://bao", "../sys", "is no key of a transit engine"),
        ("https://bao", "a b", "is no key of a transit engine"),
        ("https://bao", "", "is no key of a transit engine"),
    ],
)
def test_a_wrong_address_or_key_is_told_at_once(address: str, key: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        TransitKeys(address, "t", key)


def test_without_a_token_it_is_told_where_one_goes() -> None:
    with pytest.raises(MasterKeyError, match="set BAO_TOKEN"):
        open_transit("k", {"BAO_ADDR": "https://bao"})
    with pytest.raises(MasterKeyError, match="cannot read OpenBao's token"):
        open_transit("k", {"BAO_ADDR": "https://bao", "BAO_TOKEN_FILE": "/no/such/file"})


def test_the_token_of_the_tests_may_no_more_than_it_says(openbao: OpenBaoServer, token: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        openbao.ask("GET", "sys/mounts", token=token)
