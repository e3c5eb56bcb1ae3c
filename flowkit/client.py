"""The verbs of tasks for a process that coordinates nothing: a web server, a script, the command line."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from flowkit.backend import Backend, open_backend
from flowkit.clock import SystemClock, whole_clock
from flowkit.code_policies import read_code_policies
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.creation import Creation, targets_of
from flowkit.coordinator.flow_views import FlowPage, FlowView, VersionPage
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.handle import TaskHandle
from flowkit.coordinator.history import History
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.tasks import Page, Tasks
from flowkit.coordinator.views import Reason, TaskResult, TaskView
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.bounds import bounds_of
from flowkit.core.graph import Graph
from flowkit.core.graph_diff import GraphDiff
from flowkit.core.replan import RestartOptions, RestartPlan
from flowkit.core.signature import agreed
from flowkit.errors import ConfigError, FlowKitError, StoreUnavailable
from flowkit.monitor import traces_of
from flowkit.ports import Clock
from flowkit.safe import open_secrets
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.trace.log_reader import LogPage, LogReader
from flowkit.trace.traces import Traces
from flowkit.wire.logs import LogLine
from flowkit.wire.topics import Topics

if TYPE_CHECKING:
    from flowkit.secrets.secrets import Secrets

CHANGED_SEC = 0.05
UNANSWERED_SEC = 1.0


class Client:
    """Creates, reads and steers tasks, as `Coordinator` does, but decides about none and joins no group.

    `db` is what a `Coordinator` takes. On an embedded file, what is asked is written into the file, and whoever
    coordinates it acts on it, now or when it starts.
    """

    def __init__(self, *, db: Any = None, cfg: CoordinatorConfig | None = None, clock: Clock | None = None,
                 telemetry: Telemetry | None = None, backend: Backend | None = None) -> None:  # fmt: skip
        self.cfg = copy.deepcopy(cfg) if cfg is not None else CoordinatorConfig.load()
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.backend = backend if backend is not None else open_backend(db, self.cfg)
        partitions = 1 if self.backend.embedded else self.cfg.facts_partitions
        self.topics = Topics(self.cfg.topic_prefix, partitions)
        self._clock = whole_clock(clock) if clock is not None else SystemClock()
        self._graphs = Graphs(self.backend.store, self._clock)
        self._hub = Hub()
        self._supervisor = Supervisor("client", self.telemetry)
        self._api: Tasks | None = None
        self._logs = LogReader(self.backend.store, self.backend.logs, self._clock)
        self._secrets: Secrets | None = None
        self.code_policies = read_code_policies(self.cfg.code_policy)

    # ------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect. Raises `BusUnavailable` or `StoreUnavailable`, within 10 s, with the address and a hint."""
        if self._api is not None:
            raise ConfigError("this client has been started already")
        await self.backend.start()
        try:
            await self.backend.bus.ensure_topics(self.topics.specs())
        except BaseException:
            await self.backend.stop()
            raise
        policies = self.code_policies
        self._api = Tasks(
            store=self.backend.store, bus=self.backend.bus, clock=self._clock, topics=self.topics, graphs=self._graphs,
            flows=Flows(store=self.backend.store, graphs=self._graphs, clock=self._clock, policies=policies),
            history=History(self.backend.store, self._graphs, self.telemetry, bounds_of(self.cfg.limits)),
            hub=self._hub, supervisor=self._supervisor, telemetry=self.telemetry,
            cancel_grace_sec=self.cfg.cancel_grace_sec, roles=self.cfg.worker_types, policies=policies,
            signature_of=lambda role: agreed(self.backend.signatures_of(role)),
        )  # fmt: skip
        if self.backend.file is not None:
            self._supervisor.loop("changed", self._look_for_changes, every=CHANGED_SEC)

    async def stop(self) -> None:
        """Disconnect. Tasks go on: a client runs nothing."""
        api, self._api = self._api, None
        if api is not None:
            await self._supervisor.stop()
            await api.stop()
            await self.backend.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.stop()

    @property
    def api(self) -> Tasks:
        """The verbs as they are. Raises `FlowKitError` before `start()`."""
        if self._api is None:
            raise FlowKitError("the client is not running: await start(), or use `async with`", code="E_NOT_STARTED")
        return self._api

    @property
    def secrets(self) -> Secrets:
        """The secrets: set, list, delete, rotate. Needs the extra `secrets`, and a client that was started. Raises
        `ConfigError`, `MasterKeyError`."""
        if self._secrets is None:
            self._secrets = open_secrets(self.backend, self.cfg, self._clock, self.telemetry)
        return self._secrets

    async def _look_for_changes(self) -> None:
        if self.backend.file is not None and self.backend.file.changed():
            self._hub.something_changed()

    async def coordinated(self) -> bool | None:
        """Whether some process coordinates the file now; None on Kafka, where only the coordinators' group can tell."""
        file = self.backend.file
        if file is None:
            return None
        if self.backend.coordinated:
            return True
        # Nobody asks the lock who holds it; one only sees whether it is free.
        free = file.acquire_ownership()
        if free:
            file.release_ownership()
        return not free

    # ------------------------------------------------------------------------------------------ tasks

    async def create_task(self, *, graph: Any = None, flow: str | None = None, params: Mapping[str, Any] | None = None,
                          idempotency_key: str | None = None, priority: int = 0,
                          labels: Mapping[str, str] | None = None, timeout: float | None = None,
                          targets: Sequence[str] = (), deadline: Any = None,
                          traceparent: str | None = None) -> str:  # fmt: skip
        """Accept a task of a graph, or of a flow, and give its id; it survives any crash, and runs once somebody
        coordinates."""
        creation = Creation(
            graph, params, idempotency_key, priority, labels, timeout, targets_of(targets), flow, deadline, traceparent
        )
        return (await self.api.create([creation]))[0]

    async def create_tasks(self, creations: Sequence[Creation | Mapping[str, Any]]) -> list[str]:
        """Accept many tasks with few writes. Each is a `Creation`, or a dict of `create_task`'s arguments."""
        many = [one if isinstance(one, Creation) else Creation(**one) for one in creations]
        return await self.api.create(many)

    def task(self, task_id: str) -> TaskHandle:
        """The handle of a task. Asks nobody."""
        return TaskHandle(self.api, task_id)

    async def get_task(self, task_id: str) -> TaskView:
        """The task as its commits say. Raises `TaskNotFound`."""
        return await self.api.get(task_id)

    async def get_graph(self, view: TaskView) -> Graph:
        """The graph that a task runs."""
        return await self._graphs.get(view.graph)

    async def list_tasks(self, *, status: str | Sequence[str] | None = None, labels: Mapping[str, str] | None = None,
                         name: str | None = None, since: float | None = None, until: float | None = None,
                         flow: str | None = None, parent: str | None = "", limit: int = 100,
                         cursor: str | None = None) -> Page:  # fmt: skip
        """A page of heads, newest first; they may lag by a second. `flow` is `name`, `name@3` or `name@tag`; `parent`
        the id of the task whose children are wanted, empty for tasks that are nobody's, None for all. Raises
        `ValueError` for an unknown status, and for a `limit` that is not 1 to 1,000; `cursor` gives the next page."""
        return await self.api.list_heads(
            status=status, labels=labels, name=name, since=since, until=until, flow=flow, parent=parent, limit=limit,
            cursor=cursor,
        )  # fmt: skip

    async def wait_task(self, task_id: str, timeout: float | None = None) -> TaskResult:
        """How the task ended, however it ended. Raises `TaskNotFound`, `WaitTimeout`."""
        return await self.api.wait(task_id, timeout)

    async def cancel_task(self, task_id: str, *, node_id: str | None = None, reason: str = "user_request",
                          grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel a task, or one node of it; returns at once, False for an unknown task."""
        return await self.api.cancel(task_id, node_id=node_id, reason=reason, grace_sec=grace_sec)

    async def pause_task(self, task_id: str, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes; what runs goes on. True once it is applied, False where nobody has answered yet: the
        request is durable, and will be. Raises `RequestRefused`."""
        return await self._ask(task_id, self.api.pause(task_id, node_id=node_id, reason=reason))

    async def resume_task(self, task_id: str, *, node_id: str | None = None) -> bool:
        """Undo `pause_task`. Answers as it does."""
        return await self._ask(task_id, self.api.resume(task_id, node_id=node_id))

    async def signal_task(self, task_id: str, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Answers as `pause_task` does; raises `GraphError` for a
        payload that does not fit."""
        return await self._ask(task_id, self.api.signal(task_id, name, payload))

    async def restart_task(self, task_id: str, **options: Unpack[RestartOptions]) -> bool:
        """Run an ended task again: the whole, its failed part, a node (or an item) and all after it; with other params,
        other inputs, or an edited graph. Answers as `pause_task`."""
        return await self._ask(task_id, self.api.restart(task_id, **options))

    async def plan_restart(self, task_id: str, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart_task` with the same options would do: which nodes run again, are new, are kept."""
        return await self.api.plan_restart(task_id, **options)

    async def delete_task(self, task_id: str) -> bool:
        """Delete a task that has ended, and its children, for good; False for an unknown task. Raises `RequestRefused`
        while one of them has not ended."""
        return await self.api.delete(task_id)

    async def explain(self, task_id: str) -> list[Reason]:
        """Why each node that does not run does not run, as far as the task's own state tells."""
        return await self.api.explain(task_id)

    def watch(self, task_id: str, since: int = 0) -> AsyncIterator[TaskEvent]:
        """The task's transitions after commit `since`, then live, until its last."""
        return self.api.watch(task_id, since)

    @property
    def traces(self) -> Traces:
        """What happened to tasks, and where their time went."""
        history = History(self.backend.store, self._graphs, self.telemetry)
        return traces_of(history, self.backend, self._clock)

    def logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None, level: str | None = None,
             since: float | None = None, limit: int | None = None,
             follow: bool = False) -> AsyncIterator[LogLine]:  # fmt: skip
        """What the task's attempts have said, `limit` lines at most; with `follow`, live until it has ended. `node` is
        a node, or the node of items; `level` the least (`debug`, `info`, `warning`, `error`); `since` epoch seconds.
        Raises `TaskNotFound`."""
        return self._logs.lines(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, follow=follow
        )  # fmt: skip

    async def list_logs(self, task_id: str, *, node: str | None = None, attempt: int | None = None,
                        level: str | None = None, since: float | None = None, limit: int = 1000,
                        cursor: str | None = None) -> LogPage:  # fmt: skip
        """A page of what `logs` gives, behind `cursor`."""
        return await self._logs.page(
            task_id, node=node, attempt=attempt, level=level, since=since, limit=limit, cursor=cursor
        )

    # ------------------------------------------------------------------------------------------ flows

    async def put_flow(self, name: str, graph: Any, *, tags: Iterable[str] = (), note: str = "") -> int:
        """Store a graph as the newest version of a flow, and give its number; the graph of the newest version makes no
        other. `tags` are moved to it. Raises `GraphError`, `FlowNameError`, `StoreUnavailable` (ask again)."""
        return await self.api.flows.put(name, graph, tags=tags, note=note)

    async def get_flow(self, flow: str) -> FlowView:
        """The version that `name` (its `default`, else its newest), `name@3` or `name@tag` means. Raises
        `FlowNotFound`."""
        return await self.api.flows.get(flow)

    async def list_flows(self, *, limit: int = 100, cursor: str | None = None) -> FlowPage:
        """A page of flows, in order of their names."""
        return await self.api.flows.list(limit=limit, cursor=cursor)

    async def list_flow_versions(self, name: str, *, limit: int = 100, cursor: str | None = None) -> VersionPage:
        """A page of a flow's versions, newest first. Raises `FlowNotFound`."""
        return await self.api.flows.versions(name, limit=limit, cursor=cursor)

    async def tag_flow(self, name: str, version: int | str, tag: str) -> int:
        """Let a tag name this version from now on, whichever it named before; gives the version. Raises
        `FlowNotFound`, `FlowNameError`."""
        return await self.api.flows.tag(name, version, tag)

    async def untag_flow(self, name: str, tag: str) -> bool:
        """Take a tag off a flow; False where it had none. Raises `FlowNotFound`, `FlowNameError`."""
        return await self.api.flows.untag(name, tag)

    async def diff_flows(self, old: str, new: str) -> GraphDiff:
        """What differs between two versions, of one flow or of two. Raises `FlowNotFound`."""
        return await self.api.flows.diff(old, new)

    async def validate_graph(self, graph: Any, *, params: Mapping[str, Any] | None = None) -> None:
        """Raise `GraphError` for what `create_task` would refuse; nothing is run or stored. Without `params`, those are
        not looked at."""
        await self.api.validate(graph, params)

    # ------------------------------------------------------------------------------------------ how

    async def _ask(self, task_id: str, request: Coroutine[Any, Any, bool]) -> bool:
        """Make a request and hear the answer. Where nobody is there to give one, it is enough that it is written."""
        if await self.coordinated() is not False:
            return await request
        before = len(await self.backend.store.read_requests(task_id))
        try:
            async with asyncio.timeout(UNANSWERED_SEC):
                return await request
        except TimeoutError as error:
            if len(await self.backend.store.read_requests(task_id)) == before:
                raise StoreUnavailable("the request could not be written; ask again") from error
            return False
