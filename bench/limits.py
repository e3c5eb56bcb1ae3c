"""`python -m bench.limits [TASKS]`: what a limit costs. Tasks of one node each, on a Kafka and a MongoDB of their own.

The same tasks run without a limit, under one of 100, and under a key of their own each, with one coordinator and with
two; one worker of 256 slots runs what does nothing. Prints tasks per second and the CPU that one coordinator, which
also creates the tasks and waits for them, uses for each: the best of three.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

from deploy.local import KafkaServer, MongoServer
from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig

TASKS = 2000
TRIES = 3
SLOTS = 256
SHARED = [{"key": "shared", "max": 100}]
OWN = [{"key": "own:{params.n}", "max": 1}]
RATE = [{"key": "rate", "rate": 1_000_000, "burst": 1_000_000}]
CASES: dict[str, list[dict[str, Any]]] = {
    "no limit": [],
    "one limit of 100": SHARED,
    "a key of its own for each": OWN,
    "a rate that is never reached": RATE,
}


async def run(coordinator: Coordinator, limits: list[dict[str, Any]], tasks: int) -> tuple[float, float]:
    """Tasks per second, and the milliseconds of this process's CPU for each: the latter says more on a busy machine."""
    node = {"node_id": "a", "type": "nothing", **({"limits": limits} if limits else {})}
    graph = {"nodes": [node]}
    began, used = time.perf_counter(), time.process_time()
    ids = await coordinator.create_tasks([{"graph": graph, "params": {"n": n}} for n in range(tasks)])
    results = await asyncio.gather(*(coordinator.wait_task(task_id, timeout=120) for task_id in ids))
    assert {result.status for result in results} == {"finished"}
    return tasks / (time.perf_counter() - began), 1000 * (time.process_time() - used) / tasks


async def measure(tasks: int) -> None:
    kafka, mongo = KafkaServer(), MongoServer()
    await asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(mongo.start))
    try:
        for others in (0, 1):
            await _with(kafka.address, mongo.url, others, tasks)
    finally:
        await asyncio.gather(asyncio.to_thread(kafka.close), asyncio.to_thread(mongo.close))


def _child(role: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.limits", role], stdin=subprocess.PIPE, env=environment)


async def _with(kafka: str, mongo: str, others: int, tasks: int) -> None:
    name = f"limits{others}"
    url = mongo.replace("/?", f"/{name}?") if "/?" in mongo else f"{mongo.rstrip('/')}/{name}"
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka, "FLOWKIT_TOPIC_PREFIX": f"{name}.", "BENCH_DB": url}
    os.environ.update(environment)
    with ExitStack() as children:
        for role in ["worker", *["coordinator"] * others]:
            child = children.enter_context(_child(role, environment))
            children.callback(child.terminate)
        async with Coordinator(db=url, cfg=CoordinatorConfig()) as coordinator:
            await asyncio.sleep(8.0)  # until the group has settled
            await run(coordinator, SHARED, 200)
            found: dict[str, list[tuple[float, float]]] = {what: [] for what in CASES}
            for _ in range(TRIES):
                for what, limits in CASES.items():
                    found[what].append(await run(coordinator, limits, tasks))
            for what, runs in found.items():
                rate, cpu = max(rate for rate, _ in runs), min(cpu for _, cpu in runs)
                print(f"{others + 1} coordinator(s), {what:30} {rate:7.0f} tasks/s {cpu:7.2f} ms of CPU", flush=True)


async def nothing() -> None:
    return None


async def serve(role: str) -> None:
    db = os.environ["BENCH_DB"]
    if role == "worker":
        await Worker(db=db, cfg=WorkerConfig(slots=SLOTS), handlers={"nothing": nothing}).run_forever()
    else:
        await Coordinator(db=db, cfg=CoordinatorConfig()).run_forever()


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else str(TASKS)
    asyncio.run(serve(word) if word in ("worker", "coordinator") else measure(int(word)))
