"""What hostile code tries comes to nothing, at each level that claims so, for root and for ordinary users.

A kernel that lacks what a level needs fails these tests: a claim that was not tried is none.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox import attempts
from tests.sandbox.escapes import GROUPS, SINGLE, WHOLE
from tests.sandbox.hostile import WHOLE as PROGRAMS
from tests.sandbox.programs import PYTHON
from tests.sandbox.trial import CASES, WARM, claimed, expected

NOBODY = 65534
USERS = ("root", "ordinary")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("case", CASES)
def test_every_escape_comes_to_what_the_table_says(tree: Path, case: str, user: str) -> None:
    if user == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")

    found = trial(tree, case, user)

    wrong = {
        escape.name: f"{found.get(escape.name)}, not {' or '.join(expected(escape, case))}"
        for escape in (*SINGLE, *(WHOLE if case != WARM else ()))
        if claimed(escape, case) and found.get(escape.name) not in expected(escape, case)
    }
    assert not wrong
    assert found["left"] == "nothing"
    if "memory" in found["counted"].split():
        assert found.get("memory_bomb", "oom") == "oom"
    else:
        assert user == "ordinary"


def test_the_table_is_about_all_attempts_and_they_are_many() -> None:
    assert {escape.name for escape in SINGLE} == attempts.ATTEMPTS.keys()
    assert {escape.name for escape in WHOLE} == PROGRAMS.keys()
    assert len({escape.about for escapes in GROUPS.values() for escape in escapes}) >= 60


def test_an_attempt_that_succeeds_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    canary.write_text("x")
    monkeypatch.setitem(attempts.GIVEN, "canary", str(canary))

    assert attempts.outcome("read_a_file_that_everyone_may_read") == "read"
    assert attempts.outcome("open_a_stream_to_the_network") == "opened"


@functools.cache
def _interpreter(user: str) -> str:
    return PYTHON if user == "ordinary" else sys.executable


def trial(tree: Path, case: str, user: str) -> dict[str, str]:
    change = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "ordinary" and os.geteuid() == 0 else {}
    done = subprocess.run(
        [_interpreter(user), "-m", "tests.sandbox.trial", case], cwd=tree, capture_output=True, text=True, timeout=200,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree)}, check=False, **change,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, str] = json.loads(done.stdout)["found"]
    return found
