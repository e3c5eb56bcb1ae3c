"""A whole cluster in one process: real coordinators and workers, on simulated machines, in virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from flowkit.adapters.sealed_bus import SealedBus
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.core.bounds import bounds_of
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.ports import DELETED, Bus
from flowkit.telemetry import Telemetry
from flowkit.testing import faults
from flowkit.testing.bus import Broker, FaultyBus
from flowkit.testing.entropy import seeded
from flowkit.testing.evidence import Asked, Evidence, Frozen, Start, Violation
from flowkit.testing.history import check_history, essence_of
from flowkit.testing.loop import Stuck
from flowkit.testing.machine import Machine
from flowkit.testing.observer import Observer
from flowkit.testing.replica import ReplicaSet
from flowkit.testing.stage import EPOCH, Stage
from flowkit.testing.store import FaultyStore
from flowkit.testing.summary import describe_tasks, needed_runs
from flowkit.wire.codec import loads
from flowkit.wire.seals import Seals, in_pool
from flowkit.wire.topics import Topics

T = TypeVar("T")
Handler = Callable[..., Awaitable[Any] | AsyncIterator[Any]]
PARTITIONS = 4
SLOTS = 2
STOP_SEC = 20.0
MODES = ("chaos", "calm", "outage", "ccrash")


class ProcessDied(Exception):
    """The simulated process that was to do something died before it had."""


class Runtime(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(slots=True)
class Report:
    """How a world fared. `recover_sec`: from the end of the faults until everything had ended and was quiet. `needed`
    are the runs of nodes that had an effect, of all `runs`. `ends` shows the tasks' commits, if traced."""

    seed: int
    mode: str
    violations: list[Violation]
    counts: Mapping[str, int]
    recover_sec: float
    digest: str
    steps: int
    virtual_sec: float
    runs: int
    needed: int
    most_runs: int
    trace: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


class World:
    """`coordinators`, `workers` and `apis` are how many of each; `handlers` are the workers', by role.

    `mode` is `chaos` (everything goes wrong), `calm` (nothing does), `outage` (Kafka is away for three TTLs) or
    `ccrash`
    (coordinators crash, nothing else). `without` names guards that are off in the simulated store. Whatever has not
    ended `patience_sec` after the last fault never will. `seals` gives what the messages of a kind of machine
    (`coordinator`, `worker`, `api`) are signed by.
    """

    def __init__(self, seed: int = 0, *, mode: str = "calm", coordinators: int = 2, workers: int = 3, apis: int = 2,
                 handlers: Mapping[str, Handler] | None = None,
                 without: Collection[str] = (), trace: bool = False, patience_sec: float = 100_000.0,
                 seals: Callable[[str], Seals] | None = None) -> None:  # fmt: skip
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
        self.stage = stage = Stage(seed, mode, without=frozenset(without), trace=trace)
        self.heal_at = faults.heal_at(mode)
        self.topics = Topics(partitions=PARTITIONS)
        self.replica = ReplicaSet(stage)
        self.broker = Broker(stage)
        self.broker.ensure(self.topics.specs())
        self.handlers: dict[str, Handler] = dict(handlers or {})
        self.labels: dict[str, dict[str, str]] = {}  # of the workers, by name
        self.settings = _settings(stage)
        self.patience_sec = patience_sec
        self.coordinators = [Machine(stage, f"C{n}", "coordinator", self._boot) for n in range(coordinators)]
        self._seals = seals
        pool = "" if seals is None else seals("worker").pool
        self.workers = [Machine(stage, in_pool(f"W{n}", pool), "worker", self._boot) for n in range(workers)]
        self.apis = [Machine(stage, f"A{n}", "api", self._boot) for n in range(apis)]
        self.machines = [*self.coordinators, *self.workers, *self.apis]
        self.runtimes: dict[str, Any] = {}
        self.stores: dict[str, FaultyStore] = {}
        self.accepted: dict[str, float] = {}
        self.asked: list[Asked] = []
        self.on_boot: list[Callable[[Machine, Any, FaultyStore], None]] = []
        self._graphs: dict[str, Graph] = {}
        self._deaths: dict[str, asyncio.Future[None]] = {}
        self.observer = Observer(
            stage, self.broker, self.replica, self.topics, {m.name: m for m in self.machines}, self.new_task
        )
        self.observer.attach()
        for machine in self.machines:
            machine.buried += [self.broker.bury, self.observer.buried, self._bury]

    # ---- processes

    def _boot(self, machine: Machine) -> None:
        self.stage.loop.create_task(self._live(machine), name=f"main of {machine.name}")

    async def _live(self, machine: Machine) -> None:
        """What a process's `main` does. One that cannot start exits, and its supervisor starts it again."""
        store = self.stores[machine.name] = FaultyStore(self.stage, self.replica, machine)
        bus: Bus = FaultyBus(self.stage, self.broker, machine)
        if self._seals is not None:
            bus = SealedBus(bus, self._seals(machine.kind))
        telemetry = Telemetry()
        telemetry.subscribe(partial(self.observer.heard, machine))
        store.on_renewed = self.observer.renewed_in_store
        runtime = self._make(machine, store, bus, telemetry)
        for hook in self.on_boot:
            hook(machine, runtime, store)
        try:
            await bus.start()
            await store.start()
            if machine.kind != "api":
                await runtime.start()
        except (BusUnavailable, StoreUnavailable):
            self.stage.count("boot_failed")
            machine.crash(1.0)
        else:
            self.runtimes[machine.name] = runtime

    def _make(self, machine: Machine, store: FaultyStore, bus: Bus, telemetry: Telemetry) -> Runtime:
        name = f"{machine.name}.{machine.incarnation}"
        if machine.kind == "worker":
            return self.make_worker(machine, store, bus, telemetry)
        from flowkit.coordinator.runtime import CoordinatorRuntime

        cfg = CoordinatorConfig(coordinator_id=machine.name, facts_partitions=PARTITIONS, **self.settings)
        return CoordinatorRuntime(
            store=store, bus=bus, clock=machine.clock, cfg=cfg, telemetry=telemetry, new_token_prefix=name
        )

    def make_worker(self, machine: Machine, store: FaultyStore, bus: Bus, telemetry: Telemetry) -> Runtime:
        from flowkit.worker.registry import Registry
        from flowkit.worker.runtime import WorkerRuntime

        cfg = WorkerConfig(
            worker_id=machine.name, facts_partitions=PARTITIONS, slots=SLOTS, roles=list(self.handlers),
            labels=self.labels.get(machine.name, {}),
        )  # fmt: skip
        return WorkerRuntime(
            store=store, bus=bus, clock=machine.clock, cfg=cfg, registry=Registry(self.handlers), telemetry=telemetry,
            heart_in_thread=False, new_id=lambda size: f"{machine.name}.{machine.incarnation}",
        )  # fmt: skip

    def _bury(self, machine: Machine) -> None:
        self.runtimes.pop(machine.name, None)
        if (died := self._deaths.pop(machine.name, None)) is not None:
            died.set_result(None)

    async def on(self, machine: Machine, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something in a machine's process. Raises `ProcessDied` if that dies meanwhile."""
        task = machine.process.context().run(self.stage.loop.create_task, work())
        died = self._deaths.setdefault(machine.name, self.stage.loop.create_future())
        waiting: set[asyncio.Future[Any]] = {task, died}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ProcessDied(machine.name)
        return task.result()

    async def ask(self, call: Callable[[Any], Coroutine[Any, Any, T]], *, machine: Machine | None = None) -> T:
        """Ask the API as a user would, in the process of an API machine: `await world.ask(lambda api: api.get(id))`."""
        machine = machine or self.apis[0]
        while machine.name not in self.runtimes:
            await asyncio.sleep(0.1)
        return await self.on(machine, partial(call, self.runtimes[machine.name].api))

    # ---- running

    def run(self, play: Callable[[World], Coroutine[Any, Any, None]], **evidence: Any) -> Report:
        """Start the cluster, play, heal when it is time, wait until everything has ended, and judge. To be called where
        no loop runs. `evidence` goes into the `Evidence` of the judgement."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            with seeded(f"{self.stage.seed}/{self.stage.mode}"):
                try:
                    self.stage.loop.run_until_complete(self._run(play))
                except Stuck as error:
                    self.observer.say("stuck", "", error)
                return self.judge(**evidence)
        finally:
            self.stage.loop.close()
            if collecting:
                gc.enable()

    async def _run(self, play: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        for machine in self.machines:
            machine.start()
        playing = self.stage.loop.create_task(play(self), name="play")
        await asyncio.sleep(self.heal_at)
        self.heal()
        while self.stage.now < self.heal_at + self.patience_sec and not (playing.done() and self.quiet()):
            await asyncio.sleep(1.0)
        if playing.done():
            playing.result()
        else:
            self.observer.say("play_stuck", "", "the users were not done when time was up")
        self.compare_memory()
        self.compare_room()
        if self.stage.mode == "calm":
            await self._stop_all()

    async def _stop_all(self) -> None:
        """Stop every process as its owner would, and see that nothing of it goes on."""
        stopping = [machine for machine in [*self.coordinators, *self.workers] if machine.alive]
        for machine in stopping:
            while machine.name not in self.runtimes:
                await asyncio.sleep(0.1)
            try:
                async with asyncio.timeout(STOP_SEC):
                    await self.on(machine, self.runtimes[machine.name].stop)
            except TimeoutError:
                self.observer.say("stop_stuck", machine.name, f"it did not stop within {STOP_SEC:g} s")
        await asyncio.sleep(1.0)
        for machine in stopping:
            left = sorted(task.get_name() for task in machine.process.tasks if not task.done())
            if left:
                self.observer.say("left_running", machine.name, f"after its stop: {', '.join(left)}")

    def heal(self) -> None:
        """Every fault is over; who is dead comes back."""
        self.stage.note("HEAL")
        self.stage.storm = False
        self.replica.heal()
        for machine in self.machines:
            machine.heal()
        self.broker.heal()

    def quiet(self) -> bool:
        """Whether every task has ended, its head says so, and every request is marked; or it was deleted."""
        data, removed = self.replica.majority.data, self.replica.removed.heads
        for task_id in {**data.heads, **self.accepted}:
            head = data.heads.get(task_id)
            if head is None and task_id in removed:
                continue
            last = max(data.commits.get(task_id, {0: None}))
            if head is not None and head.status == DELETED and last == 0:
                continue  # it only says that its idempotency key has begun anew
            if head is None or head.active or last != head.seq:
                return False
        gone = {task_id for task_id, head in {**removed, **data.heads}.items() if head.status == DELETED}
        open_requests = (
            r for task_id, requests in data.requests.items() if task_id not in gone for r in requests.values()
        )
        return all(request.applied for request in open_requests)

    # ---- judging

    def compare_memory(self) -> None:
        """What a coordinator holds of a task must be what its commits fold to (I1)."""
        for machine in self.coordinators:
            runtime = self.runtimes.get(machine.name)
            for cell in list(runtime.engine.cells.values()) if runtime is not None else ():
                chain = self.replica.majority.data.commits.get(cell.task_id, {})
                if cell.task is None or not cell.live or cell.flight is not None or cell.acked not in chain:
                    continue
                folded = self.observer.fold(cell.task_id, cell.acked)
                if folded is None or essence_of(folded) != essence_of(cell.task):
                    self.observer.say("memory_differs", cell.task_id, f"{machine.name} at commit {cell.acked}")

    def compare_room(self) -> None:
        """A coordinator that counts more places with a worker than it has leases there would give it less and less."""
        for machine in self.coordinators:
            if (runtime := self.runtimes.get(machine.name)) is None:
                continue
            known = Counter((watch.worker, watch.incarnation) for watch in runtime.leases.watches.values())
            flights = [cell.flight for cell in runtime.engine.cells.values() if cell.flight is not None]
            known.update((placed.worker, placed.incarnation) for flight in flights for placed in flight.reserved)
            for view in runtime.fleet.workers.values():
                if view.mine > known[view.worker, view.incarnation]:
                    self.observer.say("room_lost", "", f"{machine.name} counts {view.mine} places with {view.worker}")

    def new_task(self, task_id: str) -> Task | None:
        """The state before its first fact of a task that stands in the store."""
        head = self.replica.majority.data.heads.get(task_id)
        if head is None:
            return None
        if (graph := self.graph(head.graph_ref)) is None:
            return None
        task = Task(
            task_id=task_id,
            graph=graph,
            params=loads(head.params),
            tenant=head.tenant,
            timeout_sec=head.timeout_sec,
            parent_attempt=head.parent_attempt,
            deadline=head.deadline,
        )
        task.bounds = bounds_of(self.settings.get("limits", {}))
        return task

    def graph(self, ref: str) -> Graph | None:
        chunks = self.replica.majority.data.blobs.get(("graph", ref))
        if ref not in self._graphs and chunks is not None:
            self._graphs[ref] = parse_graph(loads(b"".join(chunks)))
        return self._graphs.get(ref)

    def evidence(self) -> Evidence:
        data, removed = self.replica.majority.data, self.replica.removed
        heads = {**removed.heads, **data.heads}
        refs = {head.graph_ref for head in heads.values()}
        requests = [*removed.requests.values(), *data.requests.values()]
        return Evidence(
            heads=heads,
            graphs={ref: graph for ref in sorted(refs) if (graph := self.graph(ref)) is not None},
            accepted=self.accepted,
            asked=self.asked,
            requests=[request for one in requests for request in one.values()],
            acknowledged=self.replica.acknowledged,
            events=self.observer.events,
            frozen=[
                Frozen(f.process, EPOCH + f.since, EPOCH + f.until)
                for machine in self.machines
                for f in machine.freezes
            ],
            losses=[EPOCH + at for at in self.broker.losses],
            calm_since=EPOCH + (0.0 if self.stage.mode == "calm" else self.heal_at),
            stop_sec=8.0 if self.stage.mode == "calm" else 15.0,
            unjust=self.observer.unjust,
            strict=self.stage.mode != "chaos",
        )

    def judge(self, **more: Any) -> Report:
        """The report on what has happened so far."""
        evidence = self.evidence()
        for name, value in more.items():
            setattr(evidence, name, value)
        chains = [*self.replica.removed.commits.values(), *self.replica.majority.data.commits.values()]
        commits = list(dict.fromkeys(commit for chain in chains for commit in chain.values()))
        for owner, error, message in self.stage.loop.faults:
            self.observer.say("uncaught", owner, f"{message}: {error!r}")
        found = self.observer.found + check_history(commits, [_dated(s) for s in self.observer.starts], evidence)
        runs = Counter(start.key for start in self.observer.starts)
        return Report(
            seed=self.stage.seed,
            mode=self.stage.mode,
            violations=found,
            counts=self.stage.counts,
            recover_sec=max(0.0, self.stage.now - self.heal_at),
            digest=self.stage.digest(),
            steps=self.stage.loop.steps,
            virtual_sec=self.stage.now,
            runs=len(self.observer.starts),
            needed=needed_runs(commits, self.observer.starts),
            most_runs=max(runs.values(), default=0),
            trace=self.stage.trace or [],
            ends=describe_tasks(self) if self.stage.trace is not None else [],
        )


def _settings(stage: Stage) -> dict[str, Any]:
    """In a storm, some worlds cut decisions into tiny commits, some forget idle tasks quickly, and every fifth takes
    snapshots of tiny tasks."""
    if not stage.chaos:
        return {}
    return {
        "cache_bytes": 2000 if stage.plan.random() < 0.2 else 2**28,
        "max_commit_bytes": 200 if stage.plan.random() < 0.2 else 512 * 1024,
        "evict_after_sec": 3.0 if stage.plan.random() < 0.5 else 60.0,
        "snapshot_bytes": 300 if stage.seed % 5 == 0 else 256 * 1024,
    }


def _dated(start: Start) -> Start:
    """A start in the time of commits: seconds since the epoch."""
    ended_at = None if start.ended_at is None else EPOCH + start.ended_at
    return replace(start, started_at=EPOCH + start.started_at, ended_at=ended_at)
