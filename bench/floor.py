"""The floor: the messages and documents of a workload, moved by bare aiokafka and PyMongo, with no engine between.

What it keeps of FlowKit: as many hops, a count of the parents that a node waits for, one commit document per task and
batch, work and events only after the commits' acknowledgement, the sizes of everything. What it leaves out: leases,
tokens, facts and their folding, heads that follow, groups, retries, recovery. Everything that is ready goes out at
once, in batches as large as they come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from pymongo import WriteConcern

from bench.driver import Sample
from bench.plan import Plan
from bench.road import Lane, Message, Reader
from bench.weights import weigh
from bench.workloads import Workload

WORK_BYTES = 60 * 1024
HEADS_AT_ONCE = 1000
FLIGHTS = 2


def topics(prefix: str) -> tuple[str, str, str]:
    """Work, results, events."""
    return f"{prefix}floor.work", f"{prefix}floor.facts", f"{prefix}floor.events"


class FloorCoordinator:
    """The half that writes the documents. `database` is PyMongo's."""

    def __init__(self, address: str, database: Any, prefix: str) -> None:
        work, facts, events = topics(prefix)
        self._work, self._events = Lane(address, work), Lane(address, events)
        self._reader = Reader(address, facts)
        durable = WriteConcern(w="majority", j=True)
        self._heads = database.get_collection("floor_tasks", write_concern=durable)
        self._commits = database.get_collection("floor_commits", write_concern=durable)
        self._weights = weigh()
        self._done: dict[int, list[tuple[int, float]]] = {}
        self._wake = asyncio.Event()
        self._runs = 0

    async def start(self) -> None:
        for part in (self._work, self._events, self._reader):
            await part.start()
        self._listener = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        self._listener.cancel()
        await asyncio.wait({self._listener})
        for part in (self._work, self._events, self._reader):
            await part.stop()

    async def run(self, work: Workload, timeout: float) -> Sample:
        """Raises `TimeoutError` for a hang, `WrongResult` if something came twice or too early."""
        plan = Plan(work, self._weights)
        self._runs += 1
        async with asyncio.timeout(timeout):
            began = time.monotonic()
            for start in range(0, work.tasks, HEADS_AT_ONCE):
                tasks = range(start, min(start + HEADS_AT_ONCE, work.tasks))
                await self._heads.insert_many([self._head(task) for task in tasks], ordered=False)
            created = time.monotonic()

            await self._decide(plan, {task: [] for task in range(work.tasks)})
            flights = [asyncio.create_task(self._fly(plan)) for _ in range(FLIGHTS)]
            try:
                await self._until_finished(plan, flights)
            finally:
                ended = time.monotonic()
                for flight in flights:
                    flight.cancel()
            await self._work.flush()
            await self._events.flush()
        return Sample(ended - began, created - began, plan.hops())

    async def _until_finished(self, plan: Plan, flights: list[asyncio.Task[None]]) -> None:
        finished = asyncio.create_task(plan.finished.wait())
        endless = {*flights, self._listener, self._work.task, self._events.task}
        try:
            done, _ = await asyncio.wait({finished, *endless}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished.cancel()
        for failed in done & endless:
            failed.result()

    async def _listen(self) -> None:
        while True:
            values = await self._reader.fetch()
            for value in values:
                run, rows = msgspec.json.decode(value)
                if run == self._runs:
                    for task, node, at, _ in rows:
                        self._done.setdefault(task, []).append((node, at))
            if self._done:
                self._wake.set()

    async def _fly(self, plan: Plan) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            done, self._done = self._done, {}
            if done:
                await self._decide(plan, done)

    async def _decide(self, plan: Plan, done: Mapping[int, list[tuple[int, float]]]) -> None:
        """One batch: a commit for every task that something came for, then its event and what is ready now."""
        docs: list[dict[str, Any]] = []
        jobs: list[tuple[int, int, str]] = []
        for task, nodes in done.items():
            step = plan.step(task, nodes)
            jobs += step.jobs
            docs.append(self._commit(task, step.seq, step.body))
        await self._commits.insert_many(docs, ordered=False)

        self._work.send(self._pack(jobs))
        frame = b"{" + b"x" * (self._weights.event - 2)
        self._events.send(
            [(doc["task"].encode(), frame + doc["body"].encode() + b"}", self._weights.headers) for doc in docs]
        )
        plan.acknowledged(done)

    def _pack(self, jobs: list[tuple[int, int, str]]) -> list[Message]:
        """Jobs in messages of at most 60 KB."""
        messages: list[Message] = []
        rows: list[tuple[int, int, str]] = []
        size = 0
        for job in jobs:
            rows.append(job)
            size += len(job[2]) + 20
            if size > WORK_BYTES:
                messages.append((b"worker", msgspec.json.encode([self._runs, rows]), []))
                rows, size = [], 0
        if rows:
            messages.append((b"worker", msgspec.json.encode([self._runs, rows]), []))
        return messages

    def _head(self, task: int) -> dict[str, Any]:
        return {**self._weights.head, "_id": self._name(task)}

    def _commit(self, task: int, seq: int, body: str) -> dict[str, Any]:
        name = self._name(task)
        return {**self._weights.commit, "_id": f"{name}:{seq:010d}", "task": name, "seq": seq, "body": body}

    def _name(self, task: int) -> str:
        return f"{self._runs:08d}-0000-0000-0000-{task:012d}"  # as long as a UUID


class FloorWorker:
    """The half that answers each job with a result."""

    def __init__(self, address: str, prefix: str) -> None:
        work, facts, _ = topics(prefix)
        self._reader, self._facts = Reader(address, work), Lane(address, facts)
        self._pad = "x" * (weigh().result - 40)

    async def start(self) -> None:
        await self._reader.start()
        await self._facts.start()
        self._listener = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        self._listener.cancel()
        await asyncio.wait({self._listener})
        await self._reader.stop()
        await self._facts.stop()

    async def _listen(self) -> None:
        while True:
            answers: list[Message] = []
            for value in await self._reader.fetch():
                run, rows = msgspec.json.decode(value)
                done = [(task, node, time.monotonic(), self._pad) for task, node, _ in rows]
                answers.append((b"task", msgspec.json.encode([run, done]), []))
            self._facts.send(answers)
