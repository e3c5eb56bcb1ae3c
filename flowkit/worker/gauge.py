"""Measures this process for its heartbeats."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")


class ProcessGauge:
    """The share of one CPU used since the last reading, and the resident memory in MB."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._at = time.monotonic()

    def __call__(self) -> tuple[float, float]:
        cpu, at = time.process_time(), time.monotonic()
        share = (cpu - self._cpu) / max(at - self._at, 1e-6)
        self._cpu, self._at = cpu, at
        return round(share, 3), round(_memory_mb(), 1)


def _memory_mb() -> float:
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux: the peak instead
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
