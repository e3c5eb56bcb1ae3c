"""Runs a process with a limit on its time; when that is over, whatever it has started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

AFTER_KILL_SEC = 20


def run_family(
    command: Sequence[str], *, said: str, folder: Path, environment: Mapping[str, str], limit_sec: float
) -> subprocess.CompletedProcess[str]:
    """What the process printed, given `said`. Raises `subprocess.TimeoutExpired` once it and its group are dead."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
                          start_new_session=True) as process:  # fmt: skip
        try:
            out, err = process.communicate(said, timeout=limit_sec)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=AFTER_KILL_SEC)  # its pipes end once nobody of the group holds them
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
