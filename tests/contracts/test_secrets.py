"""What every `SecretStore` promises, asked of every backend."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flowkit.ports import AuditFilter, AuditRow, Outcome, Rewrap, SealedSecret, SecretStore
from flowkit.wire.audit import Check, digest_of

OK, DUPLICATE, NO_MATCH, UNKNOWN = Outcome.OK, Outcome.DUPLICATE, Outcome.NO_MATCH, Outcome.UNKNOWN


def secret(name: str, version: int, **fields: Any) -> SealedSecret:
    defaults = {
        "tenant": "t", "key_id": "k1", "wrapped": b"\x00wrapped", "sealed": b"\xffsealed", "allow": '{"flows":[]}',
        "created_at": 1_700_000_000.25, "principal": "ann \u00fc",
    }  # fmt: skip
    return SealedSecret(name=name, version=version, **{**defaults, **fields})


def grave(name: str, version: int) -> SealedSecret:
    return secret(name, version, key_id="", wrapped=b"", sealed=b"")


def row(id: str, at: float, **fields: Any) -> AuditRow:
    defaults = {"tenant": "t", "principal": "w1", "action": "use", "name": "KEY"}
    return AuditRow(id=id, at=at, **{**defaults, **fields})


@pytest.fixture
async def secrets(store: Any) -> SecretStore:
    await store.secrets.start()
    await store.secrets.start()  # again is harmless
    found: SecretStore = store.secrets
    return found


class TestSecrets:
    async def test_a_version_comes_back_as_it_was(self, secrets: SecretStore) -> None:
        assert await secrets.insert_secret(secret("KEY", 1)) is OK
        assert await secrets.secret_versions("t", "KEY", limit=10) == [secret("KEY", 1)]

    async def test_a_version_is_never_given_twice(self, secrets: SecretStore) -> None:
        await secrets.insert_secret(secret("KEY", 1))
        assert await secrets.insert_secret(secret("KEY", 1, sealed=b"other")) is DUPLICATE
        assert await secrets.insert_secret(secret("KEY", 1, tenant="u")) is OK
        assert (await secrets.secret_versions("t", "KEY", limit=1))[0].sealed == b"\xffsealed"

    async def test_versions_come_newest_first_and_below_one(self, secrets: SecretStore) -> None:
        for version in (2, 10, 1, 9):
            await secrets.insert_secret(secret("KEY", version))
        await secrets.insert_secret(secret("KEY", 11, tenant="u"))
        await secrets.insert_secret(secret("KEY2", 12))

        def numbers(found: list[SealedSecret]) -> list[int]:
            return [one.version for one in found]

        assert numbers(await secrets.secret_versions("t", "KEY", limit=10)) == [10, 9, 2, 1]
        assert numbers(await secrets.secret_versions("t", "KEY", limit=2, before=10)) == [9, 2]
        assert await secrets.secret_versions("t", "NONE", limit=2) == []

    async def test_the_newest_of_each_come_in_order_of_names_deleted_ones_too(self, secrets: SecretStore) -> None:
        for one in (secret("B", 1), secret("B", 2), secret("A", 7), secret("_C", 1), grave("D", 3), secret("D", 2)):
            await secrets.insert_secret(one)
        await secrets.insert_secret(secret("Z", 1, tenant="u"))

        assert await secrets.newest_secrets("t", limit=10) == [
            secret("A", 7), secret("B", 2), grave("D", 3), secret("_C", 1),
        ]  # fmt: skip
        assert await secrets.newest_secrets("t", limit=1, after="A") == [secret("B", 2)]

    async def test_what_is_under_other_keys_is_found_in_order(self, secrets: SecretStore) -> None:
        for one in (secret("B", 1, tenant="u"), secret("B", 2), secret("B", 1), secret("A", 3), grave("A", 4)):
            await secrets.insert_secret(one)
        await secrets.insert_secret(secret("C", 1, key_id="k2"))
        await secrets.insert_secret(secret("B", 10))

        found = await secrets.secrets_of_other_keys("k2", limit=3)
        assert found == [secret("A", 3), secret("B", 1), secret("B", 2)]
        after = await secrets.secrets_of_other_keys("k2", limit=3, after=("t", "B", 2))
        assert after == [secret("B", 10), secret("B", 1, tenant="u")]
        assert await secrets.secrets_of_other_keys("k1", limit=9) == [secret("C", 1, key_id="k2")]

    async def test_only_the_key_of_a_version_is_replaced_and_only_as_it_was(self, secrets: SecretStore) -> None:
        await secrets.insert_secret(secret("KEY", 1))

        assert await secrets.rewrap_secret(Rewrap(secret("KEY", 1), "k2", b"new")) is OK
        changed = secret("KEY", 1, key_id="k2", wrapped=b"new")
        assert await secrets.secret_versions("t", "KEY", limit=1) == [changed]
        assert await secrets.rewrap_secret(Rewrap(secret("KEY", 1), "k3", b"late")) is NO_MATCH
        assert await secrets.rewrap_secret(Rewrap(replace(changed, wrapped=b"x"), "k3", b"late")) is NO_MATCH
        assert await secrets.rewrap_secret(Rewrap(secret("KEY", 2), "k3", b"none")) is NO_MATCH
        assert await secrets.secret_versions("t", "KEY", limit=9) == [changed]

    async def test_versions_below_one_are_destroyed(self, secrets: SecretStore) -> None:
        for one in (secret("KEY", 1), secret("KEY", 2), grave("KEY", 3), secret("KEY", 1, tenant="u"), secret("K", 1)):
            await secrets.insert_secret(one)

        assert await secrets.destroy_secrets("t", "KEY", below=3) is OK
        assert await secrets.destroy_secrets("t", "KEY", below=3) is OK
        assert await secrets.secret_versions("t", "KEY", limit=9) == [grave("KEY", 3)]
        assert await secrets.secret_versions("u", "KEY", limit=9) == [secret("KEY", 1, tenant="u")]
        assert await secrets.secret_versions("t", "K", limit=9) == [secret("K", 1)]

    async def test_what_no_backend_keeps_is_kept_by_none(self, secrets: SecretStore) -> None:
        assert await secrets.insert_secret(secret("KEY", 1, principal="\ud800")) is UNKNOWN
        assert await secrets.insert_secret(secret("KEY", 1, sealed=b"x" * 600_000)) is UNKNOWN
        assert await secrets.insert_secret(secret("KEY", 2**70)) is UNKNOWN
        assert await secrets.secret_versions("t", "KEY", limit=9) == []


class TestAudit:
    async def test_a_row_comes_back_as_it_was(self, secrets: SecretStore) -> None:
        full = AuditRow("id1", 1_700_000_000.123456, "t", "ann \u00fc", "use", "KEY", 3, "E_SECRET_REFUSED", "etl",
                        "task", "each[3]", 2, "w1", "why not")  # fmt: skip
        assert await secrets.insert_audit([full]) == [OK]
        assert await secrets.list_audit(AuditFilter("t"), limit=9) == [full]

    async def test_nothing_is_written_twice_and_nothing_over_another(self, secrets: SecretStore) -> None:
        assert await secrets.insert_audit([]) == []
        assert await secrets.insert_audit([row("a", 1.0), row("b", 2.0)]) == [OK, OK]
        rows = [row("c", 3.0), row("a", 9.0, name="OTHER"), row("d", 4.0, note="\ud800")]
        assert await secrets.insert_audit(rows) == [OK, DUPLICATE, UNKNOWN]
        found = await secrets.list_audit(AuditFilter("t"), limit=9)
        assert found == [row("c", 3.0), row("b", 2.0), row("a", 1.0)]

    async def test_rows_come_newest_first_by_filter_and_page(self, secrets: SecretStore) -> None:
        rows = [
            row("a", 1.0, action="set"), row("b", 2.0), row("c", 2.0, name="OTHER"), row("d", 2.0),
            row("e", 3.0, outcome="E_TICKET"), row("f", 9.0, tenant="u"),
        ]  # fmt: skip
        await secrets.insert_audit(rows)

        async def ids(where: AuditFilter, limit: int = 9, after: tuple[float, str] | None = None) -> str:
            return "".join(one.id for one in await secrets.list_audit(where, limit=limit, after=after))

        assert await ids(AuditFilter("t")) == "edcba"
        assert await ids(AuditFilter("t"), 2) == "ed"
        assert await ids(AuditFilter("t"), 9, (2.0, "d")) == "cba"
        assert await ids(AuditFilter("t", "KEY")) == "edba"
        assert await ids(AuditFilter("t", "KEY", ("set", "delete"))) == "a"
        assert await ids(AuditFilter("t", outcome="ok")) == "dcba"
        assert await ids(AuditFilter("u", "KEY", ("use",), "ok"), 1) == "f"

    async def test_rows_are_chained_by_tenant_in_the_order_in_which_they_came(self, secrets: SecretStore) -> None:
        await secrets.insert_audit([row("a", 5.0), row("b", 1.0, tenant="u"), row("c", 3.0)])
        again = [row("c", 3.0), row("d", 9.0, note="\ud800"), row("e", 2.0), row("a", 5.0)]
        assert await secrets.insert_audit(again) == [DUPLICATE, UNKNOWN, OK, DUPLICATE]

        chain = await secrets.read_chain("t", after=0, limit=9)
        assert [(one.seq, one.id) for one in chain] == [(1, "a"), (2, "c"), (3, "e")]
        assert [one.previous for one in chain] == ["", chain[0].digest, chain[1].digest]
        assert [one.digest for one in chain] == [digest_of(one) for one in chain]
        assert [one.id for one in await secrets.read_chain("t", after=1, limit=1)] == ["c"]
        assert [one.seq for one in await secrets.read_chain("u", after=0, limit=9)] == [1]
        assert await secrets.list_audit(AuditFilter("t", loose=True), limit=9) == []

    async def test_those_who_write_at_the_same_time_make_one_chain(self, secrets: SecretStore) -> None:
        batches = [[row(f"{n}.{k}", 1.0 * n) for k in range(3)] for n in range(20)]
        outcomes = await asyncio.gather(*map(secrets.insert_audit, batches))
        assert {outcome for found in outcomes for outcome in found} == {OK}

        check = Check()
        check.take(await secrets.read_chain("t", after=0, limit=99))
        assert (check.problem, check.rows) == ("", 60)
