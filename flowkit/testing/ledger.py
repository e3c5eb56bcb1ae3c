"""The ledger of a real cluster: a file of JSON lines in which handlers say when they start and when they end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowkit.testing.evidence import UNKNOWN, Start


class LedgerFile:
    """A ledger that processes on one machine share: each line is appended in one write. For soaks of real clusters."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextmanager
    def run(
        self, *, task_id: str, node: str, attempt: int, key: str, worker: str, inputs: Any = None
    ) -> Iterator[None]:
        """Write down that a handler starts, and when it has ended; a killed one leaves no end."""
        place = {"task_id": task_id, "node": node, "attempt": attempt, "worker": worker, "pid": os.getpid()}
        self._write({"at": time.time(), "what": "start", "key": key, "inputs": inputs, **place})
        try:
            yield
        finally:
            self._write({"at": time.time(), "what": "end", **place})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def read(self) -> list[Start]:
        """Every start that was written, with its end where there is one."""
        starts: list[Start] = []
        running: dict[tuple[Any, ...], Start] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            row = json.loads(line)
            place = (row["task_id"], row["node"], row["attempt"], row["worker"], row["pid"])
            if row["what"] == "start":
                start = Start(
                    row["task_id"], row["node"], row["attempt"], row["key"], row["worker"], row["at"],
                    inputs=row.get("inputs", UNKNOWN),
                )  # fmt: skip
                starts.append(start)
                running[place] = start
            elif (begun := running.pop(place, None)) is not None:
                begun.ended_at = row["at"]
        return starts
