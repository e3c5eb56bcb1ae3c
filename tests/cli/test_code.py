"""Code of nodes on the command line: run beside its graph, served by its role, and shown with what it used."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Begin, Cli

Write = Callable[..., Path]
TRUSTED = {"FLOWKIT_CODE_LEVEL": "L1", "FLOWKIT_CODE_TRUSTED": "1"}


def code(name: str, **code: Any) -> dict[str, Any]:
    return {"node_id": name, "type": "code", "code": code}


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name, value in TRUSTED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("trusted")
def test_a_graph_of_code_needs_no_handlers_and_its_files_stand_beside_it(cli: Cli, write: Write, folder: Path) -> None:
    (folder / "graphs").mkdir()
    graph = write(code("a", file="step.py")).rename(folder / "graphs" / "graph.json")
    (folder / "graphs" / "step.py").write_text("def main(inputs):\n    return [inputs['n'], 'from a file']\n")

    ran = cli("run", graph, "--param", "n=1")

    assert (ran.code, ran.out) == (0, '[\n  1,\n  "from a file"\n]\n'), ran.err


@pytest.mark.usefixtures("trusted")
def test_a_shown_task_tells_what_its_programs_used(cli: Cli, write: Write) -> None:
    cli("run", write(code("a", source="def main(inputs):\n    return 1")), "--db", "flow.db")

    task_id = cli("tasks", "list", "--db", "flow.db", "--json").json["tasks"][0]["task_id"]
    said = cli("tasks", "show", task_id, "--db", "flow.db").out

    assert re.search(r"^program of node 'a', attempt 1: finished at L1 in .*, CPU .*, peak \d+ MiB$", said, re.M), said


@pytest.mark.usefixtures("trusted")
def test_a_trace_tells_what_its_programs_used(cli: Cli, write: Write) -> None:
    file = ("--db", "flow.db")
    busy = "def main(inputs):\n    return sum(i * i for i in range(300_000)) % 7"
    cli("run", write(code("busy", source=busy), code("idle", source="def main(inputs):\n    return 1")), *file)

    shown = cli("trace", "show", "last", *file).out.splitlines()
    assert re.search(r"RAN +CPU +MEMORY +WORKER", shown[3]), shown
    assert all(re.search(r"\d MiB", line) for line in shown[4:6]), shown
    detail = cli("trace", "show", "last", "--node", "busy", *file).out
    assert re.search(r"^  program    finished at L1 in .*, CPU .*, peak \d+ MiB(, (read|wrote) .*)?$", detail, re.M), (
        detail
    )
    bars = cli("trace", "waterfall", "last", *file).out.splitlines()
    assert all(re.search(r"succeeded  CPU .*, peak \d+ MiB$", line) for line in bars[:2]), bars
    by_cpu = cli("trace", "slowest", "last", "--by", "cpu", *file).out.splitlines()
    assert re.search(r"LONGEST +CPU +MEMORY +FILES +NETWORK +WAITED", by_cpu[0]), by_cpu
    assert by_cpu[1].split()[0] == "busy"
    assert "computed" in cli("trace", "bottlenecks", "last", *file).out


def test_a_process_that_runs_no_code_says_so_at_once(cli: Cli, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_CODE_LEVEL", "L1")

    ran = cli("run", write(code("a", source="def main(inputs):\n    return 1")))

    assert ran.code == 2
    assert "E_NO_HANDLER at nodes[0].type: this process runs no code" in ran.err
    assert "FLOWKIT_CODE_TRUSTED=1" in ran.err


def test_a_worker_may_serve_code_alone(write: Write, begin: Begin, cli: Cli) -> None:
    graph = write(code("a", source="def main(inputs):\n    return 2"))
    worker = begin("worker", "--role", "code", "--db", "flow.db", **TRUSTED)
    assert "serves code" in worker.heard("this process coordinates the file")

    ran = cli("run", graph, "--db", "flow.db")

    assert (ran.code, ran.out) == (0, "2\n"), ran.err


def test_a_worker_for_code_does_not_start_where_none_may_run(begin: Begin) -> None:
    worker = begin("worker", "--role", "code", "--db", "flow.db", FLOWKIT_CODE_LEVEL="L1")

    ran = worker.finish()

    assert ran.code == 2
    assert "cannot serve the role 'code'" in ran.err
    assert "FLOWKIT_CODE_TRUSTED=1" in ran.err
