"""`python -m bench.streams`: batches through edges between workers, on a real Kafka and MongoDB: how many a second, and
how soon.

A coordinator and two workers, one that makes batches and one that reads them, each a process of its own; everything is
on the one machine. Each line is the median of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bench import notes, stream_stages
from deploy.local import KafkaServer, MongoServer
from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.client import Client

DATABASE = "bench_streams"
GROUP = "bench"


async def make(count: int, every: float, padding: int) -> AsyncIterator[dict[str, Any]]:
    """Batches that say when they were made."""
    text = "x" * padding
    for number in range(count):
        yield {"n": number, "at": time.monotonic(), "text": text}
        if every:
            await asyncio.sleep(every)


async def relay(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    async for row in rows:
        yield row


async def read(rows: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """How late every batch was, and how long all took."""
    late: list[float] = []
    first = 0.0
    async for row in rows:
        first = first or row["at"]
        late.append(time.monotonic() - row["at"])
        if row["n"] != len(late) - 1:
            raise AssertionError(f"batch {row['n']} came as number {len(late) - 1}")
    late_sorted = sorted(late[1:])
    return {
        "count": len(late),
        "seconds": time.monotonic() - first,
        "first_ms": 1000 * late[0],
        "p50_ms": 1000 * late_sorted[len(late_sorted) // 2],
        "p99_ms": 1000 * late_sorted[int(len(late_sorted) * 0.99)],
    }


def graph(count: int, *, every: float = 0.0, stages: int = 2, window: int | None = None, padding: int = 60,
          early: bool = True) -> dict[str, Any]:  # fmt: skip
    more: dict[str, Any] = {} if window is None else {"stream": {"max_batches": window}}
    start = {"start_when": "first_batch"} if early else {}
    nodes: list[dict[str, Any]] = [
        {"node_id": "s0", "type": "make", "inputs": {"count": count, "every": every, "padding": padding}, **more}
    ]
    for stage in range(1, stages):
        kind = "read" if stage == stages - 1 else "relay"
        inputs = {"rows": {"$stream": f"s{stage - 1}"}}
        nodes.append({"node_id": f"s{stage}", "type": kind, "inputs": inputs, **start, **more})
    return {"nodes": nodes}


async def serve(role: str) -> None:
    """One process of the cluster."""
    db = os.environ["FLOWKIT_DB"]
    if folder := os.environ.get("BENCH_NOTES"):
        stream_stages.watch(Path(folder))
    if role == "coordinator":
        await Coordinator(db=db, cfg=CoordinatorConfig(group=GROUP)).run_forever()
    else:
        handlers = {"make": [make], "read": [read], "relay": [relay]}[role]
        await Worker(db=db, cfg=WorkerConfig(), handlers=handlers).run_forever()


async def measure(client: Client, repeat: int, **how: Any) -> dict[str, float]:
    runs = []
    for _ in range(repeat):
        task_id = await client.create_task(graph=graph(**how))
        result = await client.wait_task(task_id, timeout=300)
        if not result.ok or result.output["count"] != how["count"]:
            raise SystemExit(f"the measurement failed: {result.error or result.output}")
        runs.append(result.output)
    found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return found | {"per_sec": found["count"] / found["seconds"]}


def serving(role: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bench.streams", "--serve", role])


async def measure_firsts(client: Client, folder: Path, count: int) -> None:
    """Tasks one after the other, each with a reader that its first batch starts."""
    tasks = []
    for _ in range(count):
        task_id = await client.create_task(graph=graph(5, every=0.02))
        result = await client.wait_task(task_id, timeout=60)
        if not result.ok:
            raise SystemExit(f"the measurement failed: {result.error}")
        tasks.append(task_id)
    seen, _ = notes.read(folder)
    for line in stream_stages.table(seen[task_id] for task_id in tasks):
        print(line, flush=True)


async def bench(given: argparse.Namespace, folder: Path) -> None:
    kafka, mongo = KafkaServer(), MongoServer()
    kafka.start()
    mongo.start()
    db = urlunsplit(urlsplit(mongo.url)._replace(path=f"/{DATABASE}"))
    os.environ |= {"KAFKA_BOOTSTRAP_SERVERS": kafka.address, "FLOWKIT_DB": db}
    if given.stages:
        os.environ["BENCH_NOTES"] = str(folder)
    roles = ["coordinator", "make", "relay", "read"]
    children = [serving(role) for role in roles]
    try:
        async with Client(db=db, cfg=CoordinatorConfig()) as client:
            await measure(client, 1, count=200, stages=3)  # until all are warm
            await measure(client, 2, count=2000)
            if given.stages:
                await measure_firsts(client, folder, given.stages)
                return
            n = given.batches
            table: list[tuple[str, dict[str, Any]]] = [
                ("one edge, while it is made", {"count": n}),
                ("one edge, at most 100 ahead", {"count": n, "window": 100}),
                ("one edge, after it was made", {"count": n, "early": False}),
                ("two edges", {"count": n, "stages": 3}),
                ("one edge, a batch every 50 ms", {"count": 100, "every": 0.05}),
            ]
            print(f"{'':34}{'batches/s':>10}{'first ms':>10}{'p50 ms':>9}{'p99 ms':>9}")
            for what, how in table:
                got = await measure(client, given.repeat, **how)
                print(
                    f"{what:34}{got['per_sec']:10,.0f}{got['first_ms']:10.1f}{got['p50_ms']:9.1f}{got['p99_ms']:9.1f}",
                    flush=True,
                )
    finally:
        for child in children:
            child.kill()
        kafka.close()
        mongo.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--stages", type=int, default=0, metavar="TASKS",
                        help="instead: where the time goes until a reader has its first batch")  # fmt: skip
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bench(given, Path(folder)))


if __name__ == "__main__":
    main()
