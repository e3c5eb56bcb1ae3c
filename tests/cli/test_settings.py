"""Arguments count before the environment, that before [tool.flowkit], that before the defaults."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli import settings
from flowkit.cli.settings import Project, find_project
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError


def toml(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def load(args: Namespace | None = None, **given: Any) -> WorkerConfig:
    return settings.load(WorkerConfig, args or Namespace(), find_project(), **given)


def test_what_nobody_sets_is_the_default(folder: Path) -> None:
    assert load() == WorkerConfig()


def test_each_source_counts_before_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(folder, '[tool.flowkit]\nslots = 3\nlease_ttl_sec = 30\ndrain_sec = 5.0\ntopic_prefix = "file."\n')
    monkeypatch.setenv("FLOWKIT_LEASE_TTL_SEC", "20")
    monkeypatch.setenv("FLOWKIT_DRAIN_SEC", "6")
    monkeypatch.setenv("FLOWKIT_TOPIC_PREFIX", "env.")

    cfg = load(Namespace(settings=["topic_prefix=arg.", "drain_sec=8"]), drain_sec=7.0, slots=None)

    assert cfg.slots == 3, "from the file"
    assert cfg.lease_ttl_sec == 20.0, "from the environment"
    assert cfg.topic_prefix == "arg.", "from --set"
    assert cfg.drain_sec == 7.0, "from the option of its own"


def test_kafka_may_be_named_in_four_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(folder, '[tool.flowkit]\nkafka_bootstrap = "file:1"\n')
    assert load().kafka_bootstrap == "file:1"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "servers:2")
    assert load().kafka_bootstrap == "servers:2"
    monkeypatch.setenv("FLOWKIT_KAFKA_BOOTSTRAP", "flowkit:3")
    assert load().kafka_bootstrap == "flowkit:3"
    assert load(Namespace(kafka="arg:4")).kafka_bootstrap == "arg:4"


def test_lists_and_tables_of_the_file_are_understood(folder: Path) -> None:
    toml(folder, '[tool.flowkit]\nroles = ["a", "b"]\nlabels = {zone = "eu"}\n')

    cfg = load()

    assert (cfg.roles, cfg.labels) == (["a", "b"], {"zone": "eu"})
    assert settings.load(CoordinatorConfig, Namespace(), find_project()) == CoordinatorConfig(), "a worker's alone"


def test_the_nearest_file_with_a_table_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml(folder, "[tool.flowkit]\nslots = 3\n")
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    toml(below, "[tool.other]\nx = 1\n")
    monkeypatch.chdir(below)

    project = find_project()

    assert project.root == folder
    assert project.values == {"slots": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.flowkit]\nslot = 3\n", r"\[tool.flowkit\] has no setting 'slot' \(did you mean 'slots'\?\)"),
        ("[tool\n", "cannot read .*pyproject.toml"),
        ("[tool]\nflowkit = 3\n", "must be a table"),
        ("[tool.flowkit]\ndb = 3\n", "db must be text, not 3"),
        ("[tool.flowkit]\nhandlers = [1]\n", "handlers must be text"),
        ('[tool.flowkit]\nslots = "many"\n', "WorkerConfig.slots must be int, not 'many'"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, message: str, folder: Path) -> None:
    toml(folder, text)
    with pytest.raises(ConfigError, match=message):
        load()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("slotz=3", r"--set: there is no setting 'slotz' \(did you mean 'slots'\?\)"),
        ("slots", "--set takes NAME=VALUE, not 'slots'"),
        ("=3", "--set takes NAME=VALUE"),
        ("slots=many", "WorkerConfig.slots must be int"),
    ],
)
def test_a_wrong_argument_is_refused(given: str, message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Namespace(settings=[given]))


def test_a_database_may_be_named_in_three_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.named_database(Namespace(), find_project()) is None
    toml(folder, '[tool.flowkit]\ndb = "flow.db"\n')
    assert settings.named_database(Namespace(), find_project()) == str(folder / "flow.db")
    monkeypatch.setenv("FLOWKIT_DB", "env.db")
    assert settings.named_database(Namespace(), find_project()) == "env.db"
    assert settings.named_database(Namespace(db="arg.db"), find_project()) == "arg.db"


def test_without_a_name_it_is_mongodb(folder: Path) -> None:
    assert settings.database(Namespace(), Project(), CoordinatorConfig()) == "mongodb://localhost:27017/flowkit"


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("mongodb://h:1", "mongodb://h:1/mine"),
        ("mongodb://h:1/", "mongodb://h:1/mine"),
        ("mongodb://h:1/theirs", "mongodb://h:1/theirs"),
        ("mongodb://a,b/?replicaSet=rs", "mongodb://a,b/mine?replicaSet=rs"),
    ],
)
def test_the_database_s_name_goes_into_the_url(url: str, whole: str) -> None:
    assert settings.mongo_url(CoordinatorConfig(mongo_url=url, mongo_database="mine")) == whole


@pytest.mark.parametrize(
    ("db", "path"),
    [
        ("flow.db", "flow.db"),
        ("/a/b.db", "/a/b.db"),
        ("sqlite:///flow.db", "flow.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
    ],
)
def test_a_file_is_told_from_a_server(db: str, path: str) -> None:
    assert settings.file_of(db) == Path(path)
    assert settings.file_of("mongodb://h/db") is None


def test_a_password_is_never_shown() -> None:
    secret = "mongodb://ada:s3cret@h1,h2/db?replicaSet=rs"
    assert settings.shown_address(secret) == "mongodb://h1,h2/db"
    assert settings.without_password(secret) == "mongodb://ada:***@h1,h2/db?replicaSet=rs"
    assert settings.shown_address("flow@home.db") == settings.without_password("flow@home.db") == "flow@home.db"
    assert settings.without_password("mongodb://h/db") == "mongodb://h/db"
