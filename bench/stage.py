"""Where the benchmark plays: the servers and processes of one backend, FlowKit's and the floor's side by side.

The floor has a coordinator and a worker process of its own beside FlowKit's: in one process the heap of the one would
slow down the garbage collector of the other. Whoever is not measured idles.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.counters import Meter
from bench.floor import topics as floor_topics
from bench.processes import BenchFailed, Child
from deploy.local import KafkaServer, MongoServer, ServiceUnavailable
from flowkit.wire.topics import Topics

FLOWKIT = "flowkit"
FLOOR = "floor"


class Stage:
    """Started processes. `drivers` are those that run workloads, by side; `worker` answers what its handlers know;
    `meter` counts for all of them; `prefix` begins the topics' names."""

    def __init__(self) -> None:
        self.prefix = f"bench{uuid.uuid4().hex[:8]}."
        self.database = f"bench_{uuid.uuid4().hex[:8]}"
        self.children: dict[str, Child] = {}
        self.drivers: dict[str, Child] = {}
        self._servers = ExitStack()
        self.meter = Meter({})

    @property
    def worker(self) -> Child:
        return self.children["worker"] if "worker" in self.children else self.children["embedded"]

    def processes_of(self, side: str) -> list[str]:
        """The names of the processes that take part in a side's runs."""
        own = {FLOOR: ["floor-coordinator", "floor-worker"], FLOWKIT: ["coordinator", "worker", "embedded"]}
        return [name for name in own[side] if name in self.children]

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end(force=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(force=kind is not None)

    async def _start(self) -> None:
        raise NotImplementedError

    async def _open(self, settings: dict[str, str], roles: list[str]) -> None:
        for role in roles:
            self.children[role] = await Child.start(role, settings)

    async def _end(self, *, force: bool) -> None:
        try:
            for child in reversed(self.children.values()):
                if force:
                    child.kill()
                else:
                    await child.stop()
        finally:
            for child in self.children.values():
                child.kill()
            await self.meter.stop()
            self._servers.close()


class EmbeddedStage(Stage):
    """One process, one SQLite file."""

    async def _start(self) -> None:
        folder = self._servers.enter_context(tempfile.TemporaryDirectory(prefix="flowkit-bench-"))
        await self._open({"file": str(Path(folder) / "flow.db")}, ["embedded"])
        self.drivers = {FLOWKIT: self.children["embedded"]}
        self.meter = Meter({"embedded": self.children["embedded"].pid})


class ClusterStage(Stage):
    """A real Kafka and a real mongod (`FLOWKIT_TEST_KAFKA` and `FLOWKIT_TEST_MONGO`, else started here), coordinator
    and worker, and the floor's two where it is wanted."""

    def __init__(self, *, floor: bool) -> None:
        super().__init__()
        self._floor = floor

    async def _start(self) -> None:
        pids: dict[str, int] = {}
        kafka, mongo = os.environ.get("FLOWKIT_TEST_KAFKA"), os.environ.get("FLOWKIT_TEST_MONGO")
        try:
            if kafka is None:
                broker = self._servers.enter_context(KafkaServer())
                kafka, pids["kafka"] = broker.address, broker.pid
            if mongo is None:
                store = self._servers.enter_context(MongoServer())
                mongo, pids["mongod"] = store.url, store.pid
        except ServiceUnavailable as error:
            raise BenchFailed(str(error)) from error

        counted = {name: spec.partitions for name, spec in Topics(self.prefix).specs().items()}
        if self._floor:
            await create_topics(kafka, floor_topics(self.prefix))
            counted |= dict.fromkeys(floor_topics(self.prefix), 1)
        settings = {"kafka": kafka, "mongo": mongo, "prefix": self.prefix, "database": self.database}
        roles = ["coordinator", "worker"] + ["floor-worker", "floor-coordinator"] * self._floor
        await self._open(settings, roles)

        self.drivers = {FLOWKIT: self.children["coordinator"]}
        if self._floor:
            self.drivers[FLOOR] = self.children["floor-coordinator"]
        pids |= {role: child.pid for role, child in self.children.items()}
        self.meter = Meter(pids, mongo=mongo, kafka=kafka, topics=counted)
        await self.meter.start()


async def create_topics(address: str, names: tuple[str, ...]) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin: Any = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1) for name in names])
    finally:
        await admin.close()
