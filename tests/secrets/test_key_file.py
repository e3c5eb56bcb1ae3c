"""The file of master keys: who may read it, how it is made, and how a key is added while it is in use."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from flowkit.errors import ConfigError, MasterKeyError, MasterKeyUnknown
from flowkit.secrets.envelope import Place, new_key
from flowkit.secrets.key_file import FileKeys, make_key_file, read_key_file
from flowkit.secrets.master_keys import StaticKeys, key_line
from flowkit.secrets.opening import key_file_beside, open_master_keys, open_ticket_keys
from flowkit.secrets.transit import TransitKeys
from tests.secrets.room import KEY_1

PLACE = Place("acme", "KEY", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "master.keys"
    assert make_key_file(path)
    return path


def test_a_file_is_made_for_its_owner_only_and_never_over_another(path: Path) -> None:
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not make_key_file(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert len(read_key_file(path)[0].keys) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o610])
def test_a_file_that_others_may_read_or_use_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match=f"has mode {mode:04o}, so others can read .* chmod 600 "):
        read_key_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_is_read(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert read_key_file(path)[0].keys


async def test_a_missing_file_a_folder_and_a_large_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match=r"there is no file of master keys .*none: put it back"):
        await FileKeys(tmp_path / "none").current()
    with pytest.raises(MasterKeyError, match="is not a file"):
        read_key_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(MasterKeyError, match="is not a file"):
        read_key_file(tmp_path / "pipe")
    (large := tmp_path / "large").write_bytes(b"#" * 100_000)
    large.chmod(0o600)
    with pytest.raises(MasterKeyError, match="too large"):
        read_key_file(large)
    with pytest.raises(MasterKeyError, match="cannot make the file"):
        make_key_file(tmp_path / "no" / "such" / "folder")


async def test_the_first_use_makes_the_file_and_says_so_once(tmp_path: Path) -> None:
    made: list[Path] = []
    keys = FileKeys(tmp_path / "k", make=True, on_made=made.append)
    first = await keys.current()
    assert await keys.current() == first
    assert made == [tmp_path / "k"]
    assert await FileKeys(tmp_path / "k", make=True, on_made=made.append).current() == first
    assert len(made) == 1


async def test_a_key_is_added_before_the_others_and_known_to_other_processes_at_once(path: Path) -> None:
    ours, theirs = FileKeys(path), FileKeys(path)
    key, old = new_key(), await theirs.current()
    wrapped = await theirs.wrap(key, PLACE, old)

    new = await ours.add_key()
    assert await ours.current() == await theirs.current() == new != old
    assert await ours.unwrap(wrapped, PLACE, old) == key
    late = await ours.wrap(key, PLACE, new)
    assert await FileKeys(path).unwrap(late, PLACE, new) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("#")
    assert (await theirs.describe())["ids"] == f"{new}, {old}"


async def test_a_process_that_has_read_the_file_finds_a_key_that_came_later(path: Path) -> None:
    ours, theirs = FileKeys(path), FileKeys(path)
    await theirs.current()
    new = await ours.add_key()
    wrapped = await ours.wrap(b"k" * 32, PLACE, new)
    assert await theirs.unwrap(wrapped, PLACE, new) == b"k" * 32


async def test_keys_that_are_added_at_the_same_time_are_all_there(path: Path) -> None:
    added = await asyncio.gather(*(FileKeys(path).add_key() for _ in range(8)))
    ids = (await FileKeys(path).describe())["ids"].split(", ")
    assert set(added) <= set(ids)
    assert len(ids) == 9


async def test_a_key_that_was_taken_out_opens_nothing(path: Path) -> None:
    keys = FileKeys(path)
    old = await keys.current()
    wrapped = await keys.wrap(new_key(), PLACE, old)
    path.write_text(key_line("other", KEY_1) + "\n")
    with pytest.raises(MasterKeyUnknown, match=f"under the master key '{old}', which .* does not have"):
        await FileKeys(path).unwrap(wrapped, PLACE, old)


async def test_where_the_file_cannot_be_written_it_is_told_how_a_key_is_added(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")  # as mounted secrets are

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    before = path.read_bytes()
    with pytest.raises(MasterKeyError, match=r"Read-only file system; put a line `ID BASE64` .* before the others"):
        await FileKeys(path).add_key()
    assert path.read_bytes() == before
    assert await FileKeys(path).current()


class TestWhereTheKeysAre:
    def test_a_setting_names_a_file_a_variable_or_openbao(self, path: Path) -> None:
        assert isinstance(open_master_keys(f"file:{path}"), FileKeys)
        line = key_line("k1", KEY_1).replace(" ", "=")
        assert isinstance(open_master_keys("env:MINE", environment={"MINE": line}), StaticKeys)
        environment = {"BAO_TOKEN": "t", "BAO_ADDR": "http://127.0.0.1:1"}
        assert isinstance(open_master_keys("transit:keys/mine", environment=environment), TransitKeys)

    def test_without_one_the_variable_counts_then_the_file_beside_the_database(self, tmp_path: Path) -> None:
        line = key_line("k1", KEY_1).replace(" ", "=")
        beside = tmp_path / "flow.db"
        assert isinstance(open_master_keys("", beside=beside, environment={"FLOWKIT_MASTER_KEYS": line}), StaticKeys)
        keys = open_master_keys("", beside=beside, environment={})
        assert isinstance(keys, FileKeys)
        assert keys.path == key_file_beside(beside) == tmp_path / "flow.db.keys"

    @pytest.mark.parametrize(
        ("where", "error", "why"),
        [
            ("", MasterKeyError, "there is no master key: let `secrets_keys`"),
            ("env:MINE", MasterKeyError, "the variable MINE is not set"),
            ("vault:x", ConfigError, "vault:... names no master keys; write file:PATH"),
            ("/etc/keys", ConfigError, "names no master keys; write file:PATH"),
            ("k1=c2VjcmV0", ConfigError, "secrets_keys: what it says names no master keys"),
            ("file:", ConfigError, "write file:PATH"),
            ("transit:key", MasterKeyError, "OpenBao asks for a token: set BAO_TOKEN"),
        ],
    )
    def test_anything_else_is_told(self, where: str, error: type[Exception], why: str) -> None:
        with pytest.raises(error, match=why):
            open_master_keys(where, environment={})

    def test_ticket_keys_are_in_a_file_or_a_variable(self, path: Path) -> None:
        line = key_line("t1", KEY_1).replace(" ", "=")
        assert open_ticket_keys("", {"FLOWKIT_TICKET_KEYS": line}) == {"t1": KEY_1}
        assert open_ticket_keys("env:T", {"T": line}) == {"t1": KEY_1}
        assert len(open_ticket_keys(f"file:{path}", {})) == 1
        with pytest.raises(ConfigError, match="names no ticket keys"):
            open_ticket_keys("transit:x", {})
