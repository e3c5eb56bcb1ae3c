"""Notes of processes that are measured: when each passes a place on the way of something, by the machine's monotonic
clock, which they share; and how much CPU its thread had by then, and for how long it had waited for a core."""

from __future__ import annotations

import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK_SEC = 0.001
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
        self._ticked = 0.0

    def note(self, key: str, place: str, at: float | None = None) -> None:
        """`at`: when it was passed, where that was earlier."""
        if (key, place) not in self._seen:
            self._seen.add((key, place))
            self._write(key, place, time.monotonic() if at is None else at)

    def tick(self) -> None:
        """To be called often: how far the thread is now, unless that was noted just before."""
        now = time.monotonic()
        if now - self._ticked >= TICK_SEC:
            self._ticked = now
            self._write("", "", now)

    def _write(self, key: str, place: str, at: float) -> None:
        cpu, queued, _ = os.pread(self._schedule, 100, 0).split()
        self._file.write(json.dumps([key, place, at, int(cpu) / 1e9, int(queued) / 1e9]) + "\n")


def read(folder: Path) -> tuple[dict[str, dict[str, Note]], dict[int, Thread]]:
    """The notes of all processes, by what passed and place; and their threads."""
    found: dict[str, dict[str, Note]] = {}
    threads: dict[int, Thread] = {}
    for file in folder.glob("*.notes"):
        ticks: list[Note] = []
        for line in file.read_text().splitlines():
            key, place, *readings = json.loads(line)
            note = Note(int(file.stem), *readings)
            if key:
                found.setdefault(key, {}).setdefault(place, note)
            else:
                ticks.append(note)
        threads[int(file.stem)] = Thread(ticks)
    return found, threads


class Thread:
    """How far a thread was at any time, by its ticks."""

    def __init__(self, ticks: Sequence[Note]) -> None:
        self._ticks = ticks
        self._times = [tick.at for tick in ticks]

    def spent(self, began: float, ended: float) -> tuple[float, float]:
        """The seconds of CPU that it had between two moments, and those that it waited for a core."""
        first, last = self._at(began), self._at(ended)
        return last[0] - first[0], last[1] - first[1]

    def _at(self, moment: float) -> tuple[float, float]:
        place = bisect_left(self._times, moment)
        if place in (0, len(self._ticks)):  # it did nothing before its first tick, nor after its last
            end = self._ticks[min(place, len(self._ticks) - 1)]
            return end.cpu, end.queued
        before, after = self._ticks[place - 1], self._ticks[place]
        part = (moment - before.at) / (after.at - before.at)
        return before.cpu + part * (after.cpu - before.cpu), before.queued + part * (after.queued - before.queued)


def replace(owner: Any, name: str, function: Any) -> None:
    """Put a function in the place of another, which it calls."""
    setattr(owner, name, function)


def before(owner: Any, name: str, see: See, notes: Notes) -> None:
    """Note what `see` finds in the arguments of a function whenever it is called."""
    inner = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        notes.tick()
        for key, place in see(*args, **kwargs):
            notes.note(key, place)
        return inner(*args, **kwargs)

    replace(owner, name, noted)


def after(owner: Any, name: str, see: See, notes: Notes) -> None:
    """The same, once the coroutine has ended."""
    inner = getattr(owner, name)

    async def noted(*args: Any, **kwargs: Any) -> Any:
        result = await inner(*args, **kwargs)
        for key, place in see(*args, **kwargs):
            notes.note(key, place)
        return result

    replace(owner, name, noted)
