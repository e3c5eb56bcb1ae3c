"""Sees to it that a worker killed with SIGKILL leaves none of its handlers' processes behind.

A small shell holds the reading end of a pipe. The worker writes down the process groups it starts; when the pipe ends
because the worker is gone, however it went, the shell kills those that are left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

_SCRIPT = """
trap '' TERM INT HUP
groups=" "
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class Undertaker:
    """Starts its shell with the first process group to watch. Where there is no shell, nothing is watched."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._tried = False

    def watch(self, group: int) -> None:
        if not self._tried:
            self._tried = True
            self._start()
        self._write(f"+ {group}\n")

    def forget(self, group: int) -> None:
        self._write(f"- {group}\n")

    def stop(self) -> None:
        """The worker leaves in good order: what is still noted is killed, and the shell ends."""
        if self._shell is not None:
            os.close(self._pipe)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._shell.wait(timeout=2)
        self._shell, self._pipe = None, -1

    def _start(self) -> None:
        if sys.platform == "win32":
            return
        reader, writer = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT], stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, close_fds=True,
            )  # fmt: skip
            os.set_blocking(writer, False)
            self._pipe = writer
        except OSError:
            os.close(writer)
        finally:
            os.close(reader)

    def _write(self, line: str) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self._pipe, line.encode())
