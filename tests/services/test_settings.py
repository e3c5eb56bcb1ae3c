"""Settings by the names of the predecessors: where they come from, and what became of those that mean nothing now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkit.errors import ConfigError
from flowkit.services.settings import KINDS, Settings, pass_on, read_settings


def settings(name: str, folder: Path, text: str = "", **environment: str) -> Settings:
    (folder / "my.env").write_text(text)
    return read_settings(KINDS[name], folder / "my.env", environment)


def test_the_environment_counts_more_than_the_file_and_arguments_more_than_both(tmp_path: Path) -> None:
    (tmp_path / "my.env").write_text("# a remark\nexport HOST='::1'\nPORT=1 # one\nDB_NAME=\"of the file\"\n\n")

    found = read_settings(KINDS["secret-manager"], tmp_path / "my.env", {"PORT": "2"}, {"DB": "x.db"})

    assert [found.text(name) for name in ("HOST", "PORT", "DB_NAME", "DB")] == ["::1", "2", "of the file", "x.db"]


@pytest.mark.parametrize(
    ("name", "port"),
    [
        ("control-unit", "9500"),
        ("trace-monitor", "9000"),
        ("node-runner", "8500"),
        ("secret-manager", "8000"),
        ("npu", ""),
    ],
)
def test_each_has_its_old_port_and_listens_on_loopback(name: str, port: str, tmp_path: Path) -> None:
    found = settings(name, tmp_path)

    assert (found.text("PORT"), found.text("HOST")) == (port, "127.0.0.1")


def test_the_database_is_mongodb_where_one_is_named_and_else_a_file(tmp_path: Path) -> None:
    assert settings("control-unit", tmp_path).db == "flowkit.db"
    named = settings("control-unit", tmp_path, "MONGODB=mongodb://me:word@h:1/?tls=true\nDB_NAME=flows")
    assert named.db == "mongodb://me:word@h:1/flows?tls=true"
    assert named.where == "mongodb://h:1/flows"
    assert settings("control-unit", tmp_path, "MONGODB=mongodb://h/own").db == "mongodb://h/own"
    with pytest.raises(ConfigError, match="MONGODB is a URL"):
        _ = settings("control-unit", tmp_path, "MONGODB=redis://h").db


def test_what_means_nothing_any_more_is_said_with_what_to_do_instead(tmp_path: Path) -> None:
    runner = settings("node-runner", tmp_path, "REDIS_HOST=localhost", REDIS_PORT="6379")
    unit = settings("control-unit", tmp_path, "COLLECTION=fcb\nTRACE_SERVICE_ADDR=http://127.0.0.1:9000\nPROT=1")

    assert [note.split(" ")[0] for note in runner.notes] == ["REDIS_HOST", "REDIS_PORT"]
    assert "register again by themselves" in runner.notes[0]
    assert [note.split(" ")[0] for note in unit.notes] == ["COLLECTION", "TRACE_SERVICE_ADDR", "PROT"]
    assert "give both the same database" in unit.notes[1]
    assert "did you mean 'PORT'" in unit.notes[2]


def test_a_file_is_read_only_where_it_is_named_or_stands_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=77")
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert read_settings(KINDS["npu"], None, {}).text("PORT") == ""
    monkeypatch.chdir(tmp_path)
    assert read_settings(KINDS["npu"], None, {}).text("PORT") == "77"
    with pytest.raises(ConfigError, match=r"there is no settings file .*other\.env"):
        read_settings(KINDS["npu"], tmp_path / "other.env", {})


def test_what_cannot_be_read_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2: write NAME=VALUE"):
        settings("npu", tmp_path, "HOST=x\nno such thing")
    with pytest.raises(ConfigError, match=r"has no setting 'PORTS' .did you mean 'PORT'"):
        read_settings(KINDS["npu"], None, {}, {"PORTS": "1"})
    (tmp_path / "large.env").write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="it is no settings file"):
        read_settings(KINDS["npu"], tmp_path / "large.env", {})


def test_the_engines_own_settings_may_stand_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.env").write_text(
        "FLOWKIT_SLOTS=3\nKAFKA_BOOTSTRAP_SERVERS=k:1\nLD_PRELOAD=/tmp/evil.so\nFLOWKIT_DB=new"
    )
    for name in ("FLOWKIT_SLOTS", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWKIT_DB", "mine")
    before = dict(os.environ)

    pass_on(tmp_path / "my.env")
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    for name in changed:
        del os.environ[name]  # `monkeypatch` would put it there again in the end

    assert changed == {"FLOWKIT_SLOTS": "3", "KAFKA_BOOTSTRAP_SERVERS": "k:1"}
