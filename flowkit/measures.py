"""What is measured: every metric by name, with its labels and what it tells. Names follow Prometheus's conventions.

Labels are few and bounded: roles, outcomes, verbs. No task, node or worker is one; a tenant only where that is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, for what should be over at once."""
LONG: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds, for what may take its time."""

COORDINATOR: Final = "coordinator"
WORKER: Final = "worker"
BOTH: Final = "both"


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric. `by` says who tells it: coordinators, workers, or both."""

    name: str
    kind: Kind
    by: str
    labels: tuple[str, ...]
    about: str
    buckets: tuple[float, ...] = ()


def _counter(name: str, by: str, about: str, *labels: str) -> Measure:
    return Measure(name, "counter", by, labels, about)


def _gauge(name: str, by: str, about: str, *labels: str) -> Measure:
    return Measure(name, "gauge", by, labels, about)


def _seconds(name: str, by: str, about: str, *labels: str, buckets: tuple[float, ...] = LONG) -> Measure:
    return Measure(name, "histogram", by, labels, about, buckets)


TASKS: Final = _counter(
    "flowkit_tasks_total", COORDINATOR, "tasks that ended, by `finished`, `failed`, `cancelled`; each restart counts",
    "status",
)  # fmt: skip
TASK_SECONDS: Final = _seconds(
    "flowkit_task_duration_seconds", COORDINATOR, "from a task's acceptance to its end", "status"
)
ATTEMPTS: Final = _counter(
    "flowkit_attempts_total", COORDINATOR,
    "attempts that ended, by `succeeded`, `failed`, `lost` (through no fault of the node), `cancelled`",
    "role", "outcome",
)  # fmt: skip
WAIT_SECONDS: Final = _seconds(
    "flowkit_attempt_wait_seconds", COORDINATOR, "from when a node was ready until a worker had its lease", "role"
)
DISPATCH_SECONDS: Final = _seconds(
    "flowkit_attempt_dispatch_seconds", COORDINATOR,
    "from when a node was ready until the bus had its work for the worker", "role",
)  # fmt: skip
RUN_SECONDS: Final = _seconds(
    "flowkit_attempt_run_seconds", COORDINATOR, "how long handlers ran, as their workers measured it", "role", "outcome"
)
READY: Final = _gauge(
    "flowkit_ready_attempts", COORDINATOR, "nodes that are ready and wait for room at a worker of the role", "role"
)
LEASED: Final = _gauge("flowkit_leased_attempts", COORDINATOR, "attempts that workers have leases for", "role")
WORKERS: Final = _gauge("flowkit_workers", COORDINATOR, "live workers that serve the role", "role")
ROLE_SLOTS: Final = _gauge(
    "flowkit_role_slots", COORDINATOR, "how many attempts the role's workers run at once", "role"
)
LOAD: Final = _gauge(
    "flowkit_role_load", COORDINATOR,
    "(queued + running) / slots: what to scale workers by; with no worker, queued alone. Sum it over coordinators",
    "role",
)  # fmt: skip
PARTITIONS: Final = _gauge("flowkit_partitions_owned", COORDINATOR, "partitions of tasks that this coordinator owns")
IN_MEMORY: Final = _gauge("flowkit_tasks_in_memory", COORDINATOR, "tasks that this coordinator has in memory")
COMMITS_WAITING: Final = _gauge("flowkit_commits_waiting", COORDINATOR, "decisions that wait to be written")
MESSAGES_WAITING: Final = _gauge("flowkit_messages_waiting", COORDINATOR, "messages that wait to be handed to the bus")
SWEEP_LAG: Final = _gauge(
    "flowkit_sweep_lag_seconds", COORDINATOR, "since the last sweep was done: grows while the store does not answer"
)
TAKEOVERS: Final = _counter("flowkit_partitions_taken_total", COORDINATOR, "partitions that came to this coordinator")
HANDOVERS: Final = _counter("flowkit_partitions_lost_total", COORDINATOR, "partitions that went to another")
EXPIRED: Final = _counter(
    "flowkit_leases_expired_total", COORDINATOR, "leases of workers that were not heard of in time, or never got them"
)
RELOADS: Final = _counter(
    "flowkit_tasks_reloaded_total",
    COORDINATOR,
    "tasks loaded again: another decided, or an answer was not clear",
    "why",
)
QUARANTINED: Final = _counter(
    "flowkit_tasks_quarantined_total", COORDINATOR, "tasks, or reports about them, that could not be decided"
)
DEAD: Final = _counter("flowkit_dead_messages_total", BOTH, "messages that nobody could read or apply", "topic")
LOOPS: Final = _counter("flowkit_loop_failures_total", BOTH, "steps of background loops that raised", "loop")
EVENTS: Final = _counter(
    "flowkit_events_total", BOTH,
    "everything else that is counted: stale reports, declines, log bytes lost, spans dropped ...", "event",
)  # fmt: skip
STORE_SECONDS: Final = _seconds(
    "flowkit_store_seconds", BOTH, "how long the store took to answer", "verb", "failed", buckets=SHORT
)
BUS_SECONDS: Final = _seconds(
    "flowkit_bus_seconds", BOTH, "how long the bus took to acknowledge what was published", "verb", "failed",
    buckets=SHORT,
)  # fmt: skip
SLOTS: Final = _gauge("flowkit_worker_slots", WORKER, "how many attempts this worker runs at once")
SLOTS_USED: Final = _gauge("flowkit_worker_slots_used", WORKER, "attempts that run now")
QUEUED: Final = _gauge("flowkit_worker_queued_attempts", WORKER, "attempts that this worker has and does not run yet")
UNSENT: Final = _gauge(
    "flowkit_worker_results_waiting", WORKER, "attempts that are over, whose report is not acknowledged yet"
)
RUNS: Final = _counter(
    "flowkit_worker_attempts_total", WORKER,
    "attempts that this worker ended, by `succeeded`, `failed`, `released`, `lost`", "role", "outcome",
)  # fmt: skip
QUEUE_SECONDS: Final = _seconds(
    "flowkit_worker_queue_seconds", WORKER, "from when an attempt came to this worker until it ran", "role"
)
WORKER_RUN_SECONDS: Final = _seconds(
    "flowkit_worker_run_seconds", WORKER, "how long handlers ran here", "role", "outcome"
)
KILLED: Final = _counter(
    "flowkit_worker_attempts_killed_total", WORKER,
    "attempts that this worker stopped: `timeout`, `revoked`, `drain`, `no_renewal`", "why",
)  # fmt: skip
CAPPED: Final = _counter(
    "flowkit_labels_capped_total", BOTH, "values that were counted as `other`, because a label had too many", "label"
)

MEASURES: Final[tuple[Measure, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Measure))
