"""A rotation brings everything under the new key, whatever happens meanwhile, and whenever it breaks off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flowkit.adapters.memory_secrets import MemorySecretData, MemorySecrets
from flowkit.errors import MasterKeyError, StoreUnavailable
from flowkit.ports import Outcome, Rewrap, SealedSecret
from flowkit.secrets.envelope import Place
from flowkit.secrets.key_file import FileKeys, make_key_file
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.master_keys import Ring, StaticKeys
from flowkit.secrets.rotation import rotate
from flowkit.secrets.secrets import Secrets
from tests.secrets.room import KEY_1, KEY_2, Room, attempt, ring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_key_file(tmp_path / "keys")
    return tmp_path / "keys"


async def filled(room: Room, count: int = 12) -> dict[tuple[str, str], str]:
    """Secrets of two tenants, some with two versions, one deleted; the values by (tenant, ref)."""
    values = {}
    for n in range(count):
        for tenant in ("acme", "globex"):
            for version in range(1, 2 + n % 2):
                values[tenant, f"K{n}@{version}"] = value = f"value-{tenant}-{n}-{version}"
                await room.of(tenant).set(f"K{n}", value)
    await room.secrets.set("GONE", "gone-value")
    await room.secrets.delete("GONE")
    return values


async def whole(room: Room, values: dict[tuple[str, str], str]) -> bool:
    return all([await room.of(tenant).reveal(ref) == value for (tenant, ref), value in values.items()])


def key_ids(data: MemorySecretData) -> set[str]:
    return {secret.key_id for secret in data.secrets.values() if not secret.deleted}


async def test_all_versions_of_all_tenants_come_under_a_new_key_and_open(path: Path) -> None:
    room = Room(keys=FileKeys(path))
    values = await filled(room)
    sealed = {key: secret.sealed for key, secret in room.data.secrets.items()}
    old = next(iter(key_ids(room.data)))

    done = await room.secrets.rotate()
    assert (done.added, done.rewrapped, done.failed) == (True, len(values), ())
    assert key_ids(room.data) == {done.key_id} != {old}
    assert {key: secret.sealed for key, secret in room.data.secrets.items()} == sealed
    assert await whole(room, values)
    row = (await room.rows(name="*"))[-1]
    assert (row.action, row.note) == ("rotate", f"{len(values)} versions under {done.key_id}, 0 failed")

    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(f"{old} ")))
    assert await whole(Room(room.data, FileKeys(path)), values)


async def test_rotating_again_makes_another_key_and_a_static_ring_rotates_to_its_first(path: Path) -> None:
    room = Room(keys=FileKeys(path))
    values = await filled(room, 2)
    assert (await room.secrets.rotate()).key_id != (await room.secrets.rotate()).key_id
    assert await whole(room, values)

    static = Room()
    values = await filled(static, 2)
    later = Room(static.data, ring("k2", "k1"))
    done = await later.secrets.rotate()
    assert (done.added, done.key_id, done.rewrapped) == (False, "k2", len(values))
    assert await whole(Room(static.data, ring("k2")), values)
    with pytest.raises(MasterKeyError, match="no key can be added to the ring from here"):
        await later.secrets.rotate()


class Dying(MemorySecrets):
    """The process dies at its n-th change of a key, before or after it was made."""

    def __init__(self, data: MemorySecretData, at: int, *, after: bool) -> None:
        super().__init__(data)
        self.left, self.after = at, after

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        outcome = await super().rewrap_secret(rewrap)
        if self.left == 0:
            raise KeyboardInterrupt
        return outcome


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 7, 13])
async def test_a_rotation_that_died_anywhere_is_gone_on_with_under_the_same_key(
    path: Path, at: int, after: bool
) -> None:
    room = Room(keys=FileKeys(path))
    values = await filled(room, 5)
    manager = SecretManager(Dying(room.data, at, after=after), FileKeys(path), room.clock)
    with pytest.raises(KeyboardInterrupt):
        await rotate(manager.cabinet, at_once=4)
    assert len(key_ids(room.data)) == (1 if at == 1 and not after else 2)
    assert await whole(Room(room.data, FileKeys(path)), values)

    keys = len((await FileKeys(path).describe())["ids"].split(","))
    done = await Room(room.data, FileKeys(path)).secrets.rotate()
    assert (done.added, done.rewrapped) == (False, len(values) - at + (not after))
    assert key_ids(room.data) == {done.key_id}
    assert len((await FileKeys(path).describe())["ids"].split(",")) == keys
    assert await whole(Room(room.data, FileKeys(path)), values)


async def test_secrets_are_set_used_and_deleted_while_it_rotates_and_none_is_lost(path: Path) -> None:
    """By processes of their own, which read the key file when it changes."""
    room = Room(keys=FileKeys(path))
    values = await filled(room, 20)
    done = asyncio.Event()
    fresh: dict[tuple[str, str], str] = {}

    async def busy(number: int) -> None:
        own = Room(room.data, FileKeys(path))
        n = 0
        while not done.is_set() or n < 5:
            value = f"fresh-value-{number}-{n}"
            view = await own.secrets.set(f"F{number}", value)
            fresh["acme", f"F{number}@{view.version}"] = value
            assert await own.resolve("K1", use=attempt()) == {"K1": "value-acme-1-2"}
            await own.secrets.set(f"D{number}", "to-be-deleted")
            await own.secrets.delete(f"D{number}")
            n += 1

    async def rotating() -> None:
        for _ in range(3):
            assert (await Room(room.data, FileKeys(path)).secrets.rotate(new_key=True)).failed == ()
        done.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(rotating())
        for number in range(3):
            group.create_task(busy(number))

    last = await Room(room.data, FileKeys(path)).secrets.rotate(new_key=False)
    assert key_ids(room.data) == {last.key_id}
    assert last.rewrapped == 0
    assert await whole(Room(room.data, FileKeys(path)), values | fresh)


async def test_what_was_sealed_before_a_rotation_and_is_inserted_after_it_comes_under_the_new_key_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(keys=FileKeys(path))
    real = room.store.insert_secret

    async def late(secret: SealedSecret) -> Outcome:
        await Room(room.data, FileKeys(path)).secrets.rotate(new_key=True)
        return await real(secret)

    monkeypatch.setattr(room.store, "insert_secret", late)
    await room.secrets.set("KEY", "some-value")
    assert key_ids(room.data) == {await FileKeys(path).current()}
    assert await whole(Room(room.data, FileKeys(path)), {("acme", "KEY"): "some-value"})


async def test_a_change_that_is_never_confirmed_is_told() -> None:
    room = Room()
    await filled(room, 1)

    class Fog(MemorySecrets):
        async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
            return Outcome.UNKNOWN

    done = await Secrets(SecretManager(Fog(room.data), ring("k2", "k1"), room.clock)).rotate()
    assert done.failed == (
        "acme: secret 'K0', version 1: its change was not confirmed; rotate again",
        "globex: secret 'K0', version 1: its change was not confirmed; rotate again",
    )


async def test_a_key_that_another_adds_meanwhile_counts_for_all(path: Path) -> None:
    room = Room(keys=FileKeys(path))
    values = await filled(room, 3)

    class Interrupted(MemorySecrets):
        left = len(values)

        async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
            outcome = await super().rewrap_secret(rewrap)
            Interrupted.left -= 1
            if Interrupted.left == 0:
                await FileKeys(path).add_key()
            return outcome

    done = await rotate(SecretManager(Interrupted(room.data), FileKeys(path), room.clock).cabinet)
    assert key_ids(room.data) == {await FileKeys(path).current()} == {done.key_id}
    assert done.rewrapped == 2 * len(values)
    assert await whole(Room(room.data, FileKeys(path)), values)


async def test_what_was_wrapped_wrong_is_not_written() -> None:
    room = Room()
    values = await filled(room, 3)

    class Broken(StaticKeys):
        async def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
            return await super().wrap(bytes(32), place, key_id)

    keys = Broken(Ring({"k2": KEY_2, "k1": KEY_1}, "the ring"))
    done = await Secrets(SecretManager(room.store, keys, room.clock)).rotate()
    assert done.rewrapped == 0
    assert len(done.failed) == len(values)
    assert all("what was wrapped under k2 does not open again; nothing was changed" in one for one in done.failed)
    assert await whole(room, values)


async def test_two_that_rotate_at_once_do_no_harm(path: Path) -> None:
    room = Room(keys=FileKeys(path))
    values = await filled(room)
    rotations = (Room(room.data, FileKeys(path)).secrets.rotate(new_key=True) for _ in range(3))
    done = await asyncio.gather(*rotations)
    assert [one.failed for one in done] == [()] * 3
    assert (await Room(room.data, FileKeys(path)).secrets.rotate(new_key=False)).failed == ()
    assert len(key_ids(room.data)) == 1
    assert await whole(room, values)


async def test_what_does_not_open_is_told_and_the_others_go_on() -> None:
    room = Room()
    values = await filled(room, 3)
    room.data.secrets.update(
        {
            ("acme", "BAD", 1): (one := room.data.secrets["acme", "K0", 1]).__class__(
                "acme", "BAD", 1, "k1", one.wrapped, one.sealed, one.allow, 0.0, "x"
            ),
            ("acme", "LOST", 1): one.__class__("acme", "LOST", 1, "k0", one.wrapped, one.sealed, one.allow, 0.0, "x"),
        }
    )
    later = Room(room.data, ring("k2", "k1"))
    done = await later.secrets.rotate()
    assert done.rewrapped == len(values)
    assert [failure.partition(":")[2].rpartition("[")[2] for failure in done.failed] == [
        "E_SECRET_TAMPERED]", "E_MASTER_KEY_UNKNOWN]",
    ]  # fmt: skip
    assert await whole(later, values)


async def test_changes_whose_outcome_is_unknown_are_made_again() -> None:
    room = Room()
    values = await filled(room, 3)

    class Cloudy(MemorySecrets):
        calls = 0

        async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
            Cloudy.calls += 1
            if Cloudy.calls % 3 == 1:
                return Outcome.UNKNOWN
            outcome = await super().rewrap_secret(rewrap)
            return Outcome.UNKNOWN if Cloudy.calls % 3 == 2 else outcome

    manager = SecretManager(Cloudy(room.data), ring("k2", "k1"), room.clock)
    done = await Secrets(manager).rotate()
    assert done.failed == ()
    assert key_ids(room.data) == {"k2"}
    assert await whole(Room(room.data, ring("k2")), values)


async def test_a_store_that_goes_away_ends_it_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()
    values = await filled(room, 3)
    later = Room(room.data, ring("k2", "k1"))

    async def gone(*args: object, **named: object) -> list[object]:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(later.store, "secrets_of_other_keys", gone)
    with pytest.raises(StoreUnavailable):
        await later.secrets.rotate()
    assert await whole(later, values)
