"""Counts what a run costs: CPU and memory from /proc, messages from Kafka's offsets, documents from mongod's metrics.

All of it is read from outside, so that counting costs the measured processes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
COMMANDS = ("insert", "update", "delete", "find", "getMore", "aggregate", "findAndModify", "count", "distinct")
"""What counts as a round trip: the driver's own hellos and pings do not."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Readings, or after `since` differences. `cpu` is seconds, `rss` (never a difference) MB by process; `kafka`
    messages by topic; `documents` written and `commands` answered by mongod; `seconds` and `busy` (the whole machine's
    CPU seconds) tell whether somebody else was at work meanwhile."""

    cpu: Mapping[str, float] = field(default_factory=dict)
    rss: Mapping[str, float] = field(default_factory=dict)
    kafka: Mapping[str, int] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)
    commands: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    busy: float = 0.0

    def since(self, before: Counts) -> Counts:
        return Counts(
            {name: value - before.cpu[name] for name, value in self.cpu.items()},
            self.rss,
            _less(self.kafka, before.kafka),
            _less(self.documents, before.documents),
            _less(self.commands, before.commands),
            self.seconds - before.seconds,
            self.busy - before.busy,
        )

    @property
    def others(self) -> float:
        """Cores that processes which are not ours took, of a difference."""
        return max(0.0, (self.busy - sum(self.cpu.values())) / self.seconds) if self.seconds else 0.0

    @property
    def round_trips(self) -> int:
        return sum(self.commands.values())

    @property
    def written(self) -> int:
        return sum(self.documents.values())


def _less(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: value - before.get(name, 0) for name, value in after.items()}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def machine_busy() -> float:
    """CPU seconds that all cores together were not idle, time stolen by the hypervisor included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, _idle, _wait, *interrupts_and_steal = fields
    return (user + nice + system + sum(interrupts_and_steal)) / TICKS


class Meter:
    """Reads the counters of one set of processes and services. Without services it reads the processes only."""

    def __init__(self, pids: Mapping[str, int], *, mongo: str | None = None, kafka: str | None = None,
                 topics: Mapping[str, int] | None = None) -> None:  # fmt: skip
        self._pids = pids
        self._mongo_url, self._kafka_address = mongo, kafka
        self._topics = topics or {}
        self._mongo: Any = None
        self._consumer: Any = None

    async def start(self) -> None:
        if self._mongo_url is not None:
            from pymongo import AsyncMongoClient

            self._mongo = AsyncMongoClient(self._mongo_url)
        if self._kafka_address is not None:
            from aiokafka import AIOKafkaConsumer

            self._consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka_address, enable_auto_commit=False)
            await self._consumer.start()

    async def stop(self) -> None:
        if self._mongo is not None:
            await self._mongo.close()
        if self._consumer is not None:
            await self._consumer.stop()

    async def read(self) -> Counts:
        documents, commands = await self._read_mongo()
        return Counts(
            {name: cpu_seconds(pid) for name, pid in self._pids.items()},
            {name: rss_mb(pid) for name, pid in self._pids.items()},
            await self._read_kafka(),
            documents,
            commands,
            time.monotonic(),
            machine_busy() - time.process_time(),
        )

    async def largest_document(self, database: str) -> int:
        """Bytes of the largest document in any collection of the database."""
        if self._mongo is None:
            return 0
        largest = 0
        for name in await self._mongo[database].list_collection_names():
            size = {"$group": {"_id": None, "most": {"$max": {"$bsonSize": "$$ROOT"}}}}
            async for found in await self._mongo[database][name].aggregate([size]):
                largest = max(largest, found["most"])
        return largest

    async def _read_mongo(self) -> tuple[dict[str, int], dict[str, int]]:
        if self._mongo is None:
            return {}, {}
        metrics = (await self._mongo.admin.command("serverStatus"))["metrics"]
        documents = {name: int(metrics["document"][name]) for name in ("inserted", "updated", "deleted")}
        return documents, {name: int(metrics["commands"][name]["total"]) for name in COMMANDS}

    async def _read_kafka(self) -> dict[str, int]:
        if self._consumer is None:
            return {}
        from aiokafka import TopicPartition

        places = [TopicPartition(topic, i) for topic, count in self._topics.items() for i in range(count)]
        ends = await self._consumer.end_offsets(places)
        return {topic: sum(end for place, end in ends.items() if place.topic == topic) for topic in self._topics}


def messages(counts: Counts, prefix: str, *, but: Collection[str] = ("fleet.v1", "control.v1")) -> int:
    """Messages about nodes: heartbeats come with the time, not with the nodes, and are left out."""
    return sum(number for topic, number in counts.kafka.items() if topic.removeprefix(prefix) not in but)
