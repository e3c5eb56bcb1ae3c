"""The house stands as designed: who imports whom, what an import costs, how long a file may be."""

from __future__ import annotations

import resource
import subprocess
import sys
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
    for _ in range(5):
        bare.append(_cpu_seconds("pass"))
        full.append(_cpu_seconds("import flowkit"))

    cost = min(full) - min(bare)
    assert cost <= IMPORT_BUDGET_SEC, f"{cost * 1000:.0f} ms; import heavy libraries where they are first used"


def test_importing_flowkit_loads_no_client_library() -> None:
    heavy = {"aiokafka", "pymongo", "motor", "rich"}
    script = f"import sys, flowkit; print(*({heavy!r} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "flowkit").rglob("*.py")}

    too_long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST_FILE}

    assert not too_long


def _cpu_seconds(code: str) -> float:
    """What a Python takes for it. Of this an import is made; on a busy machine others have a share of the time."""
    before = _of_children()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
