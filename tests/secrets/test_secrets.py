"""Secrets as an application handles them: versions, who may use them, what is said of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flowkit.adapters.memory_secrets import MemorySecretData
from flowkit.errors import SecretNameError, SecretNotFound, SecretValueError, StoreUnavailable
from flowkit.ports import AuditRow, Outcome
from flowkit.secrets import secrets as secrets_module
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.secrets import Secrets
from flowkit.secrets.views import AuditVerdict, SecretView
from tests.secrets.room import NOW, Room, Weather, ring


async def test_a_secret_has_versions_and_the_newest_counts() -> None:
    secrets = Room().secrets
    assert await secrets.set("KEY", "first-value") == SecretView("KEY", 1, NOW, "ann", "k1")
    assert (await secrets.set("KEY", "second-value")).version == 2
    assert (await secrets.get("KEY")).version == 2
    assert (await secrets.get("KEY@1")).version == 1
    assert [one.version for one in await secrets.versions("KEY")] == [2, 1]
    assert await secrets.reveal("KEY") == "second-value"
    assert await secrets.reveal("KEY@1") == "first-value"


async def test_nothing_that_is_said_of_a_secret_has_its_value() -> None:
    room = Room()
    view = await room.secrets.set("KEY", "the-value-itself")
    said = [view, await room.secrets.get("KEY"), await room.secrets.list(), await room.secrets.audit(), room.data]
    assert "the-value-itself" not in repr(said)


async def test_a_short_value_is_taken_with_a_warning_that_says_why() -> None:
    view = await Room().secrets.set("PIN", "1234567")
    assert len(view.warnings) == 1
    assert "fewer than 8 characters, so it cannot be redacted safely" in view.warnings[0]
    assert "1234567" not in view.warnings[0]
    assert (await Room().secrets.set("KEY", "12345678")).warnings == ()
    lines = await Room().secrets.set("KEY", "-----BEGIN-----\nab\n\nMIIEvQIBADANBg\n")
    assert "1 lines of fewer than 8 characters" in lines.warnings[0]


@pytest.mark.parametrize("value", ["", b"bytes", None, "\ud800" * 8, "x" * 65_537])
async def test_a_value_that_is_none_is_refused_without_being_told(value: object) -> None:
    with pytest.raises(SecretValueError) as caught:
        await Room().secrets.set("KEY", value)  # type: ignore[arg-type]
    assert "xx" not in str(caught.value)
    assert "'KEY'" in str(caught.value)


async def test_a_wrong_name_is_refused_before_anything_is_stored() -> None:
    room = Room()
    for act in (room.secrets.set("a b", "some-value"), room.secrets.get("a/b"), room.secrets.delete("a@1")):
        with pytest.raises(SecretNameError):
            await act
    assert not room.data.secrets


async def test_who_may_use_it_stays_until_it_is_said_anew() -> None:
    secrets = Room().secrets
    await secrets.set("KEY", "some-value", flows=["etl"], nodes=["load"])
    view = await secrets.set("KEY", "newer-value", nodes=["send"])
    assert (view.flows, view.nodes) == (("etl",), ("send",))
    view = await secrets.allow("KEY", flows=[])
    assert (view.version, view.flows, view.nodes) == (3, (), ("send",))
    assert await secrets.reveal("KEY") == "newer-value"
    with pytest.raises(SecretNotFound):
        await secrets.allow("NONE", flows=["etl"])


async def test_a_deleted_secret_is_gone_with_all_versions_and_its_numbers_go_on() -> None:
    room = Room()
    await room.secrets.set("KEY", "first-value", flows=["etl"])
    await room.secrets.set("KEY", "second-value")

    assert await room.secrets.delete("KEY")
    for read in (room.secrets.get("KEY"), room.secrets.get("KEY@1"), room.secrets.reveal("KEY"), room.resolve("KEY@2")):
        with pytest.raises(SecretNotFound, match="there is no secret 'KEY'"):
            await read
    assert [one.name for one in (await room.secrets.list()).secrets] == []
    assert [one.sealed for one in room.data.secrets.values()] == [b""]
    assert not await room.secrets.delete("KEY")
    assert not await room.secrets.delete("NONE")

    again = await room.secrets.set("KEY", "another-value")
    assert (again.version, again.flows) == (4, ())
    with pytest.raises(SecretNotFound, match="has no version 3: its newest is 4"):
        await room.secrets.get("KEY@3")
    assert [one.version for one in await room.secrets.versions("KEY")] == [4]


@pytest.mark.parametrize("finish", ["delete", "set"])
async def test_a_deletion_that_broke_off_is_done_by_the_next_and_by_a_new_value(
    monkeypatch: pytest.MonkeyPatch, finish: str
) -> None:
    room = Room()
    await room.secrets.set("KEY", "some-value")

    async def fail(*args: object, **named: object) -> Outcome:
        return Outcome.UNKNOWN

    with monkeypatch.context() as patch:
        patch.setattr("flowkit.secrets.cabinet.LONGEST_PAUSE_SEC", 0.0)
        patch.setattr(room.store, "destroy_secrets", fail)
        with pytest.raises(StoreUnavailable, match="could not be removed; delete it again"):
            await room.secrets.delete("KEY")
    with pytest.raises(SecretNotFound):
        await room.secrets.get("KEY@1")
    assert ("acme", "KEY", 1) in room.data.secrets

    if finish == "delete":
        assert not await room.secrets.delete("KEY")
    else:
        assert (await room.secrets.set("KEY", "another-value")).version == 3
        with pytest.raises(SecretNotFound, match="has no version 1"):
            await room.secrets.reveal("KEY@1")
    assert ("acme", "KEY", 1) not in room.data.secrets


async def test_older_versions_can_be_deleted_and_the_newest_stays() -> None:
    secrets = Room().secrets
    for n in range(4):
        await secrets.set("KEY", f"some-value-{n}")
    assert await secrets.delete("KEY", below=3)
    assert [one.version for one in await secrets.versions("KEY")] == [4, 3]
    assert await secrets.delete("KEY", below=99)
    assert [one.version for one in await secrets.versions("KEY")] == [4]
    assert (await secrets.set("KEY", "some-value")).version == 5


async def test_secrets_come_in_pages_without_deleted_ones() -> None:
    secrets = Room().secrets
    for n in range(7):
        await secrets.set(f"K{n}", "some-value")
    await secrets.delete("K1")
    await secrets.delete("K6")

    names, cursor = [], None
    while True:
        page = await secrets.list(limit=2, cursor=cursor)
        assert len(page.secrets) <= 2
        names += [one.name for one in page.secrets]
        if (cursor := page.cursor) is None:
            break
    assert names == ["K0", "K2", "K3", "K4", "K5"]


async def test_what_was_done_is_told_newest_first_in_pages() -> None:
    room = Room()
    for n in range(5):
        room.clock.advance(1)
        await room.secrets.set("KEY", f"some-value-{n}")
    await room.secrets.reveal("KEY")
    first = await room.secrets.audit(limit=4)
    rest = await room.secrets.audit(limit=4, cursor=first.cursor)
    assert [row.version for row in [*first.rows, *rest.rows]] == [5, 5, 4, 3, 2, 1]
    assert first.rows[0].action == "reveal"
    assert rest.cursor is None
    assert [row.action for row in (await room.secrets.audit("OTHER")).rows] == []
    with pytest.raises(ValueError, match="is not a cursor"):
        await room.secrets.audit(cursor="x")


async def test_those_who_set_at_the_same_time_each_get_a_version() -> None:
    data = MemorySecretData()
    rooms = [Room(data) for _ in range(8)]
    views = await asyncio.gather(*(room.secrets.set("KEY", f"value-of-{n}") for n, room in enumerate(rooms)))
    assert sorted(view.version for view in views) == list(range(1, 9))
    for n, view in enumerate(views):
        assert await rooms[0].secrets.reveal(f"KEY@{view.version}") == f"value-of-{n}"


@pytest.mark.parametrize(("answers", "writes"), [(1, 0), (0, 3), (2, 2)])
async def test_a_write_whose_outcome_is_unknown_makes_no_second_version(answers: int, writes: int) -> None:
    room, store = Room(), Weather()
    secrets = Secrets(SecretManager(store, ring("k1"), room.clock), tenant="acme", principal="ann")
    store.lost_answers, store.lost_writes = answers, writes
    view = await secrets.set("KEY", "some-value")
    assert view.version == 1
    assert [one.version for one in await secrets.versions("KEY")] == [1]
    assert await secrets.reveal("KEY") == "some-value"


async def test_a_store_that_never_answers_clearly_is_told() -> None:
    room, store = Room(), Weather()
    store.lost_writes = 10**6
    secrets = Secrets(SecretManager(store, ring("k1"), room.clock))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowkit.secrets.cabinet.LONGEST_PAUSE_SEC", 0.0)
        with pytest.raises(StoreUnavailable, match="could not be confirmed to be stored; try again"):
            await secrets.set("KEY", "some-value")


async def test_the_record_tells_what_was_touched_and_of_whom() -> None:
    room = Room()
    for number in range(3):
        await room.secrets.set("KEY", f"value number {number}")
    await room.of("else").set("KEY", "another tenant's")
    verdict = await room.secrets.verify_audit()
    assert (verdict.rows, verdict.problem, verdict.older) == (3, "", False)
    assert (await room.of("else").verify_audit()).rows == 1
    assert (await room.of("nobody").verify_audit(None)) == AuditVerdict(0, "0:", "")

    _, second, third = await room.rows()
    room.data.audit[second.id] = replace(second, principal="eve")
    assert (await room.secrets.verify_audit()).problem == "row 2 was changed (set 'KEY' by 'eve')"
    room.data.audit[second.id] = second
    del room.data.audit[third.id]
    assert (await room.secrets.verify_audit()).problem == ""
    assert (await room.secrets.verify_audit(verdict.last)).problem.startswith("row 3 was removed, with all behind it")
    for wrong in ("3", "x:" + 64 * "a", "3:abc"):
        with pytest.raises(ValueError, match="NUMBER:DIGEST"):
            await room.secrets.verify_audit(wrong)


async def test_rows_from_before_there_were_chains_are_told_of_and_later_ones_are_not_believed() -> None:
    room = Room()
    room.data.audit["old"] = AuditRow("old", NOW - 1.0, "acme", "ann", "set", "KEY", 1)
    await room.secrets.set("KEY", "a value of it")
    verdict = await room.secrets.verify_audit()
    assert (verdict.rows, verdict.problem, verdict.older) == (1, "", True)

    room.data.audit["evil"] = AuditRow("evil", NOW + 1.0, "acme", "eve", "use", "KEY", 1)
    assert "outside of the chain (use 'KEY' by 'eve')" in (await room.secrets.verify_audit()).problem


async def test_a_chain_of_many_rows_is_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets_module, "LARGEST_PAGE", 4)
    room = Room()
    for number in range(10):
        await room.secrets.set("KEY", f"value number {number}")
    assert (await room.secrets.verify_audit()).rows == 10

    rows = await room.rows()
    room.data.audit["zzz"] = replace(rows[3], id="zzz", principal="eve")  # the last one of a page
    assert (await room.secrets.verify_audit()).problem.startswith("row 4 was inserted (set 'KEY' by 'eve')")
