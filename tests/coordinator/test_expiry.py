"""When an attempt is given to another worker: a dispatch that was lost does not wait for a TTL that begins anew with
every owner."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from flowkit.adapters.memory import MemoryBroker, MemoryBus, MemoryStore
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core.payload import Payload
from flowkit.core.reports import Succeeded
from flowkit.ports import Record
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Heartbeat, Held, Job, Told, decode_work, encode_facts_batch, encode_message
from flowkit.wire.topics import FLEET_PARTITIONS, WORK_PARTITIONS, Topics, partition_of
from tests.worker.stand import LoopClock, virtual

GRAPH = {"nodes": [{"node_id": "a", "type": "work"}]}
WORKER = "w"


class Stage:
    """Coordinators that come and go, and a worker on strings: it names what is in `held`, and it says whether that is
    all (`whole`)."""

    def __init__(self, *, whole: bool = True) -> None:
        self.broker = MemoryBroker()
        self.store = MemoryStore()
        self.bus = MemoryBus(self.broker)
        self.clock = LoopClock()
        self.topics = Topics()
        self.whole = whole
        self.held: list[Held] = []
        self.jobs: list[tuple[float, Job]] = []

    async def __aenter__(self) -> Self:
        await self.bus.ensure_topics(self.topics.specs())
        self._work = await self.bus.tail(self.topics.work, [partition_of(WORKER, WORK_PARTITIONS)])
        self._doing = [asyncio.ensure_future(self._beat()), asyncio.ensure_future(self._listen())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for doing in self._doing:
            doing.cancel()
        await asyncio.gather(*self._doing, return_exceptions=True)

    def coordinator(self) -> CoordinatorRuntime:
        telemetry = Telemetry()
        return CoordinatorRuntime(
            store=self.store, bus=MemoryBus(self.broker), clock=self.clock, cfg=CoordinatorConfig(), telemetry=telemetry
        )

    async def owners(self, count: int, each_sec: float) -> None:
        """So many coordinators, one after the other; none lives for a TTL."""
        for _ in range(count):
            owner = self.coordinator()
            await owner.start()
            await asyncio.sleep(each_sec)
            await owner.stop()

    async def say(self, job: Job, output: int) -> None:
        """What came of a job: as a worker sends it, which names it no more once this is acknowledged."""
        report = Succeeded(job.node, job.attempt, job.token, Payload(output))
        value = encode_facts_batch(WORKER, "i", 0, [Told(job.task_id, job.tenant, report)])
        await self.bus.publish([Record(self.topics.facts, job.partition, value, job.task_id.encode())])

    async def _beat(self) -> None:
        while True:
            beat = Heartbeat(WORKER, "i", ["work"], 4, self.clock.mono(), list(self.held), whole=self.whole)
            partition = partition_of(WORKER, FLEET_PARTITIONS)
            await self.bus.publish([Record(self.topics.fleet, partition, encode_message(beat), WORKER.encode())])
            await asyncio.sleep(2.0)

    async def _listen(self) -> None:
        while True:
            for record in await self._work.fetch(1.0):
                items = decode_work(record.value).items
                self.jobs += [(self.clock.mono(), item) for item in items if isinstance(item, Job)]


async def first_job(stage: Stage) -> Job:
    """A task, its dispatch, and the end of the coordinator that sent it."""
    owner = stage.coordinator()
    await owner.start()
    await asyncio.sleep(2.5)
    await owner.api.create([Creation(GRAPH)])
    while not stage.jobs:
        await asyncio.sleep(0.01)
    await owner.stop()
    return stage.jobs[0][1]


@virtual
async def test_a_lost_dispatch_is_made_up_for_soon_however_often_the_owner_changes() -> None:
    async with Stage() as stage:
        first = await first_job(stage)

        await stage.owners(5, each_sec=3.5)

        began, again = next((at, job) for at, job in stage.jobs if job.attempt == 2)
        assert again.token != first.token
        assert began - stage.jobs[0][0] < 5.0 + 2.0 + 3.5, "the accept deadline, a heartbeat, and a change of owners"


@virtual
async def test_what_the_worker_has_is_left_to_it() -> None:
    async with Stage() as stage:
        first = await first_job(stage)
        stage.held.append(Held(first.token, first.task_id, first.tenant, first.partition, first.node, first.attempt))

        await stage.owners(5, each_sec=3.5)

        assert len(stage.jobs) == 1


@virtual
async def test_what_a_partial_list_does_not_name_may_be_on_another() -> None:
    async with Stage(whole=False) as stage:
        await first_job(stage)

        await stage.owners(5, each_sec=3.5)

        assert len(stage.jobs) == 1


@virtual
async def test_a_result_that_nobody_has_read_yet_is_no_lost_dispatch() -> None:
    async with Stage() as stage:
        first = await first_job(stage)
        await stage.say(first, 7)
        await asyncio.sleep(9)

        owner = stage.coordinator()
        await owner.start()
        read_slowly(owner, 3.0)
        result = await owner.api.wait(first.task_id, timeout=60)
        await asyncio.sleep(5)
        await owner.stop()

        assert (result.status, result.outputs) == ("finished", {"a": 7})
        assert len(stage.jobs) == 1


def read_slowly(owner: CoordinatorRuntime, seconds: float) -> None:
    member: Any = owner.intake._member
    fetch = member.fetch

    async def slowly(timeout: float) -> Any:
        await asyncio.sleep(seconds)
        return await fetch(timeout)

    member.fetch = slowly
