"""Whoever can write into a database makes no secret of it open that should not, whichever database it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("cryptography")

from flowkit.clock import ManualClock
from flowkit.errors import FlowKitError, MasterKeyUnknown, SecretNotFound, SecretTampered
from flowkit.ports import AuditFilter, Outcome, Rewrap, SealedSecret, SecretStore
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.secrets import Secrets
from tests.secrets.room import NOW, attempt, ring

Attack = Callable[[SecretStore, SealedSecret], Awaitable[Outcome]]


async def versions(store: SecretStore, name: str = "KEY", tenant: str = "acme") -> list[SealedSecret]:
    return await store.secret_versions(tenant, name, limit=10)


async def of_another_tenant(store: SecretStore, newest: SealedSecret) -> Outcome:
    (theirs,) = await versions(store, tenant="globex")
    return await store.insert_secret(replace(theirs, tenant="acme", version=newest.version + 1))


async def of_another_name(store: SecretStore, newest: SealedSecret) -> Outcome:
    (other,) = await versions(store, "OTHER")
    return await store.insert_secret(replace(other, name="KEY", version=newest.version + 1))


async def an_older_version_as_the_newest(store: SecretStore, newest: SealedSecret) -> Outcome:
    old = (await versions(store))[-1]
    return await store.insert_secret(replace(old, version=newest.version + 1))


async def an_older_value_with_the_newest_key(store: SecretStore, newest: SealedSecret) -> Outcome:
    old = (await versions(store))[-1]
    return await store.insert_secret(replace(newest, version=newest.version + 1, sealed=old.sealed))


async def for_more_flows(store: SecretStore, newest: SealedSecret) -> Outcome:
    wider = replace(newest, version=newest.version + 1, allow='{"flows":[],"nodes":[]}')
    return await store.insert_secret(wider)


async def under_another_key_id(store: SecretStore, newest: SealedSecret) -> Outcome:
    return await store.rewrap_secret(Rewrap(newest, "k2", newest.wrapped))


async def the_key_of_another(store: SecretStore, newest: SealedSecret) -> Outcome:
    (other,) = await versions(store, "OTHER")
    return await store.rewrap_secret(Rewrap(newest, newest.key_id, other.wrapped))


async def a_newer_one_that_vanished(store: SecretStore, newest: SealedSecret) -> Outcome:
    """The record tells of one that the collection does not have."""
    rows = await store.list_audit(AuditFilter("acme", "KEY"), limit=1)
    return (await store.insert_audit([replace(rows[0], id="00-later", version=newest.version + 3)]))[0]


def cut(field: str, length: int) -> Attack:
    async def attack(store: SecretStore, newest: SealedSecret) -> Outcome:
        whole: bytes = getattr(newest, field)
        return await store.insert_secret(replace(newest, version=newest.version + 1, **{field: whole[:length]}))

    attack.__name__ = f"{field} cut to [:{length}]"
    return attack


ATTACKS: list[Attack] = [
    of_another_tenant, of_another_name, an_older_version_as_the_newest, an_older_value_with_the_newest_key,
    for_more_flows, under_another_key_id, the_key_of_another, a_newer_one_that_vanished,
    *(cut(field, length) for field in ("sealed", "wrapped") for length in (-1, -4, -16, 12)),
]  # fmt: skip


async def filled(store: Any) -> tuple[SecretStore, SecretManager]:
    """`acme` has two versions of `KEY` and an `OTHER`, `globex` a `KEY` of its own."""
    secrets: SecretStore = store.secrets
    await secrets.start()
    manager = SecretManager(secrets, ring("k1", "k2"), ManualClock(NOW))
    acme, globex = (Secrets(manager, tenant=tenant, principal="ann") for tenant in ("acme", "globex"))
    await acme.set("KEY", "first-value", flows=["safe"])
    await acme.set("KEY", "second-value", flows=["safe"])
    await acme.set("OTHER", "another-value", flows=["safe"])
    await globex.set("KEY", "of-globex-itself")
    return secrets, manager


async def refused(manager: SecretManager, error: type[FlowKitError], tenant: str = "acme") -> None:
    use = attempt(tenant, flow="safe")
    with pytest.raises(error):
        await manager.resolve(tenant, ["KEY"], use, listed=["KEY"])
    rows = await manager.cabinet.store.list_audit(AuditFilter(tenant, "KEY"), limit=5)
    assert error.code in {row.outcome for row in rows if row.action == "use"}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_what_an_attacker_writes_opens_nothing_and_the_try_is_on_record(store: Any, attack: Attack) -> None:
    secrets, manager = await filled(store)
    use = attempt("acme", flow="safe")
    good = await manager.resolve("acme", ["KEY"], use, listed=["KEY"])
    assert good.values == {"KEY": "second-value"}

    assert await attack(secrets, (await versions(secrets))[0]) is Outcome.OK

    await refused(manager, SecretTampered)
    # One that was started since, and remembers nothing, is not taken in either.
    await refused(SecretManager(secrets, ring("k1", "k2"), ManualClock(NOW)), SecretTampered)


async def test_a_key_that_was_rotated_out_opens_nothing(store: Any) -> None:
    secrets, _ = await filled(store)
    await refused(SecretManager(secrets, ring("k2"), ManualClock(NOW)), MasterKeyUnknown)


async def test_another_tenant_has_none_of_them(store: Any) -> None:
    _, manager = await filled(store)
    await refused(manager, SecretNotFound, "initech")
