"""What users ask of tasks: create, read, wait, steer. Works in a coordinator, and in a process that only asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from flowkit.coordinator.acceptance import Acceptance
from flowkit.coordinator.admission import Admission, SignatureOf, checked_params, nobody_known
from flowkit.coordinator.artifacts import materialise
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.carrier import event_record
from flowkit.coordinator.child_plans import ChildPlans
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.delete_task import DeleteTask
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.explain import explain, explain_streams, progress_of
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.glances import Glances
from flowkit.coordinator.graphs import Graphs, read_raw
from flowkit.coordinator.history import History
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.lookups import Lookups
from flowkit.coordinator.requests import RequestReader
from flowkit.coordinator.results import Results
from flowkit.coordinator.states import States
from flowkit.coordinator.steering import Steering
from flowkit.coordinator.streams import stream_views
from flowkit.coordinator.tail import EventTail
from flowkit.coordinator.views import Reason, TaskResult, TaskView, task_view
from flowkit.coordinator.watch import TaskEvent, watch
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies
from flowkit.core.flow_refs import read_flow_ref
from flowkit.core.model import TaskStatus
from flowkit.core.replan import RestartOptions, RestartPlan
from flowkit.errors import did_you_mean
from flowkit.paging import checked_limit
from flowkit.ports import DELETED, Bus, Clock, Commit, Head, HeadFilter, Record, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.topics import Topics

TELL_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Page:
    """Heads, newest first; `cursor` gives the next page, None at the end."""

    heads: Sequence[Head]
    cursor: str | None


class Tasks:
    """The API of one tenant's principal. `engine` is None in a process that coordinates nothing."""

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        topics: Topics,
        graphs: Graphs,
        flows: Flows,
        history: History,
        hub: Hub,
        supervisor: Supervisor,
        telemetry: Telemetry,
        engine: Engine | None = None,
        requests: RequestReader | None = None,
        signature_of: SignatureOf = nobody_known,
        cancel_grace_sec: float = 30.0,
        roles: Collection[str] = (),
        functions: Collection[str] | None = None,
        policies: CodePolicies = NOTHING_SAID,
        tenant: str = "default",
        principal: str = "local",
    ) -> None:
        self.store = store
        self.principal = principal
        self.telemetry = telemetry
        self.hub = hub
        self.flows = flows
        self._bus = bus
        self._topics = topics
        self._history = history
        self._engine = engine
        self._supervisor = supervisor
        self._admission = Admission(signature_of, roles, functions, policies)
        self._states = States(Lookups(history, supervisor), tenant, engine)
        self._tail = EventTail(bus, topics, hub, supervisor, telemetry)
        deletion = Deletion(store, clock, principal, tell=self._tell_deleted)
        self._delete = DeleteTask(store, clock, history, deletion)
        self._acceptance = Acceptance(
            store=store, bus=bus, clock=clock, topics=topics, graphs=graphs, flows=flows, admission=self._admission,
            deletion=deletion, supervisor=supervisor, tenant=tenant, principal=principal, engine=engine,
        )  # fmt: skip
        self._results = Results(
            store=store, clock=clock, states=self._states, glances=Glances(store, supervisor), explain=self.explain,
            engine=engine,
        )  # fmt: skip
        asking = Asking(store=store, bus=bus, topics=topics, supervisor=supervisor, engine=engine, requests=requests)
        self._steering = Steering(
            store=store, clock=clock, graphs=graphs, admission=self._admission, states=self._states, hub=hub,
            asking=asking, child_plans=ChildPlans(store, history), listen=self._listen_everywhere,
            cancel_grace_sec=cancel_grace_sec, tenant=tenant, principal=principal,
        )  # fmt: skip

    @property
    def tenant(self) -> str:
        return self._states.tenant

    @tenant.setter
    def tenant(self, tenant: str) -> None:
        self._states.tenant = self._acceptance.tenant = self._steering.tenant = tenant

    async def stop(self) -> None:
        await self._tail.stop()

    # ------------------------------------------------------------------------------------------ creating
    async def create(self, creations: Sequence[Creation]) -> list[str]:
        """Accept tasks; what this returns survives any crash. Raises `GraphError`, `FlowNotFound`,
        `IdempotencyConflict`, `StoreUnavailable` (then the tasks may exist all the same: use an idempotency key to ask
        again)."""
        return await self._acceptance.create(creations)

    async def validate(self, graph: Any, params: Any = None) -> None:
        """Raise `GraphError` for what `create` would refuse, as far as this process knows what the roles take. Nothing
        is run or stored. Without `params`, those are not looked at."""
        read = await read_raw(graph)
        known = None if params is None else checked_params(params)[0]
        await self._admission.check(read.ref, read.graph, known, ())
        await self._admission.check_code(read.ref, read.graph, self.tenant, "")

    # ------------------------------------------------------------------------------------------ reading

    async def get(self, task_id: str) -> TaskView:
        """The task as its commits say. Raises `TaskNotFound`, `StoreUnavailable`, `Corrupt`."""
        head, task, seq = await self._states.state(task_id)
        view = await task_view(head, task, seq, await self._results.output(task))
        nodes = {
            name: replace(node, output=await materialise(self.store, node.output)) for name, node in view.nodes.items()
        }
        if self._engine is not None:
            for name in task.leased:
                nodes[name] = replace(nodes[name], progress=progress_of(self._engine, task, name))
        streams = tuple(await stream_views(self.store, task))
        return replace(view, output=await materialise(self.store, view.output), nodes=nodes, streams=streams)

    async def list_heads(self, *, status: str | Sequence[str] | None = None, labels: Mapping[str, str] | None = None,
                   name: str | None = None, since: float | None = None, until: float | None = None,
                   flow: str | None = None, parent: str | None = "", limit: int = 100,
                   cursor: str | None = None) -> Page:  # fmt: skip
        """Heads, newest first; they may lag by a second. Times are epoch seconds of creation. `flow` is `name`,
        `name@3` or `name@tag`; `parent` the id of the task whose children are wanted, empty for tasks that are
        nobody's, None for all."""
        statuses = (status,) if isinstance(status, str) else tuple(status or ())
        for one in statuses:
            if one not in set(TaskStatus):
                raise ValueError(f"no task status {one!r}{did_you_mean(one, list(TaskStatus))}")
        if flow and read_flow_ref(flow).tag:
            flow = str(await self.flows.resolve(self.tenant, flow))
        where = HeadFilter(self.tenant, statuses, dict(labels or {}), name, since, until, flow, parent)
        limit = checked_limit(limit)
        heads = await self.store.list_heads(where, limit=limit + 1, after=_read_cursor(cursor))
        page = heads[:limit]
        more = len(heads) > limit
        return Page(page, f"{page[-1].created_at!r}/{page[-1].task_id}" if more else None)

    async def explain(self, task_id: str) -> list[Reason]:
        """Why each node that does not run does not run, and how far the streams are."""
        head, task, _ = await self._states.state(task_id)
        reasons = await explain(head, task, self._engine)
        return reasons + explain_streams(task, await stream_views(self.store, task))

    async def watch(self, task_id: str, since: int = 0) -> AsyncIterator[TaskEvent]:
        """The task's transitions after commit `since`, then live, until its last. Raises `TaskNotFound`."""
        await self._listen_everywhere()
        async for event in watch(self.hub, self._history, task_id, self.tenant, since):
            yield event

    async def wait(self, task_id: str, timeout: float | None = None, *, on_wait: Any = None) -> TaskResult:
        """Wait until the task has ended, however it ended. Raises `TaskNotFound`, `WaitTimeout` after `timeout`
        seconds. `on_wait` is called with a sentence when something that nobody serves holds the task up."""
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            raise TypeError(f"timeout is a number of seconds, or None to wait for ever, not {timeout!r}")
        listener = self.hub.listen(task_id, ends_only=True)
        try:
            if self._engine is None or task_id not in self._engine.cells:
                await self._tail.open()
            return await self._results.wait(task_id, listener, timeout, on_wait)
        finally:
            listener.close()

    async def _listen_everywhere(self, task_id: str | None = None) -> None:
        """Hear of tasks that other coordinators own, from before the next read on."""
        mine = self._engine is not None and task_id is not None and task_id in self._engine.cells
        if not mine:
            await self._tail.open()

    # ------------------------------------------------------------------------------------------ steering

    async def cancel(self, task_id: str, *, node_id: str | None = None, reason: str = "user_request",
                     grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel a task, or one node of it. Returns once the request is durable; False for an unknown task."""
        return await self._steering.cancel(task_id, node_id=node_id, reason=reason, grace_sec=grace_sec)

    async def pause(self, task_id: str, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes of this task, or do not start this one; what runs goes on. True once it is applied; False
        where no coordinator answered in time: the request is durable, and will be. Raises `RequestRefused`."""
        return await self._steering.pause(task_id, node_id=node_id, reason=reason)

    async def resume(self, task_id: str, *, node_id: str | None = None) -> bool:
        """Undo `pause`. Answers as it does."""
        return await self._steering.resume(task_id, node_id=node_id)

    async def signal(self, task_id: str, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Answers as `pause` does. Raises `RequestRefused` where
        no node can take it any more, `GraphError` for a payload that is not JSON or does not fit the node's schema."""
        return await self._steering.signal(task_id, name, payload)

    async def restart(self, task_id: str, **options: Unpack[RestartOptions]) -> bool:
        """Run an ended task again. Answers as `pause` does. Raises `GraphError` for what is wrong with the options."""
        return await self._steering.restart(task_id, **options)

    async def plan_restart(self, task_id: str, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart` with the same options would do; nothing is done."""
        return await self._steering.plan_restart(task_id, **options)

    async def delete(self, task_id: str) -> bool:
        """Delete a task that has ended, and its children. False for an unknown task. Raises `RequestRefused` while one
        of them has not ended, `StoreUnavailable` (then it may be deleted all the same: ask again)."""
        deleted = await self._delete(task_id, self.tenant)
        if self._engine is not None:
            for one in deleted:
                self._engine.forget_task(one)
        return bool(deleted)

    async def _tell_deleted(self, deleted: Sequence[tuple[Head, Commit]]) -> None:
        """Publish the events of tombstones, if the bus takes them soon: nothing depends on them."""
        records = [event_record(self._topics, commit, head.tenant, DELETED) for head, commit in deleted]
        if records:
            await asyncio.wait([self._supervisor.spawn(self._publish_news(records), "tell-deleted")], timeout=TELL_SEC)
        for head, commit in deleted:
            self.hub.tell(commit, head.tenant, DELETED)

    async def _publish_news(self, records: Sequence[Record]) -> None:
        unheard = (await self._bus.publish(records)).count(False)
        if unheard:
            self.telemetry.count("deletions_untold", unheard)


def _read_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    at, _, task_id = cursor.partition("/")
    try:
        return float(at), task_id
    except ValueError:
        raise ValueError(f"{cursor!r} is not a cursor that list_tasks gave") from None
