"""Bytes that a process, and all that it has reaped, moved through reads and writes, as the kernel counts them."""

from __future__ import annotations

import os

_LONGEST = 4096
_UNKNOWN = (-1, -1)


class Counters:
    """Those of this process."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel that does not count
            self._file = -1

    def read(self) -> tuple[int, int]:
        """To be given to `since`."""
        if self._file < 0:
            return _UNKNOWN
        text, read, written = self._look()
        return read + len(text), written  # reading it counts as well, but only afterwards

    def since(self, before: tuple[int, int]) -> tuple[int, int]:
        """What was read and written since then; less than nothing if that is not known."""
        if self._file < 0:
            return _UNKNOWN
        _, read, written = self._look()
        return read - before[0], written - before[1]

    def _look(self) -> tuple[bytes, int, int]:
        text = os.pread(self._file, _LONGEST, 0)
        words = text.split()  # rchar: N wchar: N ...
        return text, int(words[1]), int(words[3])
