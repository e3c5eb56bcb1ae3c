"""The coordinator as users embed it: the verbs of tasks, on whatever database they hand over."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from flowkit.adapters.timed import timed_bus, timed_store
from flowkit.backend import Backend, open_backend
from flowkit.clock import SystemClock, whole_clock
from flowkit.collector import EVERY_SEC, CycleCollection
from flowkit.config import CoordinatorConfig, own_settings
from flowkit.coordinator.adapters import CoordinatorAdapters
from flowkit.coordinator.creation import Creation, targets_of
from flowkit.coordinator.detector import resolve_detector
from flowkit.coordinator.flow_views import FlowPage, FlowView, VersionPage
from flowkit.coordinator.handle import TaskHandle
from flowkit.coordinator.readings import readings
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.coordinator.tasks import Page
from flowkit.coordinator.views import Reason, TaskResult, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.graph_diff import GraphDiff
from flowkit.core.replan import RestartOptions, RestartPlan
from flowkit.errors import ConfigError, FlowKitError
from flowkit.monitor import Monitor, traces_of
from flowkit.observing import observing_of
from flowkit.ports import Bus, Clock, SecretUse
from flowkit.safe import open_office, open_secrets
from flowkit.telemetry import Telemetry
from flowkit.trace.log_reader import LogPage
from flowkit.trace.traces import Traces
from flowkit.wire.logs import LogLine
from flowkit.wire.seals import COORDINATORS

if TYPE_CHECKING:
    from flowkit.secrets.secrets import Secrets
    from flowkit.wire.tickets import TicketOffice

CHANGED_SEC = 0.05
OWNERSHIP_SEC = 1.0
COMPANION_SEC = 5.0
"""How long a coordinator that stops lets the functions of its own finish."""


class Coordinator:
    """Decides about tasks, and lets its process create, read and steer them.

    `db` is a PyMongo `AsyncDatabase`, a Motor database, a `mongodb://` or `sqlite:///` URL, or None (embedded). Several
    coordinators on one Kafka and MongoDB share the tasks and take over from one another. On an embedded file one
    process coordinates; others may create and read, and one of them takes over when it ends.

    `adapters` are the functions that `coordinator_fn` nodes may call, by name, instead of the built-in ones; to add to
    those, `{**default_adapters(), "my.fn": my_fn}` of `flowkit.coordinator.adapters`. `sensitive_detector` says what is
    a secret where `block_sensitive` is asked for: an object with `is_sensitive(key_path, value)`, a predicate, a
    factory of either, or an import string. `worker_types` is `cfg.worker_types`. Raises `ConfigError`.
    """

    def __init__(self, *, db: Any = None, cfg: CoordinatorConfig | None = None, worker_types: list[str] | None = None,
                 clock: Clock | None = None, adapters: Mapping[str, Callable[..., Any]] | None = None,
                 sensitive_detector: Any = None, telemetry: Telemetry | None = None,
                 backend: Backend | None = None) -> None:  # fmt: skip
        self.cfg = own_settings(cfg, CoordinatorConfig)
        if worker_types is not None:
            self.cfg.worker_types = list(worker_types)
        self.db = db
        self.clock = clock if clock is not None else SystemClock()
        self._clock = whole_clock(self.clock)
        self.adapters = CoordinatorAdapters(adapters)
        self.is_sensitive = resolve_detector(sensitive_detector)
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self._backend = backend if backend is not None else open_backend(db, self.cfg)
        if self._backend.embedded:
            self.cfg.facts_partitions = 1
        self._runtime: CoordinatorRuntime | None = None
        self._coordinating = False
        self._collection = CycleCollection()
        self._companion: Any = None
        self._unmeasure: Callable[[], None] = lambda: None
        self._monitor = Monitor(backend=self._backend, cfg=self.cfg, clock=self._clock, telemetry=self.telemetry)
        self._secrets: Secrets | None = None
        self._office: TicketOffice | None = None

    # ------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect and begin. Raises `BusUnavailable` or `StoreUnavailable`, within 10 s, with the address and a
        hint."""
        if self._runtime is not None:
            raise ConfigError("this coordinator has been started already")
        if self._backend.pool not in ("", COORDINATORS):
            raise ConfigError(
                f"the first of this coordinator's message keys is of the pool {self._backend.pool!r}: a coordinator "
                f"signs with one of {COORDINATORS!r}, and holds those of all pools whose workers it gives work"
            )
        observing = observing_of(self.telemetry)
        await observing.begin(self.cfg, part="coordinator", embedded=self._backend.embedded)
        try:
            await self._backend.start()
        except BaseException:
            await observing.end()
            raise
        try:
            self._runtime = CoordinatorRuntime(
                store=timed_store(self._backend.store, self.telemetry),
                bus=timed_bus(self._backend.bus, self.telemetry),
                clock=self._clock,
                detector=self.is_sensitive,
                cfg=self.cfg,
                telemetry=self.telemetry,
                at_hand=self._backend.signatures_of,
                functions=self.adapters.names,
            )
            self._runtime.carrier.ticket = self._ticket
            await self._begin(self._runtime)
            if self.cfg.tune_gc and self._collection.begin():
                self._runtime.supervisor.loop("garbage", self._collection.step, every=EVERY_SEC)
        except BaseException:
            self._runtime = None
            await self._backend.stop()
            await observing.end()
            raise
        if own := self.adapters.own:
            await self._start_companion(own)

    async def _begin(self, runtime: CoordinatorRuntime) -> None:
        file = self._backend.file
        if file is None:
            await self._coordinate(runtime)
            self._coordinating = True
            return
        self._backend.coordinated = True
        await self._backend.bus.ensure_topics(runtime.topics.specs())
        await self._try_to_own()
        runtime.supervisor.loop("changed", self._look_for_changes, every=CHANGED_SEC)
        runtime.supervisor.loop("ownership", self._try_to_own, every=OWNERSHIP_SEC)

    async def _start_companion(self, own: Mapping[str, Callable[..., Any]]) -> None:
        """The user's own functions run like handlers: nothing of theirs may hold up or spoil a decision."""
        from flowkit.companion import companion

        worker = companion(own, backend=self._backend, cfg=self.cfg, clock=self._clock, telemetry=self.telemetry)
        try:
            await worker.start()
        except BaseException:
            await self.stop()
            raise
        self._companion = worker

    async def _try_to_own(self) -> None:
        file, runtime = self._backend.file, self._runtime
        if file is not None and runtime is not None and not self._coordinating and file.acquire_ownership():
            self._coordinating = True
            await self._coordinate(runtime)

    async def _coordinate(self, runtime: CoordinatorRuntime) -> None:
        runtime.engine.on_rest, runtime.engine.on_attempts = self._monitor.note, self._monitor.see
        await runtime.start()
        self._unmeasure = self.telemetry.measure(lambda: readings(runtime))
        try:
            await self._monitor.start(runtime.history, lambda: runtime.engine.owned)
        except BaseException:
            self._unmeasure()
            await runtime.stop()
            raise

    async def _look_for_changes(self) -> None:
        """Another process wrote to the file: new work for the owner, news for a reader."""
        file, runtime = self._backend.file, self._runtime
        if file is None or runtime is None or not file.changed():
            return
        if self._coordinating:
            await runtime.sweeper.step()
        else:
            runtime.hub.something_changed()

    async def stop(self) -> None:
        """Stop coordinating. Running attempts go on; another coordinator, or the next start, takes over."""
        runtime, self._runtime = self._runtime, None
        if runtime is None:
            return
        self._collection.end()
        try:
            if self._companion is not None:
                worker, self._companion = self._companion, None
                await worker.stop(COMPANION_SEC)
            self._unmeasure()
            await runtime.stop()
            await self._monitor.stop()
            if self._backend.file is not None:
                self._backend.file.release_ownership()
        finally:
            self._coordinating = self._backend.coordinated = False
            try:
                await self._backend.stop()
            finally:
                await observing_of(self.telemetry).end()

    async def restart(self) -> None:
        """Stop and start again."""
        await self.stop()
        await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.stop()

    async def run_forever(self) -> None:
        """Coordinate until SIGTERM or SIGINT."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        try:
            async with self:
                await asked.wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    @property
    def bus(self) -> Bus:
        """What carries its messages."""
        return self._backend.bus

    @property
    def secrets(self) -> Secrets:
        """The secrets: set, list, delete, rotate. Needs the extra `secrets`, and a coordinator that was started. Raises
        `ConfigError`, `MasterKeyError`."""
        if self._secrets is None:
            self._secrets = open_secrets(self._backend, self.cfg, self._clock, self.telemetry)
        return self._secrets

    def _ticket(self, use: SecretUse, names: Sequence[str]) -> str:
        """Raises `ConfigError`, `MasterKeyError`."""
        if self._office is None:
            self._office = open_office(self._backend, self.cfg, self._clock)
        return self._office.issue(use, names)

    @property
    def coordinating(self) -> bool:
        """Whether it decides about tasks; on a file that another process coordinates, it stands by."""
        return self._coordinating

    @property
    def runtime(self) -> CoordinatorRuntime:
        """The running parts. Raises `FlowKitError` before `start()`."""
        if self._runtime is None:
            raise FlowKitError(
                "the coordinator is not running: await start(), or use `async with`", code="E_NOT_STARTED"
            )
        return self._runtime

    # ------------------------------------------------------------------------------------------ tasks

    async def create_task(self, *, graph: Any = None, flow: str | None = None, params: Mapping[str, Any] | None = None,
                          idempotency_key: str | None = None, priority: int = 0,
                          labels: Mapping[str, str] | None = None, timeout: float | None = None,
                          targets: Sequence[str] = (), deadline: Any = None,
                          traceparent: str | None = None) -> str:  # fmt: skip
        """Accept a task of a graph, or of a flow (`name`, `name@3` or `name@tag`), and give its id; once this returns,
        the task survives any crash.

        The same `idempotency_key` gives the same task; `timeout` (seconds) bounds the whole task, and at `deadline` (a
        time with its zone such as "2027-01-31T18:00:00Z", or epoch seconds) it must have ended; only `targets` and what
        leads to them run. `traceparent` (W3C Trace Context) is the span that the task is a child of; by default the
        caller's own OpenTelemetry span, if there is one; an empty one: a trace of its own. Raises `GraphError` with
        every problem, `FlowNotFound`, `IdempotencyConflict`, `StoreUnavailable`.
        """
        graph = self.adapters.resolve(graph)
        creation = Creation(
            graph, params, idempotency_key, priority, labels, timeout, targets_of(targets), flow, deadline, traceparent
        )
        return (await self.runtime.api.create([creation]))[0]

    async def create_tasks(self, creations: Sequence[Creation | Mapping[str, Any]]) -> list[str]:
        """Accept many tasks with few writes. Each is a `Creation`, or a dict of `create_task`'s arguments."""
        many = [one if isinstance(one, Creation) else Creation(**one) for one in creations]
        graphs = {id(one.graph): one.graph for one in many}
        resolved = {key: self.adapters.resolve(graph) for key, graph in graphs.items()}
        changed = (resolved[id(one.graph)] for one in many)
        asked = [
            one if graph is one.graph else replace(one, graph=graph) for one, graph in zip(many, changed, strict=True)
        ]
        return await self.runtime.api.create(asked)

    def task(self, task_id: str) -> TaskHandle:
        """The handle of a task. Asks nobody."""
        return TaskHandle(self.runtime.api, task_id)

    async def get_task(self, task_id: str) -> TaskView:
        """The task as its commits say. Raises `TaskNotFound`."""
        return await self.runtime.api.get(task_id)

    async def list_tasks(self, *, status: str | Sequence[str] | None = None, labels: Mapping[str, str] | None = None,
                         name: str | None = None, since: float | None = None, until: float | None = None,
                         flow: str | None = None, parent: str | None = "", limit: int = 100,
                         cursor: str | None = None) -> Page:  # fmt: skip
        """A page of heads, newest first; they may lag by a second. `flow` is `name`, `name@3` or `name@tag`; `parent`
        the id of the task whose children are wanted, empty for tasks that are nobody's, None for all. Raises
        `ValueError` for an unknown status, and for a `limit` that is not 1 to 1,000; `cursor` gives the next page."""
        return await self.runtime.api.list_heads(
            status=status, labels=labels, name=name, since=since, until=until, flow=flow, parent=parent, limit=limit,
            cursor=cursor,
        )  # fmt: skip

    async def wait_task(self, task_id: str, timeout: float | None = None) -> TaskResult:
        """How the task ended, however it ended. Raises `TaskNotFound`, `WaitTimeout`."""
        return await self.runtime.api.wait(task_id, timeout)

    async def cancel_task(self, task_id: str, *, node_id: str | None = None, reason: str = "user_request",
                          grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel a task, or one node of it; returns at once, False for an unknown task."""
        return await self.runtime.api.cancel(task_id, node_id=node_id, reason=reason, grace_sec=grace_sec)

    async def cascade_cancel(self, task_id: str, *, reason: str = "user_request") -> bool:
        """The name that older documents give `cancel_task`."""
        return await self.cancel_task(task_id, reason=reason)

    async def pause_task(self, task_id: str, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes, or do not start this one; what runs goes on. Raises `RequestRefused`."""
        return await self.runtime.api.pause(task_id, node_id=node_id, reason=reason)

    async def resume_task(self, task_id: str, *, node_id: str | None = None) -> bool:
        """Undo `pause_task`. Raises `RequestRefused`."""
        return await self.runtime.api.resume(task_id, node_id=node_id)

    async def signal_task(self, task_id: str, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Raises `RequestRefused` where none can take it any
        more, `GraphError` for a payload that does not fit."""
        return await self.runtime.api.signal(task_id, name, payload)

    async def restart_task(self, task_id: str, **options: Unpack[RestartOptions]) -> bool:
        """Run an ended task again: the whole, its failed part, a node (or an item) and all after it; with other params,
        other inputs, or an edited graph. Raises `RequestRefused`, `GraphError`."""
        if "graph" in options:
            options["graph"] = self.adapters.resolve(options["graph"])
        return await self.runtime.api.restart(task_id, **options)

    async def plan_restart(self, task_id: str, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart_task` with the same options would do: which nodes run again, are new, are kept."""
        if "graph" in options:
            options["graph"] = self.adapters.resolve(options["graph"])
        return await self.runtime.api.plan_restart(task_id, **options)

    async def delete_task(self, task_id: str) -> bool:
        """Delete a task that has ended, and its children, for good; False for an unknown task. Raises `RequestRefused`
        while one of them has not ended."""
        return await self.runtime.api.delete(task_id)

    async def explain(self, task_id: str) -> list[Reason]:
        """Why each node that does not run does not run."""
        return await self.runtime.api.explain(task_id)

    def watch(self, task_id: str, since: int = 0) -> AsyncIterator[TaskEvent]:
        """The task's transitions after commit `since`, then live, until its last."""
        return self.runtime.api.watch(task_id, since)

    @property
    def traces(self) -> Traces:
        """What happened to tasks, and where their time went."""
        return traces_of(self.runtime.history, self._backend, self._clock)

    def logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None, level: str | None = None,
             since: float | None = None, limit: int | None = None,
             follow: bool = False) -> AsyncIterator[LogLine]:  # fmt: skip
        """What the task's attempts have said, `limit` lines at most; with `follow`, live until it has ended. `node` is
        a node, or the node of items; `level` the least (`debug`, `info`, `warning`, `error`); `since` epoch seconds.
        Raises `TaskNotFound`."""
        return self._monitor.logs.lines(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, follow=follow
        )  # fmt: skip

    async def list_logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None,
                        level: str | None = None, since: float | None = None, limit: int = 1000,
                        cursor: str | None = None) -> LogPage:  # fmt: skip
        """A page of what `logs` gives, behind `cursor`."""
        return await self._monitor.logs.page(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, cursor=cursor
        )

    # ------------------------------------------------------------------------------------------ flows

    async def put_flow(self, name: str, graph: Any, *, tags: Iterable[str] = (), note: str = "") -> int:
        """Store a graph as the newest version of a flow, and give its number; the graph of the newest version makes no
        other. `tags` are moved to it. Raises `GraphError`, `FlowNameError`, `StoreUnavailable` (ask again)."""
        return await self.runtime.api.flows.put(name, self.adapters.resolve(graph), tags=tags, note=note)

    async def get_flow(self, flow: str) -> FlowView:
        """The version that `name` (its `default`, else its newest), `name@3` or `name@tag` means. Raises
        `FlowNotFound`."""
        return await self.runtime.api.flows.get(flow)

    async def list_flows(self, *, limit: int = 100, cursor: str | None = None) -> FlowPage:
        """A page of flows, in order of their names."""
        return await self.runtime.api.flows.list(limit=limit, cursor=cursor)

    async def list_flow_versions(self, name: str, *, limit: int = 100, cursor: str | None = None) -> VersionPage:
        """A page of a flow's versions, newest first. Raises `FlowNotFound`."""
        return await self.runtime.api.flows.versions(name, limit=limit, cursor=cursor)

    async def tag_flow(self, name: str, version: int | str, tag: str) -> int:
        """Let a tag name this version from now on, whichever it named before; gives the version. Raises
        `FlowNotFound`, `FlowNameError`."""
        return await self.runtime.api.flows.tag(name, version, tag)

    async def untag_flow(self, name: str, tag: str) -> bool:
        """Take a tag off a flow; False where it had none. Raises `FlowNotFound`, `FlowNameError`."""
        return await self.runtime.api.flows.untag(name, tag)

    async def diff_flows(self, old: str, new: str) -> GraphDiff:
        """What differs between two versions, of one flow or of two. Raises `FlowNotFound`."""
        return await self.runtime.api.flows.diff(old, new)

    async def validate_graph(self, graph: Any, *, params: Mapping[str, Any] | None = None) -> None:
        """Raise `GraphError` for what `create_task` would refuse; nothing is run or stored. Without `params`, those are
        not looked at."""
        await self.runtime.api.validate(self.adapters.resolve(graph), params)
