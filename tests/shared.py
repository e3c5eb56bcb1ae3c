"""One server for all processes of a test run: the first that asks for it starts it, and it ends with that process.

A process of a run stays until the last of them is through, so nobody loses a server that another has started.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

ENOUGH_BYTES = 6 * 2**30


def address_of(name: str, folder: Path, start: Callable[[], str]) -> str:
    """The address that `start` gave to whoever of those with this folder came first; the others wait for it. Raises
    what `start` raises, and then the next one tries."""
    told = folder / f"{name}.address"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            told.write_text(start())
        return told.read_text()


def place_of_data() -> str | None:
    """Where servers of the tests keep their data: in memory, where there is plenty. They are crashed, and the machine
    is not: what a process wrote outlives it on either, and only the tests wait for a disk that all of them share."""
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < ENOUGH_BYTES:
        return None
    return memory if _available_bytes() >= 2 * ENOUGH_BYTES else None


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
