"""The ledger: what handlers say they did, in a file of their own that no part of FlowKit reads or writes."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.testing import Start


class Pen:
    """Writes lines of one process; each is one append, so that lines of several processes never mix."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @contextmanager
    def run(self, ctx: Any) -> Iterator[None]:
        """Note that a handler starts, and how it ended; one that was killed leaves no end."""
        about = [ctx.task_id, ctx.node_id, ctx.attempt, ctx.worker_id, os.getpid(), ctx.idempotency_key]
        self._write("start", about)
        how = "stopped"
        try:
            yield
            how = "done"
        finally:
            self._write(how, about)

    def _write(self, what: str, about: list[Any]) -> None:
        os.write(self._file, json.dumps([time.time(), what, *about]).encode() + b"\n")


@dataclass(slots=True)
class Run:
    """One start of a handler. `how` it ended: `done`, `stopped` (cancelled), or nothing, if it did not or was killed.
    Times are of this machine's wall clock."""

    task_id: str
    node: str
    attempt: int
    worker: str
    pid: int
    key: str
    began: float
    ended: float | None = None
    how: str = ""

    def running_at(self, at: float, grace: float = 0.0) -> bool:
        """Whether it ran then; or had ended less than `grace` seconds before, its result hardly on its way."""
        return self.began <= at and (self.ended is None or self.ended > at - grace)

    def as_start(self) -> Start:
        return Start(self.task_id, self.node, self.attempt, self.key, self.worker, self.began, self.ended)


class Ledger:
    """Reads the file as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: list[Run] = []
        self._open: dict[tuple[Any, ...], Run] = {}
        self._read = 0
        path.touch()

    def look(self) -> None:
        """Take in what was written since."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole, _, _ = data.rpartition(b"\n")
        if not whole:
            return
        self._read += len(whole) + 1
        for line in whole.split(b"\n"):
            self._take(json.loads(line))

    def running(self, at: float | None = None, *, except_workers: frozenset[str] = frozenset()) -> list[Run]:
        """The attempts that run now, as far as is known; those of dead workers must be left out by name."""
        self.look()
        now = time.time() if at is None else at
        return [run for run in self._open.values() if run.worker not in except_workers and run.running_at(now)]

    def by_key(self) -> dict[str, list[Run]]:
        """The starts of each idempotency key, in order."""
        found: defaultdict[str, list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.began):
            found[run.key].append(run)
        return found

    def _take(self, line: list[Any]) -> None:
        at, what, task_id, node, attempt, worker, pid, key = line
        place = (task_id, node, attempt, worker, pid)
        if what == "start":
            run = self._open[place] = Run(task_id, node, attempt, worker, pid, key, at)
            self.runs.append(run)
        elif (run := self._open.pop(place, None)) is not None:
            run.ended, run.how = at, what
