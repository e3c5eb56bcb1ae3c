"""The Flow Trace Monitor beside a coordinator, in its process: what it writes down, and what it lets go of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from flowkit.config import CoordinatorConfig
from flowkit.errors import Corrupt, TaskNotFound
from flowkit.service import Supervisor
from flowkit.trace.log_reader import LogReader
from flowkit.trace.log_writer import LogWriter
from flowkit.trace.task_trace import Recorded
from flowkit.trace.traces import Traces
from flowkit.wire.topics import Topics

if TYPE_CHECKING:
    from flowkit.backend import Backend
    from flowkit.coordinator.history import History
    from flowkit.ports import Clock
    from flowkit.telemetry import Telemetry

EXPIRE_SEC: Final = 30.0
EXPIRE_BLOCKS: Final = 500
DRAIN_SEC: Final = 2.0


def traces_of(history: History, *, tenant: str = "default") -> Traces:
    """The questions about tasks whose histories these are."""

    async def load(task_id: str) -> Recorded:
        past = (await history.load([task_id], whole=True)).get(task_id)
        if past is None or past.head.tenant != tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")
        if past.task is None or past.first is None:
            raise Corrupt(f"task {task_id} is quarantined: {past.error}")
        return Recorded(past.head, past.first, await history.editions(past.commits), past.commits)

    return Traces(load)


class Monitor:
    """`logs` reads, whoever coordinates. `start` begins to write."""

    def __init__(self, *, backend: Backend, cfg: CoordinatorConfig, clock: Clock, telemetry: Telemetry) -> None:
        self._backend = backend
        self._cfg = cfg
        self._clock = clock
        self._topics = Topics(cfg.topic_prefix, cfg.facts_partitions)
        self._telemetry = telemetry
        self._supervisor = Supervisor("monitor", telemetry)
        self._writer = LogWriter(
            bus=backend.bus, topics=self._topics, group=cfg.log_group, store=backend.logs, clock=clock,
            telemetry=telemetry,
        )  # fmt: skip
        self.logs = LogReader(backend.store, backend.logs, clock)

    async def start(self) -> None:
        """Join those who write log lines down. Raises `BusUnavailable`."""
        await self._backend.bus.ensure_topics({self._topics.logs: self._topics.specs()[self._topics.logs]})
        await self._writer.start()
        self._supervisor.loop("logs", self._writer.step)
        if self._cfg.retention_logs_sec is not None:
            self._supervisor.loop("expire-logs", self._expire_logs, every=EXPIRE_SEC)

    async def stop(self) -> None:
        """Stop writing. Embedded, what was said until now is written first: the bus ends with the process."""
        await self._supervisor.stop()
        if self._backend.embedded:
            try:
                async with asyncio.timeout(DRAIN_SEC):
                    await self._writer.drain()
            except TimeoutError:
                self._telemetry.count("log_drains_cut_short")
        await self._writer.stop()

    async def _expire_logs(self) -> None:
        """Remove lines that are older than they are kept, so many at a time that others get their turn."""
        keep = self._cfg.retention_logs_sec
        assert keep is not None
        while await self._backend.logs.expire_logs(self._clock.wall() - keep, limit=EXPIRE_BLOCKS) == EXPIRE_BLOCKS:
            pass
