"""What happens too often to be told to nobody: made only where somebody observes, for metrics and spans.

Times are epoch seconds by the clock of the process that observed; of what was committed, as it was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.core.model import Task
    from flowkit.ports import Head
    from flowkit.wire.messages import Job

# What coordinators observe.


@dataclass(frozen=True, slots=True)
class WorkSent:
    """An attempt's work is with the bus. It waited for a worker since `ready_at`, had one at `leased_at`, and was under
    way from `began_at` to `ended_at`; `together`: in one message with so many."""

    job: Job
    topic: str
    ready_at: float
    leased_at: float
    began_at: float
    ended_at: float
    together: int


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The end of an attempt is acknowledged; what was reported of it came by `topic`. `outcome` is `succeeded`,
    `failed`, `lost` or `cancelled`; `code` the error's, or why it was lost or cancelled. `ended_at` is when that was
    decided, `acked_at` when it was stored; `child` the task that it was, or empty. `task` is as it stands now: not to
    be kept."""

    head: Head
    task: Task
    topic: str
    node: str
    role: str
    attempt: int
    outcome: str
    code: str
    worker: str
    child: str
    ready_at: float
    leased_at: float
    ended_at: float
    acked_at: float
    run_sec: float


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """A node that no worker runs has ended: it slept, waited for a signal, or called a coordinator's function."""

    head: Head
    node: str
    type: str
    generation: int
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The end of a task, or of one of its generations, is acknowledged."""

    head: Head
    generation: int
    status: str
    code: str
    began_at: float
    ended_at: float


# What workers observe.


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A worker begins with an attempt that came by `topic`. Told in the asyncio task that runs it: what is set in its
    context holds for the handler."""

    job: Job
    topic: str
    worker: str
    received_at: float
    began_at: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A worker is done with an attempt that it had begun. `outcome` as of `AttemptEnded`, or `released`."""

    job: Job
    worker: str
    outcome: str
    code: str
    began_at: float
    ended_at: float
    run_sec: float


@dataclass(frozen=True, slots=True)
class ReportSent:
    """The report of an attempt's end is with the bus."""

    job: Job
    topic: str
    began_at: float
    ended_at: float


# What both observe.


@dataclass(frozen=True, slots=True)
class Took:
    """The store or the bus answered, or failed, after so many seconds."""

    port: str
    verb: str
    seconds: float
    failed: bool


Observation = WorkSent | AttemptEnded | NodeEnded | TaskEnded | RunBegan | RunEnded | ReportSent | Took


@dataclass(frozen=True, slots=True)
class Reading:
    """How something stands at this moment: a gauge, by its name and labels."""

    name: str
    value: float
    labels: Sequence[str] = ()
