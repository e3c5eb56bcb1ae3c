"""A worker in a hundred lines: enough of the protocol to test the world and a coordinator without the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowkit.core.payload import Payload
from flowkit.core.reports import AttemptReport, Declined, Failed, Released, Started, Succeeded
from flowkit.errors import Retry
from flowkit.ports import Bus, Clock, Outcome, Record, Renewal, Store
from flowkit.telemetry import AttemptKilled, Telemetry
from flowkit.wire.messages import (
    Heartbeat,
    Held,
    Job,
    Told,
    decode_work,
    encode_facts_batch,
    encode_message,
)
from flowkit.wire.topics import FLEET_PARTITIONS, WORK_PARTITIONS, Topics, partition_of

HEARTBEAT_SEC, KILL_SEC, ACCEPT_SEC = 2.0, 8.0, 5.0


@dataclass
class Running:
    job: Job
    base: float
    task: asyncio.Task[None] | None = None
    renewed: float = -99.0
    done: bool = False

    @property
    def token(self) -> str:
        return self.job.token


class Ctx:
    def __init__(self, running: Running, worker: str) -> None:
        job = running.job
        self.task_id, self.node_id, self.attempt = job.task_id, job.node, job.attempt
        self.idempotency_key, self.params, self.worker_id = job.idempotency_key, job.params, worker
        self._attempt = running


class SketchWorker:
    def __init__(self, *, name: str, incarnation: str, store: Store, bus: Bus, clock: Clock, telemetry: Telemetry,
                 topics: Topics, handlers: dict[str, Callable[..., Any]], slots: int) -> None:  # fmt: skip
        self.name, self.incarnation, self.slots = name, incarnation, slots
        self.store, self.bus, self.clock, self.telemetry, self.topics = store, bus, clock, telemetry, topics
        self.handlers = handlers
        self.held: dict[str, Running] = {}
        self.seen: set[str] = set()
        self.count = 0
        self.tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self.tail = await self.bus.tail(self.topics.work, [partition_of(self.name, WORK_PARTITIONS)])
        self.control = await self.bus.tail(self.topics.control)
        for loop in (self._read, self._read_control, self._beat, self._guard):
            self.spawn(loop())

    async def stop(self) -> None:
        for task in list(self.tasks):
            task.cancel()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _read(self) -> None:
        while True:
            for record in await self.tail.fetch(0.5):
                batch = decode_work(record.value)
                if (batch.worker, batch.incarnation) != (self.name, self.incarnation):
                    continue
                for item in batch.items:
                    self._take(item) if isinstance(item, Job) else self._stop(item)

    async def _read_control(self) -> None:
        while True:
            if await self.control.fetch(5.0):
                self.spawn(self._heartbeat())

    def _take(self, job: Job) -> None:
        if job.token in self.seen:
            return
        self.seen.add(job.token)
        late = self.clock.mono() > job.accept_by
        if late or sum(not r.done for r in self.held.values()) >= self.slots:
            self.spawn(self._tell(job, Declined(job.node, job.attempt, job.token, "late" if late else "full")))
            return
        running = self.held[job.token] = Running(job, job.accept_by - ACCEPT_SEC)
        running.task = self.spawn(self._run(running))

    def _stop(self, stop: Any) -> None:
        running = self.held.get(stop.token)
        if running is not None:
            self.telemetry.emit(AttemptKilled(self.name, stop.token, "revoked"))
            self._kill(running)
            report = Released(running.job.node, running.job.attempt, stop.token, stop.reason)
            self.spawn(self._tell(running.job, report))

    def _kill(self, running: Running) -> None:
        self.held.pop(running.token, None)
        if running.task is not None:
            running.task.cancel()

    async def _run(self, running: Running) -> None:
        job = running.job
        late = self.spawn(self._started(job))
        try:
            value = await self.handlers[job.role](job.inputs, Ctx(running, self.name))
            report: AttemptReport = Succeeded(job.node, job.attempt, job.token, Payload(value))
        except Retry as error:
            about = {"code": error.code, "message": str(error)}
            report = Failed(job.node, job.attempt, job.token, about, retry_after=error.after_sec)
        except RuntimeError as error:
            about = {"code": "RuntimeError", "message": str(error)}
            report = Failed(job.node, job.attempt, job.token, about)
        finally:
            late.cancel()
        running.done = True
        self.spawn(self._finish(running, report))

    async def _finish(self, running: Running, report: AttemptReport) -> None:
        await self._tell(running.job, report, lambda: running.token in self.held)
        self.held.pop(running.token, None)

    async def _started(self, job: Job) -> None:
        await asyncio.sleep(0.5)
        await self.bus.publish([self._fact(job, Started(job.node, job.attempt, job.token))])

    async def _tell(self, job: Job, report: AttemptReport, wanted: Callable[[], bool] = lambda: True) -> None:
        while wanted() and not (await self.bus.publish([self._fact(job, report)]))[0]:
            await asyncio.sleep(0.3)

    def _fact(self, job: Job, report: AttemptReport) -> Record:
        held = sum(not r.done for r in self.held.values())
        told = [Told(job.task_id, job.tenant, report)]
        value = encode_facts_batch(self.name, self.incarnation, held, told)
        return Record(self.topics.facts, job.partition, value, job.task_id.encode())

    async def _beat(self) -> None:
        while True:
            self.spawn(self._heartbeat())
            await asyncio.sleep(HEARTBEAT_SEC)

    async def _heartbeat(self) -> None:
        at, held = self.clock.mono(), list(self.held.values())
        rows = [Held(r.token, r.job.task_id, r.job.tenant, r.job.partition, r.job.node, r.job.attempt) for r in held]
        beat = Heartbeat(self.name, self.incarnation, list(self.handlers), self.slots, at, rows)
        record = Record(
            self.topics.fleet, partition_of(self.name, FLEET_PARTITIONS), encode_message(beat), self.name.encode()
        )
        if not (await self.bus.publish([record]))[0]:
            self.count += 1
            at, held = self.clock.mono(), list(self.held.values())
            renewal = Renewal(self.name, self.incarnation, self.count, tuple(r.token for r in held))
            if await self.store.renew(renewal) is not Outcome.OK:
                return
        for running in held:
            running.renewed = max(running.renewed, at)

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for running in [r for r in self.held.values() if not r.done]:
                if self.clock.mono() - max(running.renewed, running.base) > KILL_SEC:
                    self.telemetry.emit(AttemptKilled(self.name, running.token, "no_renewal"))
                    self._kill(running)
