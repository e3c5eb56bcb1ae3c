"""A page that takes too long ends, with the processes that it left running."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.examples.family import run_family
from tests.examples.pages import Step
from tests.examples.test_docs import run

BEHIND = "$ bash -c 'echo $$ > pid; exec sleep 600' &\n"
HANGS = Step("python", 1, "import asyncio\nawait asyncio.sleep(600)\n", None)


def pid_in(folder: Path) -> int:
    until = time.monotonic() + 20
    while not (told := (folder / "pid").read_text() if (folder / "pid").exists() else ""):
        assert time.monotonic() < until
        os.sched_yield()
    return int(told)


def lives(pid: int) -> bool:
    """Whether a process still runs; one that is dead and not yet taken note of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_page_that_is_ended_by_its_limit_leaves_nothing_running(tmp_path: Path) -> None:
    behind = Step("console", 1, BEHIND, None)

    with pytest.raises(subprocess.TimeoutExpired):
        run([behind, HANGS], Path(__file__), tmp_path, {}, limit_sec=3)

    assert not lives(pid_in(tmp_path))


def test_what_a_page_left_running_ends_with_it(tmp_path: Path) -> None:
    waits = "import os, time\nwhile not os.path.exists('pid') or not open('pid').read(): time.sleep(0.01)\n"

    run([Step("console", 1, BEHIND, None), replace(HANGS, text=waits)], Path(__file__), tmp_path, {})

    assert not lives(pid_in(tmp_path))


def test_a_process_that_ends_in_time_is_told_of_as_it_ended(tmp_path: Path) -> None:
    done = run_family(
        ["bash", "-c", "cat; echo no >&2; exit 3"], said="yes", folder=tmp_path, environment=os.environ, limit_sec=20
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "yes", "no\n")
