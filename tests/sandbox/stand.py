"""Runs programs for tests as a worker would, on the plain runtime, and notes what they say."""

from __future__ import annotations

from typing import Any

from flowkit.sandbox.languages import program_for
from flowkit.sandbox.lines import NothingSecret, Redactor
from flowkit.sandbox.outcome import Outcome
from flowkit.sandbox.plain import PlainRuntime
from flowkit.sandbox.runtime import Limits
from flowkit.sandbox.supervisor import Supervision, Work

RUNNER = "12345678-1234-5678-1234-567812345678"


class Notes:
    """Ears that remember."""

    def __init__(self) -> None:
        self.pid = 0
        self.lines: list[tuple[str, str]] = []
        self.steps: list[tuple[float | None, float | None, str]] = []
        self.stop = False
        self.batches: list[Any] = []

    def started(self, pid: int, end_signal: int) -> None:
        self.pid = pid

    def log(self, level: str, message: str) -> None:
        self.lines.append((level, message))

    def progress(self, done: float | None, total: float | None, message: str) -> None:
        self.steps.append((done, total, message))

    def cancelled(self) -> bool:
        return self.stop

    async def batch(self, value: Any) -> None:
        if value == "refuse":
            raise LookupError("no room, ever")
        self.batches.append(value)


def supervision(source: str, inputs: Any = None, *, language: str = "python", limits: Limits | None = None,
                secrets: dict[str, str] | None = None, redactor: Redactor | None = None,
                notes: Notes | None = None, **more: Any) -> Supervision:  # fmt: skip
    limits = limits if limits is not None else Limits(wall_sec=60)
    job = {
        "inputs": inputs, "bytes": [], "source": source, "file": "step.py", "node": "step", "runner_id": RUNNER,
        "path": [], "secrets": sorted(secrets or ()), "most_bytes": limits.output_mb * 1024 * 1024, **more,
    }  # fmt: skip
    work = Work(program_for(language, limits), job, secrets or {}, redactor or NothingSecret())
    return Supervision(PlainRuntime(trusted=True), work, notes if notes is not None else Notes())


async def run(source: str, inputs: Any = None, **options: Any) -> Outcome:
    return await supervision(source, inputs, **options).run(lambda: 1.0)
