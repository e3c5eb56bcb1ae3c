"""A worker on a test stand: its coordinator is the test, its bus and its store fail when they are told to."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self

from flowkit.adapters.memory import MemoryBroker, MemoryBus, MemoryStore
from flowkit.config import WorkerConfig
from flowkit.core.reports import AttemptReport, Started
from flowkit.errors import StoreUnavailable
from flowkit.ports import Outcome, Record, Renewal
from flowkit.telemetry import Happening, Telemetry
from flowkit.testing.loop import VirtualLoop
from flowkit.wire.messages import (
    Goodbye,
    Heartbeat,
    Hello,
    Job,
    SayHello,
    Stop,
    Told,
    decode_facts_batch,
    decode_fleet,
    encode_message,
    encode_work,
)
from flowkit.wire.topics import WORK_PARTITIONS, Topics, partition_of
from flowkit.worker.registry import Registry
from flowkit.worker.runtime import WorkerRuntime

WORKER = "w-test"
PARTITIONS = 4


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time: seconds cost nothing, and every run is the same."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        loop = VirtualLoop(limit=10_000)
        try:
            loop.run_until_complete(test(**fixtures))
            assert loop.faults == []
        finally:
            loop.close()

    return run


class LoopClock:
    """The time of the loop in which it is first asked; threads may ask later. `ahead` is how far this process's
    monotonic clock runs ahead of the loop's."""

    def __init__(self) -> None:
        self.ahead = 1000.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def wall(self) -> float:
        return 1_000_000.0 + self._now()

    def mono(self) -> float:
        return self.ahead + self._now()

    def _now(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()


class PatchyBus(MemoryBus):
    """Loses what is published to the topics in `deaf`, and hangs for those in `stuck`."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.deaf: set[str] = set()
        self.stuck: set[str] = set()
        self.published: list[Record] = []

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        topics = {record.topic for record in records}
        if topics & self.stuck:
            await asyncio.sleep(3600)
        if topics & self.deaf:
            await asyncio.sleep(0.001)
            return [False] * len(records)
        self.published += records
        return await super().publish(records)


class PatchyStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.renewals: list[Renewal] = []

    async def renew(self, renewal: Renewal) -> Outcome:
        if self.away:
            return Outcome.UNKNOWN
        self.renewals.append(renewal)
        return await super().renew(renewal)

    async def put_blob(self, ref: str, data: bytes, *, kind: str, **more: Any) -> None:
        self._check()
        await super().put_blob(ref, data, kind=kind, **more)

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        self._check()
        return await super().get_blob(ref, kind=kind)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Stand:
    def __init__(self, handlers: Any, *, clock: Any = None, options: dict[str, Any] | None = None, **cfg: Any) -> None:
        self.broker = MemoryBroker()
        self.bus = PatchyBus(self.broker)
        self.store = PatchyStore()
        self.clock = clock or LoopClock()
        self.telemetry = Telemetry()
        self.happenings: list[Happening] = []
        self.telemetry.subscribe(self.happenings.append)
        self.cfg = WorkerConfig(worker_id=WORKER, facts_partitions=PARTITIONS, **cfg)
        self.topics = Topics(self.cfg.topic_prefix, PARTITIONS)
        self.runtime = WorkerRuntime(
            store=self.store, bus=self.bus, clock=self.clock, cfg=self.cfg, telemetry=self.telemetry,
            **({"registry": Registry(handlers)} | (options or {})),
        )  # fmt: skip
        self.told: list[Told] = []
        self.held: list[int] = []
        self.fleet: list[Any] = []
        self._eye = MemoryBus(self.broker)
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        await self._eye.ensure_topics(self.topics.specs())
        self._facts = await self._eye.tail(self.topics.facts)
        self._fleet = await self._eye.tail(self.topics.fleet)
        self._dead = await self._eye.tail(self.topics.dead)
        await self.runtime.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runtime.stop()

    # ---- what the coordinator says

    def job(self, role: str, inputs: Any = None, **more: Any) -> Job:
        number = next(self._numbers)
        fields = {
            "task_id": f"t{number}", "tenant": "default", "principal": "me", "partition": number % PARTITIONS,
            "node": "n", "role": role, "attempt": 1, "token": f"k{number}", "generation": 0,
            "accept_by": self.clock.mono() + 5.0, "inputs": {} if inputs is None else inputs,
        }  # fmt: skip
        return Job(**(fields | more))

    async def send(self, *items: Job | Stop, incarnation: str | None = None) -> None:
        incarnation = self.runtime.incarnation if incarnation is None else incarnation
        await self.say_raw(encode_work(WORKER, incarnation, "c-test", items))

    async def say_raw(self, value: bytes | None, key: bytes = WORKER.encode()) -> None:
        partition = partition_of(WORKER, WORK_PARTITIONS)
        await self._eye.publish([Record(self.topics.work, partition, value, key)])

    async def ask_hello(self) -> None:
        await self._eye.publish([Record(self.topics.control, 0, encode_message(SayHello("c-test")))])

    def stop_of(self, job: Job, grace_sec: float = 1.0, reason: str = "user_request") -> Stop:
        return Stop(job.token, job.task_id, job.node, job.attempt, reason, grace_sec)

    # ---- what the worker says

    async def read(self) -> None:
        for record in await self._facts.fetch(0):
            batch = decode_facts_batch(record.value)
            assert (batch.sender, batch.incarnation) == (WORKER, self.runtime.incarnation)
            self.held.append(batch.held)
            for item in batch.items:
                assert isinstance(item, Told)
                self.told.append(item)
        self.fleet += [decode_fleet(record.value) for record in await self._fleet.fetch(0)]

    async def dead(self) -> list[Record]:
        return await self._dead.fetch(1.0)

    async def until(self, condition: Callable[[], object], timeout: float = 60.0, step: float = 0.005) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + timeout
        await self.read()
        while not condition():
            assert loop.time() < limit, f"it did not come to pass; told: {self.told}"
            await asyncio.sleep(step)
            await self.read()

    async def result(self, job: Job, timeout: float = 60.0) -> AttemptReport:
        """The report that ends the attempt."""
        await self.until(lambda: self.results(job), timeout)
        return self.results(job)[0]

    def results(self, job: Job) -> list[AttemptReport]:
        return [told.report for told in self.told
                if told.task_id == job.task_id and not isinstance(told.report, Started)]  # fmt: skip

    async def run(self, role: str, inputs: Any = None, **more: Any) -> AttemptReport:
        job = self.job(role, inputs, **more)
        await self.send(job)
        return await self.result(job)

    @property
    def beats(self) -> list[Heartbeat]:
        return [message for message in self.fleet if isinstance(message, Heartbeat)]

    @property
    def hellos(self) -> list[Hello]:
        return [message for message in self.fleet if isinstance(message, Hello)]

    @property
    def goodbyes(self) -> list[Goodbye]:
        return [message for message in self.fleet if isinstance(message, Goodbye)]

    def named(self) -> set[str]:
        """The tokens that the last heartbeat names."""
        last = self.beats[-1].mono
        return {held.token for beat in self.beats if beat.mono == last for held in beat.held}


def alive(group: int) -> bool:
    """Whether a process of the group lives; one that nobody has reaped yet does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state not in "ZX":
            return True
    return False


async def until_gone(group: int) -> None:
    limit = time.monotonic() + 60
    while alive(group):
        assert time.monotonic() < limit, f"process group {group} lives on"
        await asyncio.sleep(0.002)
