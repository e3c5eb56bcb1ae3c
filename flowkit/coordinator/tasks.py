"""What users ask of tasks: create, read, wait, steer. Works in a coordinator, and in a process that only asks."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from flowkit.coordinator.admission import (
    Admission,
    Finding,
    SignatureOf,
    check_options,
    checked_grace,
    checked_labels,
    checked_moment,
    checked_params,
    checked_payload,
    checked_traceparent,
    nobody_known,
    plain_reason,
)
from flowkit.coordinator.artifacts import materialise, output_of_ended
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.carrier import event_record
from flowkit.coordinator.child_plans import ChildPlans
from flowkit.coordinator.choices import Choices, Chosen
from flowkit.coordinator.delete_task import DeleteTask
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.explain import explain, explain_streams, progress_of, unserved
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.glances import Glances
from flowkit.coordinator.graphs import Graphs, read_raw
from flowkit.coordinator.history import History
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.ids import id_of_key, new_id
from flowkit.coordinator.lives import Lives
from flowkit.coordinator.lookups import Lookups
from flowkit.coordinator.requests import RequestReader
from flowkit.coordinator.schemas import check_signal
from flowkit.coordinator.streams import stream_views
from flowkit.coordinator.tail import EventTail
from flowkit.coordinator.views import Reason, TaskResult, TaskView, task_result, task_view
from flowkit.coordinator.watch import TaskEvent, watch
from flowkit.core import deadlines
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies
from flowkit.core.flow_refs import read_flow_ref
from flowkit.core.graph import Graph
from flowkit.core.model import Task, TaskStatus
from flowkit.core.payload import holds_artifacts
from flowkit.core.problems import Problems
from flowkit.core.replan import RestartOptions, RestartPlan, in_time, plan_restart
from flowkit.errors import (
    Corrupt,
    ExprError,
    GraphError,
    IdempotencyConflict,
    InputError,
    Problem,
    RequestRefused,
    StoreUnavailable,
    TaskNotFound,
    WaitTimeout,
    did_you_mean,
)
from flowkit.ports import DELETED, Bus, Clock, Commit, Head, HeadFilter, Outcome, Record, Request, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import dumps
from flowkit.wire.messages import Knock, encode_facts_batch
from flowkit.wire.topics import Topics, partition_of

REREAD_SEC = 15.0
ANSWER_SEC = 10.0
INSERT_TRIES = 8
INSERT_AT_ONCE = 250
"""Of many tasks that are created together, the first begin while the others are being inserted."""
TELL_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Creation:
    """One task to be created, of a graph or of a flow (`name`, `name@3` or `name@tag`). `idempotency_key`: the same key
    of one tenant gives the same task; with anything else changed it is refused, though a flow's tag may have moved.
    `timeout` is seconds; `deadline` the moment by which the task must have ended: a time with its zone, or epoch
    seconds. `targets` run, and what leads to them; the rest is skipped. `traceparent` (W3C Trace Context) is the span
    that the task is a child of; None: the caller's own, where it has one."""

    graph: Any = None
    params: Any = None
    idempotency_key: str | None = None
    priority: int = 0
    labels: Mapping[str, str] | None = None
    timeout: float | None = None
    targets: Sequence[str] = ()
    flow: str | None = None
    deadline: Any = None
    traceparent: str | None = None


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
        self.tenant = tenant
        self.principal = principal
        self.telemetry = telemetry
        self.hub = hub
        self.flows = flows
        self._bus = bus
        self._clock = clock
        self._topics = topics
        self._graphs = graphs
        self._history = history
        self._engine = engine
        self._supervisor = supervisor
        self._admission = Admission(signature_of, roles, functions, policies)
        self._cancel_grace_sec = cancel_grace_sec
        self._lookups = Lookups(history, supervisor)
        self._lives = Lives(store, clock)
        self._deletion = Deletion(store, clock, principal, tell=self._tell_deleted)
        self._delete = DeleteTask(store, clock, history, self._deletion)
        self._asking = Asking(
            store=store, bus=bus, topics=topics, supervisor=supervisor, engine=engine, requests=requests
        )
        self._glances = Glances(store, supervisor)
        self._tail = EventTail(bus, topics, hub, supervisor, telemetry)

    async def stop(self) -> None:
        await self._tail.stop()

    # ------------------------------------------------------------------------------------------ creating

    async def create(self, creations: Sequence[Creation]) -> list[str]:
        """Accept tasks; what this returns survives any crash. Raises `GraphError`, `FlowNotFound`,
        `IdempotencyConflict`, `StoreUnavailable` (then the tasks may exist all the same: use an idempotency key to ask
        again)."""
        choices = Choices(self._graphs, self.flows)
        findings: dict[str, Finding] = {}
        heads: list[Head] = []
        graphs: list[Graph] = []
        for creation in creations:
            chosen = choices.known(creation.graph, creation.flow)
            if chosen is None:
                chosen = await choices.of(creation.graph, creation.flow)
                findings[chosen.ref] = await self._admission.finding(chosen.ref, chosen.graph)
                await self._admission.check_code(chosen.ref, chosen.graph, self.tenant, chosen.flow)
            graph = chosen.graph
            params, text = checked_params(creation.params)
            self._admission.check_with(findings[chosen.ref], graph, params, creation.targets)
            head = self._head(creation, chosen, text)
            if creation.deadline is not None or graph.deadline is not None or graph.deadlines:
                await self._check_deadlines(creation, graph, params, head)
            heads.append(head)
            graphs.append(graph)
        ids: list[str] = []
        for start in range(0, len(heads), INSERT_AT_ONCE):
            ids += await self._accept(heads[start : start + INSERT_AT_ONCE], graphs[start : start + INSERT_AT_ONCE])
        return ids

    async def _check_deadlines(self, creation: Creation, graph: Graph, params: dict[str, Any], head: Head) -> None:
        """Raise `GraphError` for deadlines that have passed, unless the task was accepted before they did."""
        problems = Problems()
        if creation.deadline is not None:
            deadlines.check_given(creation.deadline, head.created_at, problems)
        deadlines.check(graph, params, head.created_at, problems)
        if problems and not (creation.idempotency_key and await self.store.read_heads([head.task_id])):
            problems.raise_any()

    async def validate(self, graph: Any, params: Any = None) -> None:
        """Raise `GraphError` for what `create` would refuse, as far as this process knows what the roles take. Nothing
        is run or stored. Without `params`, those are not looked at."""
        read = await read_raw(graph)
        known = None if params is None else checked_params(params)[0]
        await self._admission.check(read.ref, read.graph, known, ())
        await self._admission.check_code(read.ref, read.graph, self.tenant, "")

    def _head(self, creation: Creation, chosen: Chosen, params: str) -> Head:
        labels = checked_labels(creation.labels)
        check_options(creation.priority, creation.timeout)
        deadline = None if creation.deadline is None else checked_moment(creation.deadline)
        now, fingerprint = self._clock.wall(), ""
        if creation.idempotency_key is None:
            task_id = new_id(now)
        else:
            task_id = id_of_key(self.tenant, creation.idempotency_key)
            # Of a flow, what was asked for and not what it meant: who asks again after a tag has moved means this task.
            what = chosen.ref if creation.flow is None else {"flow": creation.flow}
            asked = [what, params, creation.priority, sorted(labels.items()), creation.timeout, creation.targets]
            asked += [] if deadline is None else [deadline]
            fingerprint = hashlib.sha256(dumps(asked)).hexdigest()
        return Head(
            task_id=task_id,
            partition=partition_of(task_id, self._topics.partitions),
            graph_ref=chosen.ref,
            params=params,
            tenant=self.tenant,
            principal=self.principal,
            name=chosen.graph.name,
            labels=labels,
            priority=creation.priority,
            targets=tuple(creation.targets),
            timeout_sec=creation.timeout,
            fingerprint=fingerprint,
            created_at=now,
            deadline=deadline,
            flow=chosen.flow,
            next_wake=now,
            updated_at=now,
            traceparent=checked_traceparent(creation.traceparent),
        )

    async def _accept(self, heads: list[Head], graphs: Sequence[Graph]) -> list[str]:
        """Insert the heads; the ids of their tasks, which are others where a key begins anew."""
        first_ids = [head.task_id for head in heads]
        todo = list(range(len(heads)))
        fresh: list[int] = []
        for attempt in range(INSERT_TRIES):
            outcomes = await self.store.insert_heads([heads[i] for i in todo])
            unclear = [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.UNKNOWN]
            fresh += [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.OK]
            doubles = [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.DUPLICATE]
            if doubles:
                unclear += await self._confirm(heads, first_ids, doubles)
            todo = unclear
            if not todo:
                break
            await asyncio.sleep(min(1.0, 0.1 * 2**attempt))
        self._ring([(heads[i], graphs[i]) for i in fresh])
        if todo:
            raise StoreUnavailable(
                f"{len(todo)} of {len(heads)} tasks could not be confirmed; ask again with an idempotency key"
            )
        return [head.task_id for head in heads]

    async def _confirm(self, heads: list[Head], first_ids: Sequence[str], places: Sequence[int]) -> list[int]:
        """A duplicate is one's own earlier try, or the same key used before: only a majority read of the same body is
        a yes. Gives the places of those that are to be inserted again; where the key's task was deleted, as another."""
        asked = [heads[place].task_id for place in places]
        stored = {head.task_id: head for head in await self.store.read_heads(asked)}
        unseen = []
        for place in places:
            head = heads[place]
            found = stored.get(head.task_id)
            if found is None:
                unseen.append(place)
            elif found.status != DELETED and await self._deletion.was_begun(found):
                await self._deletion.finish(found)
                unseen.append(place)
            elif found.status == DELETED:
                task_id = await self._lives.id_now(first_ids[place])
                heads[place] = replace(head, task_id=task_id, partition=partition_of(task_id, self._topics.partitions))
                unseen.append(place)
            elif found.fingerprint != head.fingerprint or found.tenant != head.tenant:
                raise IdempotencyConflict(
                    f"task {head.task_id} was created with this idempotency key before, with another graph, "
                    "other params or other options: use a new key, or ask for exactly the same"
                )
        return unseen

    def _ring(self, accepted: Sequence[tuple[Head, Graph]]) -> None:
        """Tell the owners. Where the owner is this process, nothing needs to travel."""
        away: dict[int, list[Head]] = {}
        for head, graph in accepted:
            if self._engine is not None and head.partition in self._engine.owned:
                self._engine.adopt(head, graph)
            else:
                away.setdefault(head.partition, []).append(head)
        if self._engine is not None:
            self._engine.pump_dirty()
        records = [
            self._knock(partition, [Knock(h.task_id, h.tenant, "new") for h in heads[start : start + 500]])
            for partition, heads in away.items()
            for start in range(0, len(heads), 500)
        ]
        if records:
            self._supervisor.spawn(self._publish(records), "knock")

    def _knock(self, partition: int, items: Sequence[Knock]) -> Record:
        value = encode_facts_batch(self.principal, "", -1, items)
        return Record(self._topics.facts, partition, value, items[0].task_id.encode())

    async def _publish(self, records: Sequence[Record]) -> None:
        await self._bus.publish(records)  # a lost doorbell is the sweeper's business

    # ------------------------------------------------------------------------------------------ reading

    async def get(self, task_id: str) -> TaskView:
        """The task as its commits say. Raises `TaskNotFound`, `StoreUnavailable`, `Corrupt`."""
        head, task, seq = await self._state(task_id)
        view = await task_view(head, task, seq, await self._output(task))
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
        limit = max(1, min(limit, 1000))
        heads = await self.store.list_heads(where, limit=limit + 1, after=_read_cursor(cursor))
        page = heads[:limit]
        more = len(heads) > limit
        return Page(page, f"{page[-1].created_at!r}/{page[-1].task_id}" if more else None)

    async def explain(self, task_id: str) -> list[Reason]:
        """Why each node that does not run does not run, and how far the streams are."""
        head, task, _ = await self._state(task_id)
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
        listener = self.hub.listen(task_id, ends_only=True)
        try:
            if self._engine is None or task_id not in self._engine.cells:
                await self._tail.open()
            return await self._wait(task_id, listener, timeout, on_wait)
        finally:
            listener.close()

    async def _wait(self, task_id: str, listener: Any, timeout: float | None, on_wait: Any) -> TaskResult:
        began = self._clock.mono()
        read_at, told = -REREAD_SEC, ""
        seen: int | None = None
        while True:
            now = self._clock.mono() - began
            if now - read_at >= REREAD_SEC:
                read_at = now
                if seen is not None and not self._is_here(task_id):
                    self._glances.ask(task_id, seen, listener)
                else:
                    result, seen = await self._result(task_id)
                    if result is not None:
                        return result
            left = REREAD_SEC if timeout is None else timeout - (self._clock.mono() - began)
            if left <= 0:
                raise WaitTimeout(await self._why_waiting(task_id, timeout))
            event = await listener.next(min(left, REREAD_SEC if on_wait is None else 2.0))
            if event is None and on_wait is not None:
                told = self._tell_stuck(task_id, on_wait, told)
            if listener.missed or event is not None:
                listener.missed = False
                read_at, seen = -REREAD_SEC, None

    def _tell_stuck(self, task_id: str, on_wait: Any, told: str) -> str:
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        if cell is None or cell.head is None or cell.task is None:
            return told
        assert self._engine is not None
        stuck = unserved(cell.head, cell.task, self._engine)
        if stuck is not None and stuck.message != told:
            on_wait(stuck.message)
            return stuck.message
        return told

    async def _why_waiting(self, task_id: str, timeout: float | None) -> str:
        reasons = await self.explain(task_id)
        why = "; ".join(reason.message for reason in reasons[:3]) or "nothing is known to hold it up"
        return f"task {task_id} did not end within {timeout:g} s: {why}"

    def _is_here(self, task_id: str) -> bool:
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        return cell is not None and cell.live

    async def _result(self, task_id: str) -> tuple[TaskResult | None, int | None]:
        """The result if the task has ended, and the seq of the last commit that was seen. Where the task is decided in
        this process, an end will be heard of: a commit on its way needs no look into the store."""
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        if cell is not None and cell.live and cell.flight is not None and cell.head is not None:
            self._check_tenant(cell.head, task_id)
            return None, None
        head, task, seq = self._at_hand(task_id) or await self._state(task_id)
        if not task.ended:
            return None, seq
        generation = task.generation
        result = await task_result(head, task, await self._output(task))
        if task.generation != generation:
            return None, None  # restarted while it was read
        if not (holds_artifacts(result.output) or holds_artifacts(result.outputs)):
            return result, seq
        output = await materialise(self.store, result.output)
        return replace(result, output=output, outputs=await materialise(self.store, result.outputs)), seq

    async def _output(self, task: Task) -> Any:
        if task.status is not TaskStatus.FINISHED:
            return None
        try:
            return await output_of_ended(self.store, task)
        except (InputError, ExprError):
            return None  # it could be built when the task ended, or the task would have failed

    def _at_hand(self, task_id: str) -> tuple[Head, Task, int] | None:
        """The state of a task that is decided in this process and has no commit on its way."""
        cell = self._engine.cells.get(task_id) if self._engine is not None else None
        # A task that is out of work may have been deleted by another process.
        if cell is None or cell.flight is not None or not cell.live or cell.task is None or cell.at_rest:
            return None
        assert cell.head is not None
        self._check_tenant(cell.head, task_id)
        return cell.head, cell.task, cell.acked

    async def _state(self, task_id: str) -> tuple[Head, Task, int]:
        if (found := self._at_hand(task_id)) is not None:
            return found
        past = await self._lookups.past(task_id)
        self._check_tenant(past.head if past is not None else None, task_id)
        assert past is not None
        if past.task is None:
            raise Corrupt(f"task {task_id} is quarantined: {past.error}")
        return past.head, past.task, past.seq

    def _check_tenant(self, head: Head | None, task_id: str) -> None:
        if head is None or head.tenant != self.tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")

    async def _listen_everywhere(self, task_id: str | None = None) -> None:
        """Hear of tasks that other coordinators own, from before the next read on."""
        mine = self._engine is not None and task_id is not None and task_id in self._engine.cells
        if not mine:
            await self._tail.open()

    # ------------------------------------------------------------------------------------------ steering

    async def cancel(self, task_id: str, *, node_id: str | None = None, reason: str = "user_request",
                     grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel a task, or one node of it. Returns once the request is durable; False for an unknown task."""
        args = {
            "node_id": node_id,
            "reason": plain_reason(reason),
            "grace_sec": self._cancel_grace_sec if grace_sec is None else checked_grace(grace_sec),
        }
        try:
            await self._request(task_id, "cancel", args)
        except TaskNotFound:
            return False
        return True

    async def pause(self, task_id: str, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes of this task, or do not start this one; what runs goes on. True once it is applied; False
        where no coordinator answered in time: the request is durable, and will be. Raises `RequestRefused`."""
        args = {"reason": plain_reason(reason), "node_id": node_id}
        return await self._request_and_wait(task_id, "pause", args)

    async def resume(self, task_id: str, *, node_id: str | None = None) -> bool:
        """Undo `pause`. Answers as it does."""
        return await self._request_and_wait(task_id, "resume", {"node_id": node_id})

    async def signal(self, task_id: str, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Answers as `pause` does. Raises `RequestRefused` where
        no node can take it any more, `GraphError` for a payload that is not JSON or does not fit the node's schema."""
        checked = checked_payload(payload)
        _, task, _ = await self._state(task_id)
        check_signal(task, name, checked)
        return await self._request_and_wait(task_id, "signal", {"name": name, "payload": checked})

    async def restart(self, task_id: str, **options: Unpack[RestartOptions]) -> bool:
        """Run an ended task again. Answers as `pause` does. Raises `GraphError` for what is wrong with the options."""
        args, _ = await self._restart_args(task_id, options, for_task=task_id)
        return await self._request_and_wait(task_id, "restart", args)

    async def plan_restart(self, task_id: str, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart` with the same options would do; nothing is done."""
        args, edited = await self._restart_args(task_id, options)
        _, task, _ = await self._state(task_id)
        plan = in_time(task, plan_restart(task, args, edited), args, edited, self._clock.wall())
        return await ChildPlans(self.store, self._history).add(task, plan)

    async def _restart_args(
        self, task_id: str, options: RestartOptions, *, for_task: str = ""
    ) -> tuple[dict[str, Any], Graph | None]:
        args: dict[str, Any] = {
            "from_node": options.get("from_node"),
            "failed_only": bool(options.get("failed_only")),
        }
        graph, params, inputs = options.get("graph"), options.get("params"), options.get("inputs")
        edited: Graph | None = None
        if options.get("deadline") is not None:
            args["deadline"] = checked_moment(options["deadline"])
        if params is not None:
            args["params"], _ = checked_params(params)
        if inputs:
            graph = await self._with_inputs(task_id, graph, inputs)
        if graph is not None:
            args["graph_ref"], edited = await self._graphs.take(graph, for_task=for_task)
            head, _, _ = await self._state(task_id)
            await self._admission.check_code(args["graph_ref"], edited, self.tenant, head.flow)
        return args, edited

    async def _with_inputs(self, task_id: str, graph: Any, inputs: Mapping[str, Any]) -> Any:
        """The graph, the task's own if none is given, with other inputs of some nodes. Raises `GraphError`."""
        if graph is None:
            head, task, _ = await self._state(task_id)
            graph = await self._graphs.written(task.edition or head.graph_ref)
        nodes = [dict(node) for node in graph.get("nodes", ())]
        known = {node.get("node_id"): node for node in nodes}
        problems = [
            Problem("E_NODE_UNKNOWN", f"inputs[{name!r}]", f"no node {name!r}{did_you_mean(name, map(str, known))}")
            for name in inputs
            if name not in known
        ]
        if problems:
            raise GraphError(problems)
        for name, value in inputs.items():
            known[name]["inputs"] = value
        return {**graph, "nodes": nodes}

    async def delete(self, task_id: str) -> bool:
        """Delete a task that has ended, and its children. False for an unknown task. Raises `RequestRefused` while one
        of them has not ended, `StoreUnavailable` (then it may be deleted all the same: ask again)."""
        deleted = await self._delete(task_id, self.tenant)
        if self._engine is not None:
            for one in deleted:
                self._engine.forget_task(one)
        return bool(deleted)

    async def _request_and_wait(self, task_id: str, kind: str, args: dict[str, Any]) -> bool:
        await self._listen_everywhere(task_id)
        listener = self.hub.listen(task_id)
        try:
            request = await self._request(task_id, kind, args)
            deadline = self._clock.mono() + ANSWER_SEC
            while (left := deadline - self._clock.mono()) > 0:
                _, task, _ = await self._state(task_id)
                if task.applied >= request.n:
                    break
                await listener.next(min(left, 1.0))
            else:
                return False
        finally:
            listener.close()
        why = task.refusals.get(request.n)
        if why is not None:
            raise RequestRefused(f"task {task_id} cannot be {_PAST[kind]}: {why}")
        return True

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

    async def _request(self, task_id: str, kind: str, args: dict[str, Any]) -> Request:
        """Write a request down behind those there are, and ring. Raises `TaskNotFound`, `StoreUnavailable`."""
        heads = [head for head in await self.store.read_heads([task_id]) if head.status != DELETED]
        self._check_tenant(heads[0] if heads else None, task_id)
        return await self._asking.ask(
            Request(
                task_id,
                1,
                uuid.uuid4().hex,
                kind,
                dumps(args).decode(),
                heads[0].partition,
                self.tenant,
                self.principal,
                self._clock.wall(),
            )
        )


_PAST = {
    "pause": "paused", "resume": "resumed", "restart": "restarted", "cancel": "cancelled", "signal": "signalled",
}  # fmt: skip


def _read_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    at, _, task_id = cursor.partition("/")
    try:
        return float(at), task_id
    except ValueError:
        raise ValueError(f"{cursor!r} is not a cursor that list_tasks gave") from None
