"""`flowkit doctor`: what it looks at, what it says, and what it leaves alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli import checks, checks_file
from flowkit.cli.checks import Finding, fits, of_packages, of_python, requirements
from flowkit.cli.checks_cluster import clock, of_topics
from flowkit.cli.checks_code import of_packages_of_code
from flowkit.cli.checks_file import damage, disk, file_system, of_place
from flowkit.cli.checks_sandbox import of_groups, of_levels
from flowkit.config import WorkerConfig
from flowkit.sandbox.levels import Fact, Report
from flowkit.sandbox.runtime import Level
from flowkit.wire.topics import Topics
from tests.cli.conftest import Cli
from tests.cli.test_tasks import created

GIB = 1024**3


def said(findings: Iterator[Finding] | list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.level for finding in findings}


def lines(text: str) -> dict[str, tuple[str, str]]:
    """What was found by subject: its level and the rest of the line."""
    rows = [line.split(maxsplit=2) for line in text.splitlines() if ": " in line]
    return {subject.rstrip(":"): (level, rest) for level, subject, rest in rows}


# A file.


def test_a_healthy_file_is_ok(cli: Cli) -> None:
    cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", "--db", "flow.db")

    ran = cli("doctor", "--db", "flow.db")

    found = lines(ran.out)
    assert ran.code == 0
    assert {level for subject, (level, _) in found.items() if subject not in ("sandbox", "cgroups")} == {"ok"}
    assert list(found) == [
        "python", "packages", "sqlite", "sandbox", "cgroups", "environments", "policies", "disk", "file", "coordinator",
        "tasks",
    ]  # fmt: skip
    assert "1 tasks, 3 commits" in found["file"][1]

    cli("tasks", "delete", "last", "--db", "flow.db")
    told = lines(cli("doctor", "--db", "flow.db").out)["file"][1]
    assert told.endswith("1 tasks, 4 commits, 1 of the tasks deleted and not yet removed")


def test_a_file_that_nobody_coordinates_is_told_when_it_matters(cli: Cli) -> None:
    created()

    ran = cli("doctor", "--db", "flow.db")

    assert ran.code == 0
    assert lines(ran.out)["coordinator"] == (
        "warn", "nobody coordinates the file; flowkit worker MODULE --db flow.db",
    )  # fmt: skip


def test_overdue_tasks_are_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    created()
    monkeypatch.setattr(checks_file, "OVERDUE_SEC", -1.0)

    assert lines(cli("doctor", "--db", "flow.db").out)["tasks"][1].startswith(
        "1 wait for a coordinator, the longest for "
    )


def test_a_file_that_is_not_there_is_not_made(cli: Cli, folder: Path) -> None:
    ran = cli("doctor", "--db", "new.db")

    assert ran.code == 0
    assert lines(ran.out)["file"] == ("ok", "new.db is not there yet; the first task makes it")
    assert not (folder / "new.db").exists()


def test_findings_are_there_for_machines(cli: Cli) -> None:
    found = cli("doctor", "--db", "no/such/place/flow.db", "--json")

    assert found.code == 1
    assert found.json["ok"] is False
    assert found.json["findings"][-1]["level"] == "FAIL"
    assert found.json["findings"][-1]["message"].startswith("there is no directory")


def test_the_count_of_failures_ends_the_report(cli: Cli, folder: Path) -> None:
    (folder / "bad.db").write_text("no database, but long enough to have a header of SQLite's, which it has not" * 20)

    ran = cli("doctor", "--db", "bad.db")

    assert ran.code == 1
    assert lines(ran.out)["file"][1].startswith("bad.db: file is not a database; it is no FlowKit file, or damaged")
    *findings, last = ran.out.splitlines()
    assert last == f"1 of {len(findings)} checks failed"


def test_levels_that_a_machine_does_not_give_are_told_with_what_to_do() -> None:
    whole = Report((Fact("seccomp", True, "x86_64"),))
    half = Report((), {Level.L3: "bubblewrap is not installed"})

    assert [finding.level for finding in of_levels(whole)] == ["ok"]
    (finding,) = of_levels(half)
    assert finding.message == "no program can be run at L3: bubblewrap is not installed"
    assert (finding.level, finding.hint[:18]) == ("warn", "install bubblewrap")


def test_an_interpreter_that_programs_at_l2_cannot_read_is_told() -> None:
    facts = (Fact("python_at_l2", False, "/root/python cannot be read: /root is not open to every user"),)

    (_, finding) = of_levels(Report(facts))
    assert (finding.level, finding.subject) == ("warn", "sandbox")
    assert finding.message.startswith("no Python program can be run at L2: /root/python")
    assert [one.level for one in of_levels(Report(facts, {Level.L2: "no Landlock"}))] == ["warn"]


async def test_what_is_kept_of_packages_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_CODE_CACHE", str(folder / "cache"))
    assert await of_packages_of_code(WorkerConfig.load()) == checks.ok(
        "environments", f"0 of 20 sets, 0 of 4,096 MiB, in {folder / 'cache'}"
    )

    (folder / "cache" / "a").mkdir(parents=True)
    (folder / "cache" / "a" / "done").touch()
    (folder / "cache" / "a" / "size").write_text(str(3 * 1024 * 1024))
    monkeypatch.setenv("FLOWKIT_CODE_CACHE_BYTES", str(1024 * 1024))
    finding = await of_packages_of_code(WorkerConfig.load())
    assert (finding.level, finding.message[:27]) == ("warn", "1 of 20 sets, 3 of 1 MiB, i")


def test_what_control_groups_do_not_bound_is_told() -> None:
    facts = [
        Fact("cgroup.memory", True, "version 2"),
        Fact("cgroup.cpu", False, "not bounded"),
        Fact("seccomp", True, ""),
    ]

    assert of_groups(facts[:1]).level == "ok"
    assert (of_groups(facts).level, of_groups(facts).message) == ("warn", "cpu: not bounded")


def test_damage_is_found(folder: Path) -> None:
    path = folder / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
    connection.close()
    assert damage(path) is None

    data = bytearray(path.read_bytes())
    data[8192:12288] = os.urandom(4096)
    path.write_bytes(data)
    assert damage(path) is not None


def test_what_may_not_be_written_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "x.db"
    monkeypatch.setattr(checks_file.os, "access", lambda *args: False)  # root may write anything
    for make in (lambda: None, path.touch):
        make()
        findings, usable = of_place(path)
        assert (said(findings)["file"], usable) == ("FAIL", False)


@pytest.mark.parametrize(("free", "level"), [(10 * GIB, "ok"), (GIB // 2, "warn"), (GIB // 100, "FAIL")])
def test_a_full_disk_is_told(free: int, level: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_file.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    assert disk(folder).level == level


def test_a_remote_file_system_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system(folder) is None
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {folder.parent} nfs4 rw 0 0\n"
    monkeypatch.setattr(checks_file.Path, "read_text", lambda *args: mounts)
    assert file_system(folder) == "nfs4"
    findings, _ = of_place(folder / "flow.db")
    assert said(findings)["disk"] == "FAIL"


# Python and packages.


@pytest.mark.parametrize("cluster", [False, True])
def test_this_environment_is_ok(cluster: bool) -> None:
    assert said(of_python(cluster=cluster)) == {"python": "ok", "packages": "ok", "sqlite": "ok"}


def test_the_drivers_are_needed_on_the_cluster_only() -> None:
    assert {name for name, _ in requirements(cluster=False)} == {"jsonschema-rs", "msgspec", "pydantic", "rich"}
    assert {name for name, _ in requirements(cluster=True)} == {
        "jsonschema-rs",
        "msgspec",
        "pydantic",
        "rich",
        "aiokafka",
        "pymongo",
    }


def test_what_is_missing_or_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "pymongo":
            raise PackageNotFoundError(name)
        return "0.1" if name == "rich" else "99.0" if name == "aiokafka" else "2.10"

    monkeypatch.setattr(checks, "version", version)
    monkeypatch.setattr(checks, "requirements", lambda cluster: [
        ("rich", ">=13.7,<16"), ("aiokafka", "<0.15,>=0.12"), ("pymongo", ">=4.13"), ("pydantic", ">=2.7,<3"),
    ])  # fmt: skip

    found = list(of_packages(cluster=True))

    assert [(finding.level, finding.message) for finding in found] == [
        ("warn", "rich 0.1 is not >=13.7,<16"), ("warn", "aiokafka 99.0 is not <0.15,>=0.12"),
        ("FAIL", "pymongo is not installed"), ("ok", "rich 0.1, aiokafka 99.0, pydantic 2.10"),
    ]  # fmt: skip
    assert found[2].hint == "pip install 'flowkit-engine[cluster]'"


@pytest.mark.parametrize(
    ("there", "wanted", "fit"),
    [
        ("1.10", ">=1.9", True),
        ("1.9", ">=1.10", False),
        ("3.0.1", "<3.0.1", False),
        ("2.9", ">=2,<3", True),
        ("1", "", True),
    ],
)
def test_versions_are_compared_as_numbers(there: str, wanted: str, fit: bool) -> None:
    assert fits(there, wanted) is fit


# The cluster.


@pytest.mark.parametrize(
    ("skew", "uncertain", "level"),
    [
        (0.0, 0.001, "ok"),
        (0.9, 0.001, "ok"),
        (-2.0, 0.1, "warn"),
        (2.0, 1.5, "ok"),
        (90.0, 0.1, "FAIL"),
        (-90.0, 1, "FAIL"),
    ],
)
def test_a_wrong_clock_is_told(skew: float, uncertain: float, level: str) -> None:
    assert clock(skew, uncertain).level == level


def test_the_direction_of_a_wrong_clock_is_told() -> None:
    assert clock(2.0, 0.1).message == "this machine's is 2.0 s behind MongoDB's (give or take 100 ms)"
    assert clock(-2.0, 0.1).message.startswith("this machine's is 2.0 s ahead of MongoDB's")


def test_topics_are_compared_with_the_settings() -> None:
    topics = Topics("f.", 8)
    right: dict[str, list[Any]] = {name: [None] * spec.partitions for name, spec in topics.specs().items()}
    assert [finding.level for finding in of_topics(topics, right)] == ["ok"]

    (missing,) = of_topics(topics, {name: there for name, there in right.items() if "events" not in name})
    assert (missing.level, missing.message) == ("warn", "not there: f.events.v1")

    (wrong,) = of_topics(topics, right | {"f.facts.v1": [None] * 4})
    assert (wrong.level, wrong.message) == ("FAIL", "f.facts.v1 has 4 partitions, not 8")
    assert "FLOWKIT_FACTS_PARTITIONS" in wrong.hint
