"""Whoever can write into a database makes no secret of it open that should not, whichever database it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
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


async def versions(store: SecretStore, tenant: str, name: str = "KEY") -> list[SealedSecret]:
    return await store.secret_versions(tenant, name, limit=10)


async def of_another_tenant(store: SecretStore, newest: SealedSecret) -> Outcome:
    (theirs,) = await versions(store, f"not {newest.tenant}")
    return await store.insert_secret(replace(theirs, tenant=newest.tenant, version=newest.version + 1))


async def of_another_name(store: SecretStore, newest: SealedSecret) -> Outcome:
    (other,) = await versions(store, newest.tenant, "OTHER")
    return await store.insert_secret(replace(other, name="KEY", version=newest.version + 1))


async def an_older_version_as_the_newest(store: SecretStore, newest: SealedSecret) -> Outcome:
    old = (await versions(store, newest.tenant))[-1]
    return await store.insert_secret(replace(old, version=newest.version + 1))


async def an_older_value_with_the_newest_key(store: SecretStore, newest: SealedSecret) -> Outcome:
    old = (await versions(store, newest.tenant))[-1]
    return await store.insert_secret(replace(newest, version=newest.version + 1, sealed=old.sealed))


async def for_more_flows(store: SecretStore, newest: SealedSecret) -> Outcome:
    wider = replace(newest, version=newest.version + 1, allow='{"flows":[],"nodes":[]}')
    return await store.insert_secret(wider)


async def under_another_key_id(store: SecretStore, newest: SealedSecret) -> Outcome:
    return await store.rewrap_secret(Rewrap(newest, "k2", newest.wrapped))


async def the_key_of_another(store: SecretStore, newest: SealedSecret) -> Outcome:
    (other,) = await versions(store, newest.tenant, "OTHER")
    return await store.rewrap_secret(Rewrap(newest, newest.key_id, other.wrapped))


def cut(field: str, length: int) -> Attack:
    async def attack(store: SecretStore, newest: SealedSecret) -> Outcome:
        whole: bytes = getattr(newest, field)
        return await store.insert_secret(replace(newest, version=newest.version + 1, **{field: whole[:length]}))

    attack.__name__ = f"{field} cut to [:{length}]"
    return attack


ATTACKS: list[Attack] = [
    of_another_tenant, of_another_name, an_older_version_as_the_newest, an_older_value_with_the_newest_key,
    for_more_flows, under_another_key_id, the_key_of_another,
    *(cut(field, length) for field in ("sealed", "wrapped") for length in (-1, -4, -16, 12)),
]  # fmt: skip


async def filled(store: SecretStore, tenant: str) -> SecretManager:
    """The tenant has two versions of `KEY` and an `OTHER`, another a `KEY` of its own."""
    manager = SecretManager(store, ring("k1", "k2"), ManualClock(NOW))
    ours, theirs = (Secrets(manager, tenant=one, principal="ann") for one in (tenant, f"not {tenant}"))
    await ours.set("KEY", "first-value", flows=["safe"])
    await ours.set("KEY", "second-value", flows=["safe"])
    await ours.set("OTHER", "another-value", flows=["safe"])
    await theirs.set("KEY", "of-another-itself")
    good = await resolved(manager, tenant)
    assert good == {"KEY": "second-value"}
    return manager


async def resolved(manager: SecretManager, tenant: str) -> Mapping[str, str]:
    return (await manager.resolve(tenant, ["KEY"], attempt(tenant, flow="safe"), listed=["KEY"])).values


async def refused(manager: SecretManager, tenant: str, error: type[FlowKitError], what: str) -> None:
    """A try to use it is, and that is on record."""
    try:
        pytest.fail(f"{what}: it opened: {await resolved(manager, tenant)}")
    except FlowKitError as raised:
        assert isinstance(raised, error), f"{what}: {raised!r}"
    rows = await manager.cabinet.store.list_audit(AuditFilter(tenant, "KEY"), limit=10)
    assert error.code in {row.outcome for row in rows if row.action == "use"}, what


async def test_what_an_attacker_writes_opens_nothing_and_the_try_is_on_record(store: Any) -> None:
    secrets: SecretStore = store.secrets
    await secrets.start()
    for number, attack in enumerate(ATTACKS):
        tenant, what = f"acme{number}", attack.__name__
        manager = await filled(secrets, tenant)
        assert await attack(secrets, (await versions(secrets, tenant))[0]) is Outcome.OK, what

        await refused(manager, tenant, SecretTampered, what)
        # One that was started since, and remembers nothing, is not taken in either.
        await refused(SecretManager(secrets, ring("k1", "k2"), ManualClock(NOW)), tenant, SecretTampered, what)


async def test_what_vanished_what_another_has_and_what_is_under_a_key_that_was_rotated_out_is_refused(
    store: Any,
) -> None:
    secrets: SecretStore = store.secrets
    await secrets.start()
    await filled(secrets, "acme")

    await refused(SecretManager(secrets, ring("k2"), ManualClock(NOW)), "acme", MasterKeyUnknown, "rotated out")
    fresh = SecretManager(secrets, ring("k1", "k2"), ManualClock(NOW))
    await refused(fresh, "initech", SecretNotFound, "another tenant")
    # What the record tells of, and the collection does not have, was taken away.
    told = [row for row in await secrets.list_audit(AuditFilter("acme", "KEY"), limit=9) if row.action == "set"]
    assert await secrets.insert_audit([replace(told[0], id="00-later", version=5)]) == [Outcome.OK]
    await refused(fresh, "acme", SecretTampered, "vanished")
