"""Who gets which values, and what is recorded of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flowkit.errors import (
    FlowKitError,
    MasterKeyUnknown,
    SecretNameError,
    SecretNotFound,
    SecretRefused,
    SecretsUnavailable,
    SecretTampered,
    SecretValueError,
    StoreUnavailable,
)
from flowkit.ports import AuditRow, Outcome, SealedSecret
from flowkit.secrets import manager
from tests.secrets.room import NOW, Room, attempt, ring


async def test_an_attempt_gets_what_its_node_lists() -> None:
    room = Room()
    await room.secrets.set("KEY", "first-value")
    await room.secrets.set("KEY", "second-value")
    await room.secrets.set("OTHER", "other-value")

    assert await room.resolve("KEY", "OTHER") == {"KEY": "second-value", "OTHER": "other-value"}
    assert await room.resolve("KEY@1", "KEY") == {"KEY@1": "first-value", "KEY": "second-value"}
    assert await room.resolve() == {}


async def test_each_use_is_recorded_with_who_when_what_and_never_a_value() -> None:
    room = Room()
    await room.secrets.set("KEY", "the-value-itself")
    room.clock.advance(5)
    await room.resolve("KEY", use=attempt(node="each[3]", attempt=2))

    done, used = await room.rows()
    assert (done.action, done.principal, done.name, done.version, done.outcome) == ("set", "ann", "KEY", 1, "ok")
    assert used == AuditRow(
        used.id, NOW + 5, "acme", "w1", "use", "KEY", 1, "ok", "etl", "task-1", "each[3]", 2, "w1"
    )  # fmt: skip
    assert "the-value-itself" not in repr(await room.rows())


@pytest.mark.parametrize(
    ("name", "listed", "error", "why"),
    [
        ("KEY", ["OTHER"], SecretRefused, "node 'load' does not list secret 'KEY'"),
        ("KEY", ["KEY@1"], SecretRefused, r"does not list secret 'KEY' \(did you mean 'KEY@1'\?\)"),
        ("NONE", ["NONE"], SecretNotFound, "there is no secret 'NONE'"),
        ("KEYS", ["KEYS"], SecretNotFound, r"there is no secret 'KEYS' \(did you mean 'KEY'\?\)"),
        ("KEY@9", ["KEY@9"], SecretNotFound, "has no version 9: its newest is 1"),
        ("A B", ["A B"], SecretNameError, "letters, digits"),
    ],
)
async def test_anything_else_is_refused_and_that_is_recorded(
    name: str, listed: list[str], error: type[FlowKitError], why: str
) -> None:
    room = Room()
    await room.secrets.set("KEY", "some-value")
    with pytest.raises(error, match=why):
        await room.resolve(name, listed=listed)
    refused = (await room.rows())[-1]
    assert (refused.action, refused.name, refused.version, refused.outcome) == ("use", name, 0, error.code)
    assert (refused.task_id, refused.node, refused.attempt, refused.worker) == ("task-1", "load", 1, "w1")


async def test_of_several_all_are_given_or_none_and_only_refusals_recorded() -> None:
    room = Room()
    await room.secrets.set("KEY", "some-value")
    with pytest.raises(SecretNotFound):
        await room.resolve("KEY", "NONE", "NOTHING")
    assert [(row.name, row.outcome) for row in (await room.rows())[1:]] == [
        ("NONE", "E_SECRET_UNKNOWN"), ("NOTHING", "E_SECRET_UNKNOWN"),
    ]  # fmt: skip


async def test_flows_and_nodes_that_a_secret_is_not_for_are_refused() -> None:
    room = Room()
    await room.secrets.set("KEY", "some-value", flows=["etl", "ops-*"], nodes=["load"])
    assert await room.resolve("KEY", use=attempt(flow="ops-nightly", node="load[7]"))
    with pytest.raises(SecretRefused, match="secret 'KEY': flow 'web' may not use it"):
        await room.resolve("KEY", use=attempt(flow="web"))
    with pytest.raises(SecretRefused, match="a task of no flow may not use it"):
        await room.resolve("KEY", use=attempt(flow=""))
    with pytest.raises(SecretRefused, match="node 'send' may not use it, only: load"):
        await room.resolve("KEY", use=attempt(node="send"))
    assert [row.outcome for row in await room.rows()] == ["ok", "ok", *["E_SECRET_REFUSED"] * 3]


async def test_an_older_version_is_for_whom_the_secret_is_for_today() -> None:
    room = Room()
    await room.secrets.set("KEY", "some-value")
    await room.secrets.set("KEY", "newer-value", flows=["etl"])
    assert await room.resolve("KEY@1") == {"KEY@1": "some-value"}
    with pytest.raises(SecretRefused):
        await room.resolve("KEY@1", use=attempt(flow="web"))


async def test_a_tenant_has_no_secrets_but_its_own() -> None:
    room = Room()
    await room.secrets.set("KEY", "of-acme-itself")
    with pytest.raises(SecretNotFound):
        await room.resolve("KEY", use=attempt("globex"))
    with pytest.raises(SecretRefused, match="an attempt of tenant 'globex' asked for a secret of tenant 'acme'"):
        await room.manager.resolve("acme", ["KEY"], attempt("globex"), listed=["KEY"])
    await room.of("globex").set("KEY", "of-globex-itself")
    assert await room.resolve("KEY", use=attempt("globex")) == {"KEY": "of-globex-itself"}
    assert {row.outcome for row in await room.rows("globex")} == {"ok", "E_SECRET_UNKNOWN", "E_SECRET_REFUSED"}


class TestWhoWritesIntoTheStore:
    """Each row of the attacks that somebody who can write into the database could try."""

    async def attacked(self, room: Room, error: type[FlowKitError] = SecretTampered, name: str = "KEY") -> None:
        room.clock.advance(1)
        with pytest.raises(error):
            await room.resolve(name)
        assert (await room.rows())[-1].outcome == error.code
        with pytest.raises(error):
            await room.secrets.reveal(name)
        assert (await room.rows())[-1].outcome == error.code

    def change(self, room: Room, version: int = 1, **fields: Any) -> None:
        key = ("acme", "KEY", version)
        room.data.secrets[key] = replace(room.data.secrets[key], **fields)

    async def a_room(self) -> Room:
        room = Room(keys=ring("k1", "k2"))
        await room.secrets.set("KEY", "first-value")
        await room.secrets.set("KEY", "second-value")
        await room.secrets.set("OTHER", "another-value")
        await room.of("globex").set("KEY", "of-globex-itself")
        return room

    async def test_nothing_of_another_tenant_opens(self) -> None:
        room = await self.a_room()
        theirs = room.data.secrets["globex", "KEY", 1]
        room.data.secrets["acme", "KEY", 3] = replace(theirs, tenant="acme", version=3)
        await self.attacked(room)

    async def test_nothing_under_another_name_opens(self) -> None:
        room = await self.a_room()
        self.change(room, 2, wrapped=(other := room.data.secrets["acme", "OTHER", 1]).wrapped, sealed=other.sealed)
        await self.attacked(room)

    async def test_no_older_version_opens_as_a_newer_one(self) -> None:
        room = await self.a_room()
        old = room.data.secrets["acme", "KEY", 1]
        self.change(room, 2, wrapped=old.wrapped, sealed=old.sealed)
        await self.attacked(room)

    async def test_no_older_value_opens_with_a_newer_key(self) -> None:
        room = await self.a_room()
        self.change(room, 2, sealed=room.data.secrets["acme", "KEY", 1].sealed)
        await self.attacked(room)

    async def test_a_version_that_vanished_is_missed(self) -> None:
        room = await self.a_room()
        del room.data.secrets["acme", "KEY", 2]
        await self.attacked(room)
        after_a_restart = Room(room.data, ring("k1", "k2"))
        await self.attacked(after_a_restart)
        view = await after_a_restart.secrets.set("KEY", "third-value")
        assert view.version == 3
        assert await after_a_restart.resolve("KEY") == {"KEY": "third-value"}

    async def test_a_deleted_secret_does_not_come_back(self) -> None:
        room = await self.a_room()
        before = {key: value for key, value in room.data.secrets.items() if key[:2] == ("acme", "KEY")}
        await room.secrets.delete("KEY")
        del room.data.secrets["acme", "KEY", 3]
        room.data.secrets.update(before)
        await self.attacked(Room(room.data, ring("k1", "k2")))

    async def test_another_key_id_opens_nothing(self) -> None:
        room = await self.a_room()
        self.change(room, 2, key_id="k2")
        await self.attacked(room)
        self.change(room, 2, key_id="k3")
        await self.attacked(room, MasterKeyUnknown)

    @pytest.mark.parametrize("field", ["wrapped", "sealed"])
    async def test_no_cut_tag_opens(self, field: str) -> None:
        room = await self.a_room()
        whole = getattr(room.data.secrets["acme", "KEY", 2], field)
        for length in (len(whole) - 1, len(whole) - 4, len(whole) - 16, 27, 1):
            self.change(room, 2, **{field: whole[:length]})
            await self.attacked(room)

    async def test_it_cannot_be_changed_who_may_use_it(self) -> None:
        room = await self.a_room()
        await room.secrets.set("KEY", "third-value", flows=["safe"])
        self.change(room, 3, allow='{"flows":[],"nodes":[]}')
        await self.attacked(room)
        self.change(room, 3, allow="no json")
        await self.attacked(room)

    async def test_a_new_version_that_the_attacker_made_lets_nobody_use_an_old_one(self) -> None:
        room = await self.a_room()
        await room.secrets.set("KEY", "third-value", flows=["safe"])
        old = room.data.secrets["acme", "KEY", 3]
        room.data.secrets["acme", "KEY", 4] = replace(old, version=4, allow='{"flows":[],"nodes":[]}')
        with pytest.raises(SecretTampered):
            await room.resolve("KEY@3", use=attempt(flow="web"))

    async def test_a_key_that_was_rotated_out_opens_nothing(self) -> None:
        room = await self.a_room()
        await self.attacked(Room(room.data, ring("k2")), MasterKeyUnknown)


class TestWeather:
    async def test_nothing_is_given_unless_it_is_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room = Room()
        await room.secrets.set("KEY", "some-value")

        async def refuse(rows: list[AuditRow]) -> list[Outcome]:
            return [Outcome.UNKNOWN] * len(rows)

        monkeypatch.setattr(room.store, "insert_audit", refuse)
        monkeypatch.setattr("flowkit.secrets.ledger.PAUSE_SEC", 0.0)
        with pytest.raises(StoreUnavailable, match="cannot be written, so nothing was given out"):
            await room.resolve("KEY")
        with pytest.raises(StoreUnavailable):
            await room.secrets.reveal("KEY")

    async def test_a_row_whose_writing_was_unclear_is_written_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room = Room()
        await room.secrets.set("KEY", "some-value")
        real, unclear = room.store.insert_audit, [True]

        async def sometimes(rows: list[AuditRow]) -> list[Outcome]:
            outcomes = await real(rows)
            return [Outcome.UNKNOWN] * len(rows) if unclear and unclear.pop() else outcomes

        monkeypatch.setattr(room.store, "insert_audit", sometimes)
        assert await room.resolve("KEY")
        assert [row.action for row in await room.rows()] == ["set", "use"]

    async def test_a_store_that_does_not_answer_is_not_waited_for_for_ever(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room = Room()

        async def hang(*args: object, **named: object) -> list[SealedSecret]:
            await asyncio.sleep(3600)
            return []

        monkeypatch.setattr(room.store, "secret_versions", hang)
        monkeypatch.setattr(manager, "RESOLVE_SEC", 0.05)
        with pytest.raises(SecretsUnavailable, match=r"not there within 0.05 s; try again"):
            await room.resolve("KEY")

    async def test_there_is_a_bound_to_what_one_attempt_gets(self) -> None:
        room = Room()
        for n in range(17):
            await room.secrets.set(f"K{n}", "x" * 65_536)
        with pytest.raises(SecretValueError, match="1048576 bytes together"):
            await room.resolve(*(f"K{n}" for n in range(17)))
        for n in range(65):
            await room.secrets.set(f"S{n}", "small-value")
        with pytest.raises(SecretValueError, match="may have 64 secrets"):
            await room.resolve(*(f"S{n}" for n in range(65)))
        assert (await room.rows())[-1].outcome == "E_SECRET_VALUE"
