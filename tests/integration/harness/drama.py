"""A cluster of processes on servers of its own, under load, while one fault after the other strikes it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import KafkaServer, MongoServer
from deploy.local.server import LocalServer
from flowkit.adapters.mongo import MongoStore
from tests.integration.harness.demands import AT_LEAST
from tests.integration.harness.ledger import Ledger
from tests.integration.harness.load import Load
from tests.integration.harness.processes import Cluster, Part, Role
from tests.integration.harness.verdict import Fault, Verdict, heads_closed, read_events, read_everything
from tests.integration.site import Site, database_url, until

COORDINATORS, WORKERS = 2, 3
TASKS = 80
TTL_SEC = 10.0
# So long may clients need to find a server again that was away.
AFTERMATH_SEC = 15.0
# Some end between the look and the fault: on a busy machine a tenth of a second lies between the two.
ENOUGH = AT_LEAST + 9


@dataclass
class Drama:
    kafka: KafkaServer
    mongo: MongoServer
    cluster: Cluster
    load: Load
    ledger: Ledger
    dice: random.Random
    faults: list[Fault] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------ faults

    async def busy(self) -> None:
        """Wait until enough attempts run on living workers."""
        dead = frozenset(part.name for part in self.cluster.every if not part.living or part.frozen_at is not None)

        def running() -> bool:
            count = len(self.ledger.running(except_workers=dead))
            return count >= ENOUGH

        await until(f"{ENOUGH} attempts run", running, timeout=60, every=0.01)

    def begun(self, task_ids: list[str]) -> bool:
        self.ledger.look()
        return set(task_ids) <= {run.task_id for run in self.ledger.runs}

    def pick(self, role: Role) -> Part:
        """Each in turn, so that every place is hit."""
        places = sorted(place for place, part in self.cluster.parts.items() if part.role == role and part.living)
        hits = sum(fault.kind.startswith(role) for fault in self.faults)
        return self.cluster.parts[places[hits % len(places)]]

    async def kill(self, role: Role) -> Part:
        """SIGKILL one, and replace it at once, as a supervisor of processes does."""
        await self.busy()
        victim = self.pick(role)
        self.faults.append(Fault(f"{role}_kill", victim.name, victim.kill()))
        return self.cluster.replace(victim)

    async def freeze(self, role: Role, seconds: float) -> None:
        """SIGSTOP one, and let it go on after so long."""
        await self.busy()
        victim = self.pick(role)
        fault = Fault(f"{role}_stop", victim.name, victim.freeze())
        self.faults.append(fault)
        await asyncio.sleep(seconds)
        fault.until = time.time()
        victim.thaw()

    async def strike(self, server: LocalServer, *, crash: bool, away: float = 0.0) -> None:
        """Kill a server or stop it in good order, and start it again after `away` seconds; `until` is when it
        served."""
        await self.busy()
        fault = Fault(f"{server.name}_{'kill' if crash else 'restart'}", server.name, time.time())
        self.faults.append(fault)
        await asyncio.to_thread(server.kill if crash else server.stop)
        await asyncio.sleep(away)
        await asyncio.to_thread(server.start)
        fault.until = time.time()

    async def hold_breath(self, server: LocalServer, seconds: float) -> None:
        """A server that stands still: its connections stay open, and nothing answers."""
        await self.busy()
        fault = Fault(f"{server.name}_freeze", server.name, time.time())
        self.faults.append(fault)
        server.freeze()
        await asyncio.sleep(seconds)
        server.thaw()
        fault.until = time.time()

    # ------------------------------------------------------------------------------------------ the end

    async def verdict(self, timeout: float = 60.0) -> Verdict:
        """End the load, let everything come to rest, and read all that there is. What has not come to rest by then is
        for the verdict to find."""
        await self.load.stop(timeout)
        store = MongoStore(self.cluster.site.db)
        await store.start()
        try:
            with suppress(AssertionError):
                await heads_closed(store, timeout=30)
            facts = await read_everything(store)
        finally:
            await store.stop()
        facts.events = await read_events(self.cluster.site, f"{self.cluster.site.prefix}events.v1")
        return Verdict(
            self.faults, self.ledger, facts, list(self.load.accepted), TTL_SEC, self.load.wrong(), self.complaints()
        )

    def complaints(self) -> list[str]:
        """Processes that ended unasked, and loops that failed though every server was there, and they themselves
        were not frozen."""
        failed = [
            f"{part.name} at {at:.2f}: {about}"
            for part, at, what, about in self.cluster.happenings()
            if what == "LoopFailed" and not any(self._excuses(fault, part, at) for fault in self.faults)
        ]
        return [*self.cluster.complaints(), *failed]

    def _excuses(self, fault: Fault, part: Part, at: float) -> bool:
        concerned = fault.victim in (part.name, self.kafka.name, self.mongo.name)
        return concerned and fault.at <= at <= fault.until + AFTERMATH_SEC


@asynccontextmanager
async def drama(
    folder: Path, seed: int, *, tasks: int = TASKS, sec: tuple[float, float] = (0.05, 0.5)
) -> AsyncIterator[Drama]:
    """Servers, coordinators, workers and a load that has begun."""
    kafka, mongo = KafkaServer(), MongoServer()
    try:
        await asyncio.gather(asyncio.to_thread(kafka.start), asyncio.to_thread(mongo.start))
        site = Site(kafka.address, "kills.", database_url(mongo.url, "kills"))
        dice = random.Random(seed)
        with Cluster(site, folder, folder / "ledger") as cluster:
            await cluster.start(coordinators=COORDINATORS, workers=WORKERS)
            async with site.client() as client:
                load = Load(client, tasks, random.Random(dice.random()), sec)
                play = Drama(kafka, mongo, cluster, load, Ledger(folder / "ledger"), dice)
                await load.start()
                try:
                    yield play
                finally:
                    await load.abandon()
    finally:
        await asyncio.gather(asyncio.to_thread(kafka.close), asyncio.to_thread(mongo.close))
