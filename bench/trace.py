"""`python -m bench.trace [queries|mongo|sqlite|logs|all]`: what the Flow Trace Monitor can take, on its own servers.

`queries` (on `mongo` and on `sqlite`) fills the index with 1,000,000 ended attempts (20 flows of 10 nodes over 7 days,
a tenth of them those of one node, a twentieth with a program), stores the commits of two tasks of 1,000 attempts each,
and times each question: the median and the worst of 20. `--attempts N` takes another number.
`logs` sends 20,000 log lines a second for half a minute from a worker's own pipe through Kafka into MongoDB, with the
writer in a process of its own, and counts what has arrived. Both say how loaded the machine was.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

from deploy.local import KafkaServer, MongoServer
from flowkit.adapters.kafka import KafkaBus
from flowkit.adapters.mongo import MongoStore
from flowkit.adapters.sqlite import SqliteStore
from flowkit.backend import Backend
from flowkit.clock import SystemClock
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.core import facts as f
from flowkit.core.payload import Payload
from flowkit.monitor import traces_of
from flowkit.monitor_ports import AttemptQuery, AttemptRecord, TraceStore
from flowkit.ports import Commit, Head, Outcome
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.trace.indexer import RECORDS
from flowkit.trace.log_writer import LogWriter
from flowkit.trace.traces import Traces
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from flowkit.wire.messages import Job
from flowkit.wire.topics import Topics
from flowkit.worker.attempt_log import LogBounds
from flowkit.worker.log_pipe import LogPipe

ATTEMPTS = 1_000_000
FLOWS, NODES, DAYS = 20, 10, 7
TIMES = 20
ITEMS = 1000
LIMIT_MS = 200.0
RATE, SECONDS, SPEAKERS = 20_000, 30, 40
NAME = "bench_trace"
DAY = 86_400.0


def record(number: int, of: int, now: float, dice: random.Random) -> AttemptRecord:
    hot = number % 10 == 0
    flow, node = ("flow0", "n0") if hot else (f"flow{number % FLOWS}", f"n{number // FLOWS % NODES}")
    ended = now - DAYS * DAY * (1 - number / of) - dice.random() * 600.0  # tasks are counted soon after their end
    run = dice.lognormvariate(-1.0, 1.0)
    bad = dice.random() < 0.02
    used = {
        "verdict": "finished", "level": "L3", "wall_sec": run, "cpu_sec": run * dice.random(),
        "peak_memory_bytes": dice.randrange(2**24, 2**30), "read_bytes": 4096, "written_bytes": 0,
    }  # fmt: skip
    return AttemptRecord(
        task_id=f"t{number // NODES}", tenant="default", flow=flow, node=f"{node}[{number}]", base=node, role="work",
        attempt=1, generation=0, outcome="failed" if bad else "succeeded", code="boom" if bad else "", worker="w1",
        ready_at=ended - run - 0.01, leased_at=ended - run, ended_at=ended, run_sec=run, seq=2,
        usage=used if number % 20 == 1 else None,
    )  # fmt: skip


async def fill(traces: TraceStore, attempts: int, now: float, pid: int) -> None:
    """As the indexer does: so many attempts at a time, which are counted and recorded."""
    dice = random.Random(7)
    spent = {"recorded": [0.0, 0.0], "counted": [0.0, 0.0]}

    async def timed(what: str, work: Awaitable[Any]) -> Any:
        began, used = time.perf_counter(), time.process_time() + cpu_ms(pid) / 1000
        done = await work
        spent[what][0] += time.perf_counter() - began
        spent[what][1] += time.process_time() + cpu_ms(pid) / 1000 - used
        return done

    for start in range(0, attempts, RECORDS):
        records = [record(n, attempts, now, dice) for n in range(start, min(start + RECORDS, attempts))]
        marks = {one.task_id: (0, 2) for one in records}
        assert set(await timed("recorded", traces.insert_attempts(records))) == {Outcome.OK}
        assert await timed("counted", traces.count_attempts(marks, records)) is Outcome.OK
    for what, (took, used) in spent.items():
        each = 1e6 * used / attempts
        said = f"{took:.0f} s and {used:.0f} s of CPU ({each:.0f} µs each)"
        print(f"{attempts:,} attempts {what} in {said}", flush=True)


def cpu_ms(pid: int) -> float:
    """What the server has used: on a busy machine it says more than the time that passed. 0 where there is none."""
    if not pid:
        return 0.0
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def queries(store: MongoStore | SqliteStore, attempts: int, pid: int = 0) -> bool:
    await store.start()
    now = time.time()
    await fill(store.traces, attempts, now, pid)
    traces = await _of_two_tasks(store, now)
    counted = traces_of(cast("Any", None), Backend(cast("Any", _Counted(store)), cast("Any", None)), SystemClock())
    node, flow = attempts // FLOWS // NODES * 9 // 10, attempts // FLOWS
    hot = attempts // 10
    questions: dict[str, Callable[[], Awaitable[Any]]] = {
        f"history of one node, by the hour ({node:,})": lambda: traces.history(flow="flow7", node="n3"),
        f"history of a flow's ten nodes, by the day ({flow:,})": lambda: traces.history(flow="flow7", bucket_sec=DAY),
        f"history of a flow's ten nodes, by the hour ({flow:,})": lambda: traces.history(flow="flow7"),
        f"history of the hot node, by the hour ({hot:,} and more)": lambda: traces.history(flow="flow0", node="n0"),
        f"history of all, by the day ({attempts:,})": lambda: traces.history(bucket_sec=DAY),
        "history of a node, a day by five minutes (records)": lambda: traces.history(
            flow="flow7", node="n3", since=now - DAY, bucket_sec=300.0
        ),
        f"slowest 20 attempts of all ({attempts:,})": lambda: traces.slowest(limit=20),
        "slowest 20 attempts of a flow": lambda: traces.slowest(flow="flow7", limit=20),
        "20 attempts with most CPU time": lambda: traces.slowest(limit=20, by="cpu"),
        "20 attempts of a flow with most memory": lambda: traces.slowest(flow="flow1", limit=20, by="memory"),
        "slowest 20 of all, without records": lambda: counted.slowest(limit=20),
        "path of a task of 1,000 attempts": lambda: traces.show("one"),
        "waterfall of it": lambda: traces.waterfall("one"),
        "critical path of it": lambda: traces.critical_path("one"),
        "slowest nodes of it": lambda: traces.slowest_of("one"),
        "bottlenecks of it": lambda: traces.bottlenecks("one"),
        "inputs and outputs of one of its items": lambda: traces.values("one", "each[7]"),
        "comparison of it with another": lambda: traces.compare("one", "two"),
    }
    good = True
    for what, ask in questions.items():
        times, used, own = [], cpu_ms(pid), time.process_time()
        for _ in range(TIMES):
            began = time.perf_counter()
            answer = await ask()
            times.append(1000 * (time.perf_counter() - began))
            assert answer, what
        times.sort()
        good &= times[TIMES // 2] <= LIMIT_MS
        used, own = (cpu_ms(pid) - used) / TIMES, 1000 * (time.process_time() - own) / TIMES
        print(f"{what:58} median {times[TIMES // 2]:6.1f} ms, worst {times[-1]:6.1f} ms; "
              f"of CPU {used:.0f} ms there and {own:.0f} ms here", flush=True)  # fmt: skip
    await store.stop()
    return good


class _Counted:
    """A store whose index keeps no records of single attempts."""

    def __init__(self, store: Any) -> None:
        self.traces = self
        self.logs = store.logs
        self.rollups = store.traces.rollups

    async def slowest_attempts(self, query: AttemptQuery, **_: Any) -> list[AttemptRecord]:
        return []


async def _of_two_tasks(store: MongoStore | SqliteStore, now: float) -> Traces:
    """The questions, also about two tasks with 1,000 attempts in 102 commits each."""
    raw = {"nodes": [{"node_id": "each", "type": "work", "foreach": {"$param": "items"}}]}
    text = dumps(raw)
    ref = hashlib.sha256(text).hexdigest()
    await store.put_blob(ref, text, kind="graph")
    for task_id in ("one", "two"):
        params = dumps({"items": list(range(ITEMS))}).decode()
        await store.insert_heads([Head(task_id, 0, ref, params, created_at=now, seq=0)])
        assert set(await store.insert_commits(list(_commits(task_id, now)))) == {Outcome.OK}
    return traces_of(History(store, Graphs(store)), Backend(store, cast("Any", None)), SystemClock())


def _commits(task_id: str, now: float) -> Iterator[Commit]:
    steps: list[list[f.Fact]] = [[f.TaskCreated(), f.NodeExpanded("each", ITEMS)]]
    for start in range(0, ITEMS, 10):
        names = [f"each[{n}]" for n in range(start, start + 10)]
        ended = [f.AttemptSucceeded(name, 1, f"k{name}", Payload(name), run_sec=0.5) for name in names]
        if start:
            steps.append([])
        steps[-1] += [f.AttemptLeased(name, 1, f"k{name}", "w", "i", 1.0) for name in names]
        steps[-1] += ended
    steps.append([f.NodeGathered("each"), f.TaskEnded("finished")])
    for seq, facts in enumerate(steps, 1):
        before = f"{task_id}.{seq - 1}" if seq > 1 else ""
        yield Commit(task_id, seq, f"{task_id}.{seq}", before, now + seq, "c", body_of(encode_facts(facts)))


# ---------------------------------------------------------------------------------------------- logs


async def logs(kafka: str, mongo: str) -> bool:
    environment = {**os.environ, "BENCH_KAFKA": kafka, "BENCH_DB": _url(mongo)}
    store, bus = MongoStore(_url(mongo), timeout=60.0), KafkaBus(kafka)
    await store.start()
    await bus.start()
    topics = Topics(f"{NAME}.")
    await bus.ensure_topics(topics.specs())
    telemetry, clock = Telemetry(), SystemClock()
    supervisor = Supervisor("bench", telemetry)
    bounds = LogBounds(RATE * SECONDS, 1 << 40, 0)
    pipe = LogPipe(
        bus=bus, topics=topics, supervisor=supervisor, telemetry=telemetry, worker_id="w", incarnation="i",
        bounds=bounds, clock=clock.wall,
    )  # fmt: skip
    child = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-m", "bench.trace", "writer"], env=environment)
    try:
        await asyncio.sleep(6.0)  # until the group has settled
        cut = await _speak(pipe, clock)
        sent = await pipe.flush(60.0)
        total = RATE * SECONDS
        arrived, began = 0, time.perf_counter()
        while arrived < total - cut and time.perf_counter() - began < 120:
            await asyncio.sleep(0.5)
            arrived = await _count(store)
        late = time.perf_counter() - began
        print(f"{total:,} lines said at {RATE:,}/s, {cut:,} cut for want of room, all sent: {sent}; "
              f"{arrived:,} in the store, the last {late:.1f} s after the last was said", flush=True)  # fmt: skip
        return arrived == total and cut == 0
    finally:
        child.terminate()
        await asyncio.to_thread(child.wait, 20)
        await supervisor.stop()
        await bus.stop()
        await store.stop()


async def _speak(pipe: LogPipe, clock: SystemClock) -> int:
    """Say the lines, so many a second; how many found no room."""
    said = [pipe.open(_job(number)) for number in range(SPEAKERS)]
    cut, number, began = 0, 0, clock.mono()
    while number < RATE * SECONDS:
        due = min(RATE * SECONDS, int((clock.mono() - began) * RATE))
        while number < due:
            kept = said[number % SPEAKERS].write(20, f"line {number} of a bench, with some words", {"n": number})
            cut += not kept
            number += 1
        await asyncio.sleep(0.005)
    took = clock.mono() - began
    print(f"said {number:,} lines in {took:.1f} s ({number / took:,.0f}/s)", flush=True)
    return cut


def _job(number: int) -> Job:
    return Job(
        task_id=f"task-{number}", tenant="default", principal="p", partition=0, node="n", role="r", attempt=1,
        token=f"k{number}", generation=0, accept_by=0.0, inputs={},
    )  # fmt: skip


async def _count(store: MongoStore) -> int:
    cursor = await store.logs._collection("logs").aggregate([{"$group": {"_id": None, "lines": {"$sum": "$count"}}}])
    found = await cursor.to_list(None)
    return int(found[0]["lines"]) if found else 0


async def write() -> None:
    """The process that writes lines down, until it is told to end."""
    store, bus, telemetry = MongoStore(os.environ["BENCH_DB"]), KafkaBus(os.environ["BENCH_KAFKA"]), Telemetry()
    await store.start()
    await bus.start()
    topics = Topics(f"{NAME}.")
    await bus.ensure_topics(topics.specs())
    writer = LogWriter(
        bus=bus, topics=topics, group=f"{NAME}.logs", store=store.logs, clock=SystemClock(), telemetry=telemetry
    )
    await writer.start()
    while True:
        await writer.step()


def _url(mongo: str) -> str:
    return mongo.replace("/?", f"/{NAME}?") if "/?" in mongo else f"{mongo.rstrip('/')}/{NAME}"


async def main(what: str, attempts: int) -> bool:
    good = True
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    if what in ("queries", "sqlite", "all"):
        print("a file", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            good &= await queries(SqliteStore(Path(folder) / "bench.db", timeout=60.0), attempts)
    if what in ("queries", "mongo", "logs", "all"):
        good &= await _on_servers(what, attempts)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end", flush=True)
    return good


async def _on_servers(what: str, attempts: int) -> bool:
    kafka, mongo = KafkaServer(), MongoServer()
    await asyncio.to_thread(mongo.start)
    good = True
    try:
        if what != "logs":
            print("MongoDB", flush=True)
            good &= await queries(MongoStore(_url(mongo.url), timeout=60.0), attempts, mongo.pid)
        if what in ("logs", "all"):
            await asyncio.to_thread(kafka.start)
            good &= await logs(kafka.address, mongo.url)
    finally:
        await asyncio.gather(asyncio.to_thread(kafka.close), asyncio.to_thread(mongo.close))
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser("bench.trace")
    parser.add_argument(
        "what", nargs="?", default="all", choices=("queries", "mongo", "sqlite", "logs", "all", "writer")
    )
    parser.add_argument("--attempts", type=int, default=ATTEMPTS)
    asked = parser.parse_args()
    if asked.what == "writer":
        asyncio.run(write())
    else:
        sys.exit(0 if asyncio.run(main(asked.what, asked.attempts)) else 1)
