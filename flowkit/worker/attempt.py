"""One attempt that this worker holds: its job, how far it is, and what it was told to do."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkit.core.facts import Usage
from flowkit.core.reports import AttemptReport, Failed, Released
from flowkit.wire.messages import Flowing, Held, Job
from flowkit.worker.registry import Kind, Role

if TYPE_CHECKING:
    from flowkit.worker.attempt_log import AttemptLog
    from flowkit.worker.attempt_secrets import Cover
    from flowkit.worker.context import Context
    from flowkit.worker.log_pipe import LogPipe
    from flowkit.worker.processes import Groups
    from flowkit.worker.stream_flow import StreamFlow

NEVER = float("-inf")
UNWIND_SEC = 5.0
"""How long an attempt that ran out of time may take to clean up, before nobody waits for it."""


class Phase(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Cause(enum.IntEnum):
    """Why an attempt is to end; a greater one overrules."""

    TIME = 1
    DRAIN = 2
    STOP = 3
    LOST = 4


@dataclass(frozen=True, slots=True)
class Order:
    """End the attempt. For `TIME`, `code` is that of the failure."""

    cause: Cause
    why: str
    grace_sec: float = UNWIND_SEC
    code: str = ""


class Attempt:
    """`base` is when its lease began, at the latest, and `renewed` when a renewal of it was last sent that came through
    (both in the worker's monotonic clock); for `good_sec` after that nobody else can have it. `lost` says that it was
    not renewed in time; `concluded_at` (epoch seconds), where somebody observes, when its report was on its way. The
    heart may live in another thread: it writes `renewed` and `lost`, and reads `base`, `phase`, `job`, `groups`,
    `progress` and `streams`; nothing else."""

    __slots__ = (
        "abandon", "announced", "base", "begun", "concluded_at", "context", "cover", "flow", "good_sec", "groups",
        "handler", "job", "limits", "lines", "lost", "order", "phase", "progress", "progress_at", "received_at",
        "renewed", "role", "run_sec", "started_at", "stop_by", "streams", "task", "token", "usage",
    )  # fmt: skip

    def __init__(self, job: Job, role: Role, base: float, received_at: float, good_sec: float = math.inf) -> None:
        self.job = job
        self.token = job.token
        self.role = role
        self.base = base
        self.received_at = received_at
        self.renewed = NEVER
        self.good_sec = good_sec
        self.phase = Phase.QUEUED
        self.lost = False
        self.begun = False
        self.announced = False
        self.started_at = received_at
        self.progress: tuple[float | None, float | None, str] | None = None
        self.streams: Flowing | None = None
        self.progress_at = received_at
        self.run_sec = 0.0
        self.concluded_at = 0.0
        self.usage: Usage | None = None
        self.order: Order | None = None
        self.stop_by: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        self.cover: Cover | None = None
        self.groups: Groups | None = None
        self.handler: object = None
        self.flow: StreamFlow | None = None
        self.lines: AttemptLog | None = None
        # Timers: those that bound its run, by name, and the one after which nobody waits for it any more.
        self.limits: dict[str, asyncio.TimerHandle] | None = None
        self.abandon: asyncio.TimerHandle | None = None

    @property
    def threaded(self) -> bool:
        """Whether a thread runs it, which nobody can interrupt."""
        return self.role.kind is Kind.PLAIN

    def held(self) -> Held:
        job = self.job
        return Held(job.token, job.task_id, job.tenant, job.partition, job.node, job.attempt, self.progress,
                    self.streams)  # fmt: skip

    def surely_ours(self, now: float) -> bool:
        """Whether nobody else can have its lease yet. Any thread may ask."""
        return not self.lost and now - max(self.base, self.renewed) <= self.good_sec

    def set_limit(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        if self.limits is None:
            self.limits = {}
        self.limits[name] = asyncio.get_running_loop().call_later(max(0.0, seconds), action)

    def clear_limits(self) -> None:
        if self.limits is not None:
            for timer in self.limits.values():
                timer.cancel()
            self.limits = None

    def hide(self, cover: Cover) -> None:
        """From now on it holds secrets, which this takes out of what it says."""
        self.cover = cover
        if self.lines is not None:
            self.lines.redact = cover.text

    def log_of(self, pipe: LogPipe) -> AttemptLog:
        """What it says; made when it says something for the first time."""
        if self.lines is None:
            self.lines = pipe.open(self.job)
            if self.cover is not None:
                self.lines.redact = self.cover.text
            if self.phase is Phase.DONE:
                self.lines.close()
        return self.lines

    def kill_processes(self) -> None:
        if self.groups is not None:
            self.groups.kill()

    def ordered_report(self) -> AttemptReport | None:
        """What is said of an attempt that ended because it was told to."""
        job, order = self.job, self.order
        if order is None or order.cause is Cause.LOST:
            return None
        if order.cause is Cause.TIME:
            error = {"code": order.code, "message": order.why, "type": "TimeoutError"}
            return Failed(job.node, job.attempt, job.token, error, run_sec=self.run_sec, usage=self._used(order.code))
        return Released(job.node, job.attempt, job.token, order.why, self._used("cancelled"))

    def _used(self, verdict: str) -> Usage | None:
        """What a program that was told to end has used up to then."""
        return None if self.usage is None else {**self.usage, "verdict": verdict}
