"""`flowkit trace`: what happened to a task, on a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, node

DB = ("--db", "flow.db")


def settled(text: str) -> list[str]:
    """What is shown, without what differs each time."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "TASK", text)
    text = re.sub(r"\d+(\.\d)? m?s\b", "SEC", text)
    text = re.sub(r"\bw-[0-9a-f]{8}", "WORKER", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def ran(cli: Cli) -> None:
    assert cli("run", "hello.json", "--handlers", "app", "--param", "name=Ada", *DB, "--quiet").code == 0


def test_a_path_and_its_attempts_are_shown(cli: Cli, ran: None) -> None:
    assert settled(cli("trace", "show", "last", *DB).out) == [
        "task TASK hello finished",
        "created TIME, SEC, 2 attempts",
        "path hi > loud",
        "NODE ATTEMPT OUTCOME WAITED QUEUED RAN WORKER WHY",
        "hi 1 succeeded SEC SEC SEC WORKER",
        "loud 1 succeeded SEC SEC SEC WORKER",
    ]
    assert settled(cli("trace", "show", "last", "--node", "loud", *DB).out) == [
        "node loud shout finished",
        "began after hi",
        "attempt 1 succeeded",
        "waited SEC",
        "queued SEC",
        "ran SEC",
        "worker WORKER",
        'inputs {"text": "hello Ada"}',
        'output "HELLO ADA!"',
    ]
    assert "did you mean 'loud'" in cli("trace", "show", "last", "--node", "lout", *DB).err


def test_every_view_speaks_json_too(cli: Cli, ran: None) -> None:
    shown = cli("trace", "show", "last", "--json", *DB).json
    assert shown["path"] == ["hi", "loud"]
    assert shown["task"]["attempts"][0]["record"]["outcome"] == "succeeded"
    values = cli("trace", "show", "last", "--node", "hi", "--json", *DB).json["values"]
    assert values[0]["values"]["output"] == {"text": "hello Ada"}
    assert [row["node"] for row in cli("trace", "waterfall", "last", "--json", *DB).json] == ["hi", "loud"]
    path = cli("trace", "critical-path", "last", "--json", *DB).json
    assert [step["node"] for step in path["steps"]] == ["hi", "loud"]
    assert {one["node"] for one in cli("trace", "bottlenecks", "last", "--json", *DB).json} == {"hi", "loud"}


def test_bars_are_drawn_to_scale(cli: Cli, ran: None) -> None:
    lines = cli("trace", "waterfall", "last", *DB).out.splitlines()

    assert [line.split()[0] for line in lines[:2]] == ["hi", "loud"]
    assert all(line.count("|") == 2 for line in lines[:2])
    assert "# running" in lines[-1]


def test_what_failed_shows_its_traceback_and_a_comparison_shows_that_it_failed(
    cli: Cli, ran: None, write: Callable[..., Path]
) -> None:
    first = cli("tasks", "list", *DB, "--json").json["tasks"][0]["task_id"]
    broken = write(node("hi", "fail", retry_policy={"max": 1}))
    cli("run", broken, "--handlers", "app", *DB, "--quiet")

    assert "ValueError: no such column" in cli("trace", "show", "last", "--node", "hi", *DB).out
    shown = settled(cli("trace", "compare", first, "last", *DB).out)
    assert shown[0] == "status: finished and failed"
    assert any("1 finished in 1 attempt -> 1 failed in 1 attempt (Value" in line for line in shown), "\n".join(shown)
    assert any(line.startswith("loud SEC") and line.endswith("not there") for line in shown)


def test_many_tasks_are_asked_about_within_bounds(cli: Cli, ran: None) -> None:
    shown = cli("trace", "slowest", "last", *DB).out
    assert [line.split()[0] for line in shown.splitlines()] == ["NODE", *sorted(["hi", "loud"], key=shown.index)]
    assert cli("trace", "history", "--flow", "nothing", *DB).code == 0
    assert "at most 2000 buckets" in cli("trace", "history", "--bucket", "1s", *DB).err
    assert "a whole number of rows from 1 to 1,000" in cli("trace", "slowest", "--limit", "1001", *DB).err
    assert "no span of time" in cli("trace", "history", "--bucket", "soon", *DB).err
    assert cli("trace", "slowest", "--since", "200d", *DB).code == 2
