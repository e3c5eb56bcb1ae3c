"""The Flow Trace Monitor beside a coordinator, in its process: what it writes down, and what it lets go of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from flowkit.config import CoordinatorConfig
from flowkit.errors import Corrupt, TaskNotFound
from flowkit.monitor_ports import DAY_SEC, Seen
from flowkit.service import Supervisor
from flowkit.trace.indexer import Indexer
from flowkit.trace.log_reader import LogReader
from flowkit.trace.log_writer import LogWriter
from flowkit.trace.task_trace import Recorded
from flowkit.trace.traces import MOST_DAYS, Traces
from flowkit.wire.topics import Topics

if TYPE_CHECKING:
    from flowkit.backend import Backend
    from flowkit.coordinator.cell import Cell
    from flowkit.coordinator.history import History, Past
    from flowkit.ports import Clock
    from flowkit.telemetry import Telemetry

EXPIRE_SEC: Final = 30.0
EXPIRE_BLOCKS: Final = 500
DRAIN_SEC: Final = 2.0
INDEX_SEC: Final = 0.1
LINGER_SEC: Final = 10.0
RECORDS_LINGER_SEC: Final = 0.5
"""So long a task that ended waits for others that are counted with it, without a record of each attempt and with one:
what is counted together costs a few documents, and a burst of tasks is over before they are counted."""
EXPIRE_ROLLUPS_SEC: Final = 3600.0


def traces_of(history: History, backend: Backend, clock: Clock, *, tenant: str = "default") -> Traces:
    """The questions about tasks whose histories these are."""

    async def load(task_id: str) -> Recorded:
        past = (await history.load([task_id], whole=True)).get(task_id)
        if past is None or past.head.tenant != tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")
        if past.task is None:
            raise Corrupt(f"task {task_id} is quarantined: {past.error}")
        return await _recorded(history, past)

    return Traces(load, backend.traces, clock, tenant=tenant)


async def _recorded(history: History, past: Past) -> Recorded:
    assert past.first is not None
    return Recorded(past.head, past.first, await history.editions(past.commits), past.commits)


class Monitor:
    """`logs` reads, whoever coordinates. `start` begins to write. `note` hears of tasks that are at rest, `see` of
    the attempts of those that go on."""

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
        self._indexer: Indexer | None = None
        self.logs = LogReader(backend.store, backend.logs, clock)

    def note(self, cell: Cell) -> None:
        """The task has ended, and its head says so."""
        if self._indexer is not None:
            story = cell.story
            self._indexer.note(cell.task_id, None if story is None else story.take())

    def see(self, task_id: str, seen: Seen) -> bool:
        """Some attempts of a task that goes on. False: nobody is going to count them now."""
        return self._indexer is not None and self._indexer.see(task_id, seen)

    async def start(self, history: History, owned: Callable[[], Collection[int]]) -> None:
        """Join those who write log lines down, and index what ends in the partitions that `owned` tells. Raises
        `BusUnavailable`."""
        await self._backend.bus.ensure_topics({self._topics.logs: self._topics.specs()[self._topics.logs]})
        await self._writer.start()
        self._supervisor.loop("logs", self._writer.step)
        if self._cfg.trace_index is not False:
            self._indexer = self._make_indexer(history, owned)
            self._supervisor.loop("index", self._indexer.step, every=INDEX_SEC)
            self._supervisor.loop("expire-index", self._expire_rollups, every=EXPIRE_ROLLUPS_SEC)
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
        self._indexer = None
        await self._writer.stop()

    def _make_indexer(self, history: History, owned: Callable[[], Collection[int]]) -> Indexer:
        async def load(task_ids: Sequence[str]) -> dict[str, Recorded]:
            pasts = await history.load(task_ids, whole=True)
            return {task_id: await _recorded(history, past) for task_id, past in pasts.items() if past.task is not None}

        records = self._backend.embedded if self._cfg.trace_index is None else self._cfg.trace_index
        return Indexer(
            load=load, store=self._backend.store, traces=self._backend.traces, clock=self._clock,
            telemetry=self._telemetry, owned=owned, records=records,
            linger_sec=RECORDS_LINGER_SEC if records else LINGER_SEC,
        )  # fmt: skip

    async def _expire_rollups(self) -> None:
        """Let what was counted go when nobody can ask about it any more."""
        before = self._clock.wall() - MOST_DAYS * DAY_SEC
        while await self._backend.traces.expire_rollups(before, limit=EXPIRE_BLOCKS) == EXPIRE_BLOCKS:
            pass

    async def _expire_logs(self) -> None:
        """Remove lines that are older than they are kept, so many at a time that others get their turn."""
        keep = self._cfg.retention_logs_sec
        assert keep is not None
        while await self._backend.logs.expire_logs(self._clock.wall() - keep, limit=EXPIRE_BLOCKS) == EXPIRE_BLOCKS:
            pass
