"""`python -m bench.retention [TASKS] [SHARE]`: what letting go of finished tasks costs the tasks that run beside.

One-node tasks are run on a real Kafka and MongoDB; then one chain after another alone, for comparison, and beside the
deletion and removal of all of them. SHARE is what retention may take of the coordinator's time (default: as it is).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from bench import driver, workloads
from bench.processes import Child
from deploy.local import KafkaServer, MongoServer
from flowkit import Coordinator, CoordinatorConfig
from flowkit.coordinator import deletion, retention
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.retention import Retention
from flowkit.coordinator.runtime import RETENTION_SEC

TASKS = 10_000
ALONE = 15
PREFIX = "bench-retention."


async def chains(coordinator: Coordinator, go_on: Callable[[int], bool]) -> list[float]:
    """The hops of one chain after another."""
    chain, hops = workloads.chain(100), []
    for number in range(1_000_000):
        if not go_on(number):
            break
        hops += (await driver.run(coordinator, chain, 60.0)).hops
    return hops


def said(name: str, hops: list[float]) -> str:
    cuts = statistics.quantiles(hops, n=100)
    mean = statistics.fmean(hops)
    figures = "   ".join(f"{what} {1000 * one:6.2f} ms" for what, one in (("p50", cuts[49]), ("p99", cuts[98])))
    return f"{name:<28} {len(hops):6} hops   mean {1000 * mean:6.2f} ms   {figures}"


async def let_go(coordinator: Coordinator, tasks: int, keep_sec: float) -> tuple[float, float]:
    """How many seconds it took until all that ended so long ago were deleted, and until nothing was left of them."""
    runtime = coordinator.runtime
    by = Deletion(runtime.store, runtime.clock, "bench")
    keep = dict.fromkeys(("finished", "failed", "cancelled"), keep_sec)
    over = Retention(runtime.store, runtime.clock, runtime.engine, by, coordinator.telemetry, keep_sec=keep)
    counts = {"TasksDeleted": 0, "TasksRemoved": 0}
    ends: dict[str, float] = {}
    began = time.monotonic()

    def heard(happening: Any) -> None:
        name = type(happening).__name__
        if name in counts:
            counts[name] += happening.count
            if counts[name] >= tasks:
                ends.setdefault(name, time.monotonic() - began)

    coordinator.telemetry.subscribe(heard)  # its own retention removes as well
    while len(ends) < len(counts):
        await over.step()
        await asyncio.sleep(RETENTION_SEC)
    return ends["TasksDeleted"], ends["TasksRemoved"]


async def measure(tasks: int) -> None:
    from pymongo import AsyncMongoClient

    with KafkaServer() as kafka, MongoServer() as mongo:
        settings = {"kafka": kafka.address, "mongo": mongo.url, "prefix": PREFIX, "database": "bench_retention"}
        async with AsyncExitStack() as stack:
            client: Any = await stack.enter_async_context(AsyncMongoClient(mongo.url))
            database = client[settings["database"]]
            cfg = CoordinatorConfig(kafka_bootstrap=kafka.address, topic_prefix=PREFIX, retention_sec=None)
            coordinator = await stack.enter_async_context(Coordinator(db=database, cfg=cfg))
            worker = await Child.start("worker", settings)
            stack.push_async_callback(worker.stop)

            await driver.run(coordinator, workloads.single(tasks), 300.0)
            done = time.monotonic()
            await asyncio.sleep(2.0)  # the heads follow
            before = await counted(database)
            print(f"{tasks} tasks have ended", flush=True)
            print(said("chains alone", await chains(coordinator, lambda n: n < ALONE)))
            deletion.GRACE_SEC = 0.0  # type: ignore[misc]
            work = asyncio.create_task(let_go(coordinator, tasks, time.monotonic() - done))
            print(said("beside the letting go", await chains(coordinator, lambda n: not work.done())))
            print(said("alone again", await chains(coordinator, lambda n: n < ALONE)))
            deleted, removed = await work
            print(f"{tasks} tasks deleted in {deleted:.1f} s ({tasks / deleted:.0f}/s), nothing left of them after "
                  f"{removed:.1f} s ({tasks / removed:.0f}/s)")  # fmt: skip
            print(f"documents before: {before}; after: {await counted(database)}")


async def counted(database: Any) -> dict[str, int]:
    names = ("tasks", "commits", "requests", "claims", "artifacts")
    return {name: await database[name].count_documents({}) for name in names}


def main() -> None:
    given = sys.argv[1:]
    if len(given) > 1:
        retention.SHARE = retention.LATE_SHARE = float(given[1])  # type: ignore[misc]
    asyncio.run(measure(int(given[0]) if given else TASKS))


if __name__ == "__main__":
    main()
