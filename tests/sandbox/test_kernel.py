"""What the kernel is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.sandbox import inside

CLOSE = """
import os, sys
sys.path.insert(0, {folder!r})
from inside import kernel
if not {fast}:
    kernel._CLOSE_RANGE = 9999  # a call that no kernel has
kept = [os.dup(0) for _ in range(20)]
kernel.close_but((kept[3], kept[11], kept[12], -1, 1))
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
print([number for number in range(64) if is_open(number)] == [0, 1, 2, kept[3], kept[11], kept[12]])
"""


@pytest.mark.parametrize("fast", [True, False])
def test_all_descriptors_but_a_few_are_closed_by_any_kernel(fast: bool) -> None:
    source = CLOSE.format(folder=str(Path(inside.__file__).parents[1]), fast=fast)

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source], capture_output=True, text=True, timeout=50, check=False
    )

    assert done.stdout == "True\n", done.stderr
