"""`flowkit tasks logs`: what attempts have said, on a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, node

DB = ("--db", "flow.db")
TALKS = """
def talk(ctx):
    ctx.log.debug("small")
    ctx.log.info("two\\nlines \\x1b[31m", rows=3)
    try:
        raise ValueError("no")
    except ValueError:
        ctx.log.exception("failed")
"""


@pytest.fixture
def said(cli: Cli, folder: Path) -> None:
    (folder / "talks.py").write_text(TALKS)
    (folder / "talk.json").write_text(json.dumps({"nodes": [node("a", "talk"), node("b", "talk", "a")]}))
    assert cli("run", "talk.json", "--handlers", "talks", *DB, "--quiet").code == 0


def test_lines_are_shown_with_their_fields_and_tracebacks(cli: Cli, said: None) -> None:
    ran = cli("tasks", "logs", "last", *DB, "--node", "a")

    shown = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "CLOCK", ran.out).splitlines()
    assert shown[0] == "CLOCK  debug    a  small"
    assert shown[1] == "CLOCK  info     a  two"
    assert shown[2].startswith("    lines ")
    assert shown[2].endswith(" rows=3")
    assert shown[3:5] == ["CLOCK  error    a  failed", "    Traceback (most recent call last):"]
    assert shown[-1] == "    ValueError: no"
    assert "\x1b" not in ran.out


def test_what_is_asked_for_is_shown_and_nothing_else(cli: Cli, said: None) -> None:
    assert len(cli("tasks", "logs", "last", *DB, "--level", "error", "--json").out.splitlines()) == 2
    assert len(cli("tasks", "logs", "last", *DB, "--limit", "4", "--json").out.splitlines()) == 4
    assert cli("tasks", "logs", "last", *DB, "--attempt", "2").out == ""
    assert cli("tasks", "logs", "last", *DB, "--since", "2099-01-01").out == ""

    lines = [json.loads(line) for line in cli("tasks", "logs", "last", *DB, "--follow", "--json").out.splitlines()]
    assert [(line["node_id"], line["sequence"], line["level"]) for line in lines] == [
        (name, number, level) for name in "ab" for number, level in ((1, "debug"), (2, "info"), (3, "error"))
    ]
    assert lines[1]["fields"] == {"rows": 3}
    assert lines[0]["trace_id"][:16] == lines[0]["task_id"].replace("-", "")[:16]


def test_a_task_that_is_not_there_is_said(cli: Cli, said: None) -> None:
    ran = cli("tasks", "logs", "nobody", *DB)

    assert ran.code != 0
    assert "nobody" in ran.err


def test_a_node_that_is_not_there_is_said(cli: Cli, said: None) -> None:
    ran = cli("tasks", "logs", "last", *DB, "--node", "aa")

    assert ran.code == 2
    assert "no node 'aa'" in ran.err
