"""Where messages are signed, a pool's workers say what is theirs to say, and whatever else is put on the topics goes to
`dead` and stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.adapters.memory import MemoryBroker, MemoryBus, MemoryData, MemoryStore
from flowkit.adapters.sealed_bus import SealedBus
from flowkit.backend import Backend
from flowkit.client import Client
from flowkit.core.payload import Payload
from flowkit.core.permits import PermitGranted
from flowkit.core.reports import ChildEnded, Failed, Succeeded
from flowkit.errors import ConfigError
from flowkit.ports import Record
from flowkit.wire.messages import (
    Beacon,
    Goodbye,
    Heartbeat,
    Held,
    Hello,
    Job,
    Knock,
    Mail,
    Told,
    decode_work,
    encode_facts_batch,
    encode_message,
    encode_work,
)
from flowkit.wire.seals import Seals
from flowkit.wire.topics import FLEET_PARTITIONS, WORK_PARTITIONS, Topics, partition_of
from tests.wire.test_seals import ring

TOPICS = Topics("flowkit.", 8)
ALL = ("coordinator/1", "plain/1", "fine/1", "app/1")
WIDTH = 99
FAST = {"heartbeat_sec": 0.5, "lease_ttl_sec": 5.0}


@dataclass
class Town:
    """One store and one broker; everybody comes with keys of their own, or none."""

    stack: AsyncExitStack
    data: MemoryData = field(default_factory=MemoryData)
    broker: MemoryBroker = field(default_factory=MemoryBroker)

    def seals(self, keys: Sequence[str], require: bool = True) -> Seals | None:
        return Seals(ring(*keys), TOPICS, require=require) if keys else None

    def backend(self, keys: Sequence[str], require: bool = True) -> Backend:
        bus, seals = MemoryBus(self.broker), self.seals(keys, require)
        return Backend(MemoryStore(self.data), bus if seals is None else SealedBus(bus, seals), seals=seals)

    async def coordinator(self, *keys: str, require: bool = True) -> Coordinator:
        made = Coordinator(cfg=CoordinatorConfig(**FAST), backend=self.backend(keys, require))
        return await self.stack.enter_async_context(made)

    async def worker(self, handlers: Any, *keys: str, require: bool = True, name: str = "w") -> Worker:
        cfg = WorkerConfig(worker_id=name, **FAST)
        return await self.stack.enter_async_context(
            Worker(cfg=cfg, handlers=handlers, backend=self.backend(keys, require))
        )

    async def client(self, *keys: str) -> Client:
        return await self.stack.enter_async_context(Client(backend=self.backend(keys)))

    async def put(self, keys: Sequence[str], *records: Record) -> None:
        """As an intruder would who can write to the topics, and holds these keys."""
        seals = self.seals(keys)
        assert all(await MemoryBus(self.broker).publish([seals.seal(r) if seals else r for r in records]))


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(stack)


async def until(what: str, holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def spread(role: str = "step") -> dict[str, Any]:
    return {"nodes": [{"node_id": f"n{i}", "type": role, "inputs": {"i": i}} for i in range(WIDTH)]}


async def step(i: int = 0) -> int:
    return i


class Dead:
    """What has come to `dead`."""

    def __init__(self, tail: Any) -> None:
        self._tail = tail
        self.reasons: list[str] = []

    async def look(self, count: int) -> list[str]:
        """The reasons, once so many have come."""
        async with asyncio.timeout(60):
            while len(self.reasons) < count:
                for record in await self._tail.fetch(0.1):
                    self.reasons.append(dict(record.headers)["reason"].decode())
        return self.reasons


async def dead_of(town: Town) -> Dead:
    bus = MemoryBus(town.broker)
    await bus.ensure_topics(TOPICS.specs())
    return Dead(await bus.tail(TOPICS.dead))


async def test_ninety_nine_good_ones_are_applied_beside_forgeries_on_every_topic(town: Town) -> None:
    dead = await dead_of(town)
    coordinator = await town.coordinator(*ALL)
    worker = await town.worker([step], "plain/1")
    assert worker.worker_id == "plain/w"
    await until("the worker is known", lambda: coordinator.runtime.fleet.of_role("step"))

    task_id = await coordinator.create_task(graph=spread())
    work = partition_of("plain/w", WORK_PARTITIONS)
    facts = partition_of(task_id, 8)
    lie = Told(task_id, "default", Succeeded("n7", 1, "c-x.1", Payload("forged")))
    forged = [
        Record(TOPICS.facts, facts, encode_facts_batch("plain/w", "i", 0, [lie]), task_id.encode()),
        Record(TOPICS.fleet, 0, encode_message(Hello("plain/evil", "i", ["step"], 99, 1.0)), b"plain/evil"),
        Record(TOPICS.work, work, encode_work("plain/w", "i", "c", []), b"plain/w"),
    ]
    await town.put([], *forged)  # unsigned
    await town.put(["other/1"], *forged[:2])  # with a key that nobody knows
    await town.put(["fine/1"], *forged[:2])  # with a real key, of another pool
    stolen = town.seals(["coordinator/1", "fine/1"])
    assert stolen is not None
    sealed = stolen.seal(Record(TOPICS.work, work, forged[2].value, b"fine/w"))
    await town.put([], Record(TOPICS.work, work, sealed.value, b"plain/w", sealed.headers))

    result = await coordinator.wait_task(task_id, timeout=60)
    assert result.status == "finished"
    assert result.output == {f"n{i}": i for i in range(WIDTH)}
    await until("the coordinator buries six", lambda: coordinator.telemetry.counts["DeadLettered"] == 6)
    await until("the worker buries two", lambda: worker.telemetry.counts["DeadLettered"] == 2)
    assert sorted(await dead.look(8)) == sorted(
        [
            *["not signed"] * 3,
            *["signed with a key that is not known here: 'other/1'"] * 2,
            "signed with a key that is not known here: 'fine/1'",
            "signed by the pool 'fine', and sent as 'plain/w'",
            "signed by the pool 'fine', and about 'plain/evil'",
        ]
    )
    assert "plain/evil" not in coordinator.runtime.fleet.workers
    assert coordinator.telemetry.counts["LoopFailed"] == worker.telemetry.counts["LoopFailed"] == 0
    assert coordinator.telemetry.counts["stale_reports"] == 0


@dataclass
class Spy:
    """A worker of the pool `plain` that is given a job, and does not do it; it hears of the other's jobs too."""

    town: Town
    coordinator: Coordinator
    tail: Any
    jobs: list[Job] = field(default_factory=list)

    async def look(self) -> None:
        for record in await self.tail.fetch(0):
            self.jobs += [item for item in decode_work(record.value).items if isinstance(item, Job)]


async def test_a_pool_cannot_report_about_what_is_leased_to_another_though_it_knows_the_token(town: Town) -> None:
    dead = await dead_of(town)
    coordinator = await town.coordinator(*ALL)
    go = asyncio.Event()

    async def precious() -> str:
        await go.wait()
        return "true"

    worker = await town.worker([precious], "fine/1")
    await until("the worker is known", lambda: coordinator.runtime.fleet.of_role("precious"))
    task_id = await coordinator.create_task(graph={"nodes": [{"node_id": "n", "type": "precious"}]})
    await until("the node runs", lambda: worker.active)
    token = worker.active[0].token
    facts = partition_of(task_id, 8)

    lies = [
        Succeeded("n", 1, token, Payload("forged")),
        Failed("n", 1, token, {"code": "x", "message": "forged"}, permanent=True),
    ]
    for lie in lies:
        batch = encode_facts_batch("plain/w", "i", 1, [Told(task_id, "default", lie)])
        await town.put(["plain/1"], Record(TOPICS.facts, facts, batch, task_id.encode()))
    as_another = encode_facts_batch("fine/w", worker._runtime.incarnation, 1, [Told(task_id, "default", lies[0])])
    await town.put(["plain/1"], Record(TOPICS.facts, facts, as_another, task_id.encode()))
    await until("all are buried", lambda: coordinator.telemetry.counts["DeadLettered"] == 3)

    assert coordinator.telemetry.counts["foreign_reports"] == 2
    assert (await coordinator.get_task(task_id)).status == "running"
    go.set()
    assert (await coordinator.wait_task(task_id, timeout=60)).output == "true"
    assert sorted(await dead.look(3)) == [
        *["signed by the pool 'plain', and leased to 'fine/w'"] * 2,
        "signed by the pool 'plain', and sent as 'fine/w'",
    ]


async def test_a_pool_cannot_say_what_coordinators_say_to_one_another(town: Town) -> None:
    coordinator = await town.coordinator(*ALL)
    letters = [
        Told("t", "default", ChildEnded("n", 1, "child", "finished", Payload("forged"))),
        Mail("t", "default", PermitGranted("limit:1", "n", (0, 1, 0))),
    ]
    batch = encode_facts_batch("c-x", "", -1, [*letters, Knock("t", "default", "new")])
    await town.put(["plain/1"], Record(TOPICS.facts, 1, batch, b"t"))
    beacon = Beacon(coordinator.runtime.coordinator_id, f"{coordinator.runtime.coordinator_id}.1")
    await town.put(["plain/1"], Record(TOPICS.fleet, 1, encode_message(beacon), b"c"))
    await until("they are buried", lambda: coordinator.telemetry.counts["DeadLettered"] == 3)
    assert coordinator.telemetry.counts["LoopFailed"] == 0


async def test_a_pool_cannot_keep_another_pools_leases_alive_nor_take_its_workers_off(town: Town) -> None:
    coordinator = await town.coordinator(*ALL)
    go = asyncio.Event()

    async def precious() -> str:
        await go.wait()
        return "true"

    worker = await town.worker([precious], "fine/1")
    await until("the worker is known", lambda: coordinator.runtime.fleet.of_role("precious"))
    task_id = await coordinator.create_task(graph={"nodes": [{"node_id": "n", "type": "precious"}]})
    await until("the node runs", lambda: worker.active)
    token = worker.active[0].token
    watch = coordinator.runtime.leases.watches[token]
    await worker._runtime._pulse.stop()  # from now on nobody else is heard
    await asyncio.sleep(0.05)

    held = Held(token, task_id, "default", partition_of(task_id, 8), "n", 1)
    beat = Heartbeat("plain/w", "i", ["precious"], 1, 1.0, [held])
    heard = watch.heard
    partition = partition_of("plain/w", FLEET_PARTITIONS)
    await town.put(["plain/1"], Record(TOPICS.fleet, partition, encode_message(beat), b"plain/w"))
    gone = Goodbye("fine/w", worker._runtime.incarnation)
    await town.put(["plain/1"], Record(TOPICS.fleet, partition, encode_message(gone), b"plain/w"))
    await until("both are buried", lambda: coordinator.telemetry.counts["DeadLettered"] == 2)

    assert watch.heard == heard
    assert "fine/w" in coordinator.runtime.fleet.workers
    go.set()
    assert (await coordinator.wait_task(task_id, timeout=60)).output == "true"


async def test_a_client_with_a_pools_key_creates_tasks_and_one_without_is_heard_a_moment_later(town: Town) -> None:
    coordinator = await town.coordinator(*ALL)
    await town.worker([step], "plain/1")
    await until("the worker is known", lambda: coordinator.runtime.fleet.of_role("step"))
    one, other = await town.client("app/1"), await town.client()
    ids = [await client.create_task(graph=spread()) for client in (one, other)]
    results = [await coordinator.wait_task(task_id, timeout=60) for task_id in ids]
    assert {result.status for result in results} == {"finished"}
    assert coordinator.telemetry.counts["DeadLettered"] == 1, "the other's knock: the sweeper found its task"


async def test_signing_begins_step_by_step_while_tasks_run(town: Town) -> None:
    """Nobody signs; some sign; all sign; some require it; all do: each pair that meets on the way works together."""
    steps: list[tuple[tuple[str, ...], bool]] = [((), False), (ALL, False), (ALL, True)]
    for theirs, ours in pairwise(steps):
        for one, other in ((theirs, ours), (ours, theirs), (ours, ours)):
            async with AsyncExitStack() as stack:
                here = Town(stack, town.data, town.broker)
                coordinator = await here.coordinator(*one[0], require=one[1])
                keys = ("plain/1",) if other[0] else ()
                await here.worker([step], *keys, require=other[1])
                await until("the worker is known", lambda c=coordinator: c.runtime.fleet.of_role("step"))  # type: ignore[misc]
                task_id = await coordinator.create_task(graph=spread())
                assert (await coordinator.wait_task(task_id, timeout=60)).status == "finished"
                assert coordinator.telemetry.counts["DeadLettered"] == 0


async def test_a_coordinator_needs_a_key_of_its_own_kind(town: Town) -> None:
    with pytest.raises(ConfigError, match=r"of the pool 'plain'.*'coordinator'"):
        await town.coordinator("plain/1", "coordinator/1")
