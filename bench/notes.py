"""Notes of processes that are measured: when each passes a place on the way of something, by the machine's monotonic
clock, which they share; and how much CPU its thread had by then, and for how long it had waited for a core."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Passed = tuple[str, str]
"""What passes (a task, an attempt), and the place."""
See = Callable[..., Iterable[Passed]]


@dataclass(frozen=True, slots=True)
class Note:
    """`at`, `cpu` and `queued` are seconds: the shared clock, the CPU time of the thread so far, and how long it has
    been ready to run without a core."""

    pid: int
    at: float
    cpu: float
    queued: float


class Notes:
    """One line per place and key, the first time that it is passed. To be used by one thread."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"{os.getpid()}.notes").open("a", buffering=1)
        self._seen: set[Passed] = set()
        self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def note(self, key: str, place: str, at: float | None = None) -> None:
        """`at`: when it was passed, where that was earlier."""
        if (key, place) not in self._seen:
            self._seen.add((key, place))
            cpu, queued, _ = os.pread(self._schedule, 100, 0).split()
            row = [key, place, time.monotonic() if at is None else at, int(cpu) / 1e9, int(queued) / 1e9]
            self._file.write(json.dumps(row) + "\n")


def read(folder: Path) -> dict[str, dict[str, Note]]:
    """The notes of all processes, by what passed and place."""
    found: dict[str, dict[str, Note]] = {}
    for file in folder.glob("*.notes"):
        for line in file.read_text().splitlines():
            key, place, *readings = json.loads(line)
            found.setdefault(key, {}).setdefault(place, Note(int(file.stem), *readings))
    return found


def before(owner: Any, name: str, see: See, notes: Notes) -> None:
    """Note what `see` finds in the arguments of a function whenever it is called."""
    inner = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        for key, place in see(*args, **kwargs):
            notes.note(key, place)
        return inner(*args, **kwargs)

    setattr(owner, name, noted)


def after(owner: Any, name: str, see: See, notes: Notes) -> None:
    """The same, once the coroutine has ended."""
    inner = getattr(owner, name)

    async def noted(*args: Any, **kwargs: Any) -> Any:
        result = await inner(*args, **kwargs)
        for key, place in see(*args, **kwargs):
            notes.note(key, place)
        return result

    setattr(owner, name, noted)
