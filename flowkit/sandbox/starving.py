"""Tells a program that waits for ever for memory: Node.js, as it begins, waits for a thread that could not be made."""

from __future__ import annotations

import os
from typing import Final

_UNBOUNDED: Final = "unlimited"


class Starving:
    """Looks, again and again, at the first process that `keeper` has started; only where its memory is bounded by a
    limit of the system. `look` says whether it cannot get another thread's stack, and has not moved since the last."""

    def __init__(self, keeper: int) -> None:
        self._keeper = keeper
        self._last: int | None = None

    def look(self) -> bool:
        last, self._last = self._last, None
        try:
            children = _read(f"{self._keeper}/task/{self._keeper}/children").split()
            if not children or not _is_full(children[0]):
                return False
            self._last = _ticks_of_sleepers(children[0])
        except OSError:
            return False  # it has ended meanwhile
        return last is not None and last == self._last


def _is_full(pid: str) -> bool:
    limits = {line[:25].strip(): line[25:].split() for line in _read(f"{pid}/limits").splitlines()}
    data, stack = limits["Max data size"][0], limits["Max stack size"][0]
    if _UNBOUNDED in (data, stack):
        return False
    status = dict(line.split(":", 1) for line in _read(f"{pid}/status").splitlines())
    return int(status.get("VmData", "0").split()[0]) * 1024 + int(stack) > int(data)


def _ticks_of_sleepers(pid: str) -> int | None:
    """The CPU time that all its threads have used; None if one is awake."""
    ticks = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        words = _read(f"{pid}/task/{thread}/stat").rpartition(")")[2].split()
        if words[0] != "S":
            return None
        ticks += int(words[11]) + int(words[12])
    return ticks


def _read(path: str) -> str:
    with open(f"/proc/{path}") as file:
        return file.read()
