"""Runs the code of nodes in the sandbox, so many at a time: the inside of a node processing unit."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flowkit.config import WorkerConfig
from flowkit.core.code import LONGEST_SOURCE, PLACEHOLDER
from flowkit.core.redaction import Redactor
from flowkit.errors import ConfigError, FlowKitError
from flowkit.npu_control import DONE, ERROR
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.languages import program_for
from flowkit.sandbox.outcome import Outcome, usage_of
from flowkit.sandbox.runtime import Limits, Runtime
from flowkit.sandbox.supervisor import Supervision, Work
from flowkit.service import Supervisor
from flowkit.services.door import Refusal
from flowkit.services.lines import Lines
from flowkit.services.names import NAME_RULE
from flowkit.services.settings import Settings
from flowkit.telemetry import Telemetry
from flowkit.worker.program_setup import open_runtime
from flowkit.worker.programs import lift_bytes

QUEUED: Final = "QUEUED"
RUNNING: Final = "RUNNING"
ENDED: Final = (DONE, ERROR)
CANCELLED: Final = ("cancelled", "it was ended by whoever asked for it")
STOPPED: Final = ("E_DRAINING", "the unit stopped before it ended")
OUTPUT_MB: Final = 8
MB: Final = 1024 * 1024
GRACE_SEC: Final = 2.0
MOST_KEPT: Final = 1000
MOST_KEPT_BYTES: Final = 64 * MB


@dataclass(frozen=True, slots=True)
class NodeJob:
    """One node to be run. `secrets` are the values that its code may look up."""

    node_name: str
    source: str
    inputs: Any
    runner_id: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> list[str]:
        """The secrets that the code asks for."""
        return names_in(self.source)


@dataclass(eq=False, slots=True)
class NodeRun:
    """How a node's run goes. `status` is QUEUED or RUNNING, then DONE or ERROR."""

    node_name: str
    runner_id: str
    status: str = QUEUED
    lines: Lines = field(default_factory=Lines)
    nodes: list[str] = field(default_factory=list)
    outputs: Any = field(default_factory=dict)
    message: str = ""
    code: str = ""
    traceback: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def logs(self) -> list[str]:
        return self.lines.kept

    def result(self) -> dict[str, Any]:
        """The result by the names of the predecessors, and what was not known there: the error's code and traceback,
        and what it used."""
        said = {"nodes": self.nodes, "outputs": self.outputs, "message": self.message, "status": self.status}
        more = {"code": self.code, "traceback": self.traceback, "usage": self.usage}
        return said | {name: value for name, value in more.items() if value}

    def line(self, level: str, message: str) -> None:
        """Note a line of the log, in the form that the SDK gives it by hand."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self.lines.note(f"[{level.upper()}][{self.node_name}][{self.runner_id}][{now}] {message}")


class Unit:
    """`PARALLEL_PROCESS` nodes run at a time, `QUEUE` more wait. What ended is remembered for a while: the last
    thousand, of 64 MiB together."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self.parallel = settings.whole("PARALLEL_PROCESS", 1, 1000)
        self._queue = settings.whole("QUEUE", 0, 100_000)
        self._limits = Limits(
            memory_mb=settings.whole("MEMORY_MB", 16, 1_048_576), wall_sec=settings.number("WALL_SEC", 0.1, 86_400),
            cpu_sec=settings.number("WALL_SEC", 0.1, 86_400), output_mb=OUTPUT_MB,
        )  # fmt: skip
        self._packages = packages_of(settings)
        self._supervisor = Supervisor("unit", telemetry)
        self._slots = asyncio.Semaphore(self.parallel)
        self._runs: OrderedDict[str, NodeRun] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runtime: Runtime | None = None
        self._since = time.monotonic()
        self._kept_bytes = 0
        self.successful = self.failed = 0
        self.draining = False
        self._cancelled = CANCELLED

    async def start(self) -> None:
        """Find out how programs run here. Raises `ConfigError` where they cannot."""
        try:
            self._runtime = await open_runtime(WorkerConfig.load())
        except CannotStart as error:
            raise ConfigError(f"code cannot be run here: {error}") from error

    @property
    def level(self) -> str:
        return self._runtime.level.name if self._runtime is not None else ""

    def figures(self) -> dict[str, float | int]:
        """The pool's figures, by the names of the predecessors."""
        return {
            "uptime": round(time.monotonic() - self._since, 1),
            "successful_tasks": self.successful,
            "failed_tasks": self.failed,
            "queued_tasks": self.open,
        }

    @property
    def open(self) -> int:
        """How many run, or wait for it."""
        return len(self._tasks)

    def submit(self, job: NodeJob) -> NodeRun:
        """Take a node. Raises `Refusal` where there is no room, or one of this id is there already."""
        if self.draining:
            raise Refusal(503, "E_DRAINING", "this unit is about to stop: ask another", retry_after=1)
        if job.runner_id in self._runs:
            raise Refusal(409, "E_RUNNER_ID", f"{job.runner_id} ran here already: each run has a runner_id of its own")
        if self.open >= self.parallel + self._queue:
            say = f"{self.open} nodes run or wait here: ask again later, or another unit"
            raise Refusal(503, "E_BUSY", say, retry_after=1)
        run = NodeRun(job.node_name, job.runner_id)
        self._runs[job.runner_id] = run
        task = self._supervisor.spawn(self._run(job, run), f"node-{job.runner_id}")
        self._tasks[job.runner_id] = task
        # Not in a `finally` of its own, which a task that is cancelled before it begins never reaches.
        task.add_done_callback(lambda _: self._ended(run))
        return run

    def find(self, runner_id: str) -> NodeRun | None:
        """A run that is there, or is remembered."""
        return self._runs.get(runner_id)

    def cancel(self, runner_id: str) -> bool:
        """End a run; False where there is none."""
        task = self._tasks.get(runner_id)
        return task is not None and task.cancel()

    async def stop(self, within_sec: float) -> None:
        """Take nothing any more, let what is there end within so many seconds, and end the rest."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=within_sec)
        self._cancelled = STOPPED
        await self._supervisor.stop(GRACE_SEC + 5)
        if self._runtime is not None:
            await self._runtime.close()

    # ------------------------------------------------------------------------------------------ one run

    async def _run(self, job: NodeJob, run: NodeRun) -> None:
        try:
            async with self._slots:
                run.status = RUNNING
                self._note(run, await self._outcome(job, run))
        except asyncio.CancelledError:
            run.status, (run.code, run.message) = ERROR, self._cancelled
            raise
        except (CannotStart, FlowKitError) as error:
            run.status, run.code, run.message = ERROR, error.code, str(error)

    async def _outcome(self, job: NodeJob, run: NodeRun) -> Outcome:
        assert self._runtime is not None
        redactor = await asyncio.to_thread(Redactor, list(job.secrets.values()))
        inputs, rows = lift_bytes(job.inputs)
        told = {
            "inputs": inputs, "bytes": rows, "source": job.source, "file": f"{job.node_name}.py", "node": job.node_name,
            "task_id": "", "attempt": 1, "idempotency_key": job.runner_id, "runner_id": job.runner_id,
            "path": list(self._packages), "secrets": list(job.secrets), "most_bytes": OUTPUT_MB * MB,
        }  # fmt: skip
        program = program_for("python", self._limits, packages=self._packages,
                              warm=f"python {' '.join(self._packages)}".strip())  # fmt: skip
        work = Work(program, told, job.secrets, redactor, large=len(job.source) > 64 * 1024)
        return await Supervision(self._runtime, work, _Ears(run)).run(lambda: GRACE_SEC)

    def _note(self, run: NodeRun, outcome: Outcome) -> None:
        run.usage = usage_of(outcome.usage, outcome.verdict, self._runtime.level if self._runtime else 0)
        if outcome.failure is not None:
            failure = outcome.failure
            run.code, run.message, run.traceback = failure.code, failure.message, failure.traceback
            run.status = ERROR
            return
        assert outcome.result is not None
        run.nodes, run.outputs = list(outcome.result.next or ()), outcome.result.output
        run.message, run.status = outcome.result.message, DONE

    def _ended(self, run: NodeRun) -> None:
        del self._tasks[run.runner_id]
        if run.status not in ENDED:
            began = run.status == RUNNING
            run.code, run.message = ("E_INTERNAL", "the unit failed; its log says how") if began else self._cancelled
            run.status = ERROR
        if run.status == DONE:
            self.successful += 1
        else:
            self.failed += 1
        run.size = len(repr(run.outputs)) + run.lines.size + len(run.traceback)
        self._kept_bytes += run.size
        run.ended.set()
        self._runs.move_to_end(run.runner_id)
        for name, old in list(self._runs.items()):
            if len(self._runs) <= MOST_KEPT + self.open and self._kept_bytes <= MOST_KEPT_BYTES:
                break
            if old.ended.is_set() and old is not run:
                self._kept_bytes -= old.size
                del self._runs[name]


class _Ears:
    """Notes what a program says."""

    def __init__(self, run: NodeRun) -> None:
        self._run = run

    def started(self, pid: int, end_signal: int) -> None: ...

    def log(self, level: str, message: str) -> None:
        self._run.line(level, message)

    def progress(self, done: float | None, total: float | None, message: str) -> None:
        self._run.line("info", f"progress {done} of {total} {message}".strip())

    def cancelled(self) -> bool:
        return False

    async def batch(self, value: Any) -> None:
        raise FlowKitError("a node that is run by a unit gives one result: return it, do not yield", code="bad_output")


def read_job(node_name: str, code: str, inputs: Any, runner_id: str, source: str) -> NodeJob:
    """A job whose parts were looked at. `source` is the text of `code`. Raises `Refusal`."""
    if not NAME_RULE.fullmatch(node_name):
        raise Refusal(422, "E_NODE_NAME", "node_name is a text of at most 128 characters, without `/` or control signs")
    if len(source) > LONGEST_SOURCE:
        raise Refusal(413, "E_TOO_LARGE", f"the code has more than {LONGEST_SOURCE:,} characters")
    if not isinstance(inputs, dict):
        raise Refusal(422, "E_REQUEST", f"inputs is an object, not {type(inputs).__name__}")
    return NodeJob(node_name, source, inputs, checked_runner_id(runner_id))


def checked_runner_id(runner_id: str) -> str:
    """Raises `Refusal` for what is no UUID."""
    try:
        return str(uuid.UUID(runner_id))
    except ValueError:
        raise Refusal(422, "E_RUNNER_ID", f"runner_id is a UUID, not {runner_id[:60]!r}") from None


def names_in(source: str) -> list[str]:
    """The secrets that a program's placeholders name."""
    return list(dict.fromkeys(PLACEHOLDER.findall(source)))


def packages_of(settings: Settings) -> tuple[str, ...]:
    """Where the code's own environment keeps its packages: that of VENV_PATH (or EXECUTION_ENV_PATH), which must be of
    this Python's version. Raises `ConfigError`."""
    name = "VENV_PATH" if settings.text("VENV_PATH") else "EXECUTION_ENV_PATH"
    said = settings.text(name)
    if not said:
        return ()
    home = Path(said).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    if not packages.is_dir():
        raise ConfigError(
            f"{name} is a virtual environment of {version}, which has a folder {packages}: make one with "
            f"{version} -m venv"
        )
    return (str(packages),)
