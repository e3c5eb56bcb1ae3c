"""The house stands as designed: who imports whom, what an import costs, how long a file may be."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORT_BUDGET_SEC = 0.150
LONGEST_FILE = 700


def test_nobody_imports_from_above() -> None:
    pytest.importorskip("importlinter")
    lint = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"

    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_flowkit_is_cheap() -> None:
    bare, full = [], []
    for _ in range(3):  # on a busy machine even the best of five may be unlucky
        for _ in range(5):
            bare.append(_seconds("pass"))
            full.append(_seconds("import flowkit"))
        if min(full) - min(bare) <= IMPORT_BUDGET_SEC:
            return

    cost = min(full) - min(bare)
    pytest.fail(f"`import flowkit` costs {cost * 1000:.0f} ms; import heavy libraries where they are first used")


def test_importing_flowkit_loads_no_client_library() -> None:
    heavy = {"aiokafka", "pymongo", "motor", "rich"}
    script = f"import sys, flowkit; print(*({heavy!r} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "flowkit").rglob("*.py")}

    too_long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE}

    assert not too_long


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - start
