"""The drivers are optional: without one, its adapter says what to install, and the others do without."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "driver", "extra"),
    [("kafka", "aiokafka", "kafka"), ("mongo", "pymongo", "mongo"), ("mongo", "bson", "mongo")],
)
def test_a_missing_driver_is_told_with_its_extra(module: str, driver: str, extra: str) -> None:
    said = run(f"import sys; sys.modules['{driver}'] = None; import flowkit.adapters.{module}")
    assert f"ConfigError: {'pymongo' if driver == 'bson' else driver} is not installed" in said
    assert f"pip install 'flowkit-engine[{extra}]'" in said


def test_what_needs_no_driver_loads_none() -> None:
    script = """
import sys
import flowkit.adapters, flowkit.adapters.memory, flowkit.adapters.sqlite
print(sorted({"aiokafka", "pymongo", "bson", "motor"} & set(sys.modules)))
"""
    assert run(script).strip() == "[]"


def test_motor_is_never_imported_by_us() -> None:
    script = "import sys; import flowkit.adapters.mongo; print('motor' in sys.modules)"
    assert run(script).strip() == "False"
