"""Carries out effects: turns what was committed into messages, and tells whoever waits in this process."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.publisher import Parcel, Publisher
from flowkit.core import streams
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies, breaches, rows_of
from flowkit.core.effects import Dispatch, Revoke, Tell
from flowkit.core.graph import MISSING
from flowkit.core.model import Task
from flowkit.core.payload import lift_artifacts, lift_secrets
from flowkit.errors import FlowKitError, StoreUnavailable
from flowkit.ports import DELETED, Bus, Clock, Commit, Head, Record, SecretUse, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Propagation
from flowkit.wire.codec import dumps
from flowkit.wire.events import Event, encode_event, encode_progress, event_headers, progress_headers
from flowkit.wire.facts import row_of
from flowkit.wire.messages import Job, Over, Stop, pack_artifacts
from flowkit.wire.topics import EVENT_PARTITIONS, Topics, partition_of

_log = logging.getLogger(__name__)

LARGE_INPUT_BYTES = 40 * 1024
LARGE_PARAMS_BYTES = 2 * 1024
"""Params travel with every job of a task; workers read larger ones in the head."""
FOR_HANDLERS = frozenset({"input_ref", "batching"})
Body = tuple[Any, list[Any], Any, dict[str, Any] | None, dict[str, Any] | None]


def event_record(topics: Topics, commit: Commit, tenant: str, status: str) -> Record:
    """The event of an acknowledged commit; `status` is its task's after it."""
    partition = partition_of(commit.task_id, EVENT_PARTITIONS)
    value, key = encode_event(commit, tenant, status), commit.task_id.encode()
    return Record(topics.events, partition, value, key, event_headers(commit))


class _Told:
    """What becomes of the event of commit `seq`. Made for every commit: closures would be seven objects, not one."""

    __slots__ = ("_carrier", "_cell", "_seq")

    def __init__(self, carrier: Carrier, cell: Cell, seq: int) -> None:
        self._carrier = carrier
        self._cell = cell
        self._seq = seq

    def wanted(self) -> bool:
        return not self._cell.dead

    def acknowledged(self) -> None:
        self._carrier.on_published(self._cell, self._seq)


class Carrier:
    """`load_soon`, `ticket` and `on_published` are set by the owner: one wakes the loader, one issues tickets for
    secrets, one hears of acknowledged events. `propagation` tells which spans work is a child of; without one, that is
    the span that the task was created in."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, publisher: Publisher, topics: Topics, hub: Hub,
                 supervisor: Supervisor, policies: CodePolicies = NOTHING_SAID) -> None:  # fmt: skip
        self._store = store
        self._bus = bus
        self._clock = clock
        self._publisher = publisher
        self._topics = topics
        self._hub = hub
        self._supervisor = supervisor
        self._policies = policies
        self.propagation: Propagation | None = None
        self.load_soon: Callable[[], None] = lambda: None
        self.ticket: Callable[[SecretUse, Sequence[str]], str] = lambda use, names: ""
        self.on_published: Callable[[Cell, int], None] = lambda cell, seq: cell.event_acknowledged(seq)

    # ------------------------------------------------------------------------------------------ events

    def committed(self, cell: Cell, commit: Commit, status: str) -> None:
        """Publish an acknowledged commit's event until it gets through; `published` follows. An event that nobody can
        ever read is not made: it is through."""
        tenant = cell.head.tenant if cell.head is not None else ""
        if self._bus.heard(self._topics.events):
            told = _Told(self, cell, commit.seq)
            record = event_record(self._topics, commit, tenant, status)
            self._publisher.send(Parcel(record, told.wanted, told.acknowledged))
        else:
            self.on_published(cell, commit.seq)
        self._hub.tell(commit, tenant, status)

    def streamed(self, event: Event) -> None:
        """Tell how far streams are, once: if it is lost, the next one says more."""
        if self._bus.heard(self._topics.events):
            partition = partition_of(event.task_id, EVENT_PARTITIONS)
            value, headers = encode_progress(event), progress_headers(event)
            self._publisher.send(Parcel(Record(self._topics.events, partition, value, event.task_id.encode(), headers)))
        self._hub.heard(event)

    async def deleted(self, deleted: Sequence[tuple[Head, Commit]]) -> None:
        """Publish the events of tombstones. Nobody else will, and nothing depends on them: where the bus is away for so
        long that others have to wait for it, they are given up."""
        for head, commit in deleted:
            if self._publisher.room and self._bus.heard(self._topics.events):
                record = event_record(self._topics, commit, head.tenant, DELETED)
                self._publisher.send(Parcel(record, wanted=lambda: self._publisher.room))
            self._hub.tell(commit, head.tenant, DELETED)

    # ------------------------------------------------------------------------------------------ effects

    def carry_out(self, cell: Cell, effect: Dispatch | Revoke | Tell) -> None:
        match effect:
            case Dispatch():
                self._dispatch(cell, effect)
            case Revoke():
                stop = Stop(effect.token, cell.task_id, effect.node, effect.attempt, effect.reason, effect.grace_sec)
                self._publisher.work(effect.worker, effect.incarnation, stop)
            case Tell():
                over = Over(effect.token, cell.task_id, effect.node, effect.attempt, list(effect.over))
                self._publisher.work(effect.worker, effect.incarnation, over)

    def revoke_unknown(self, worker: str, incarnation: str, stop: Stop) -> None:
        self._publisher.work(worker, incarnation, stop)

    def _dispatch(self, cell: Cell, effect: Dispatch) -> None:
        task, head = cell.task, cell.head
        assert task is not None
        assert head is not None
        small = _surely_small(effect.inputs)
        inputs, found = (effect.inputs, []) if small else lift_artifacts(effect.inputs)
        code = effect.code
        if code is not None:
            inputs, holes = lift_secrets(inputs)
            code = code | {"holes": [[list(place), one.name] for place, one in holes]} if holes else code
            code = self._under_policies(task, head, code)
        apart = len(head.params) > LARGE_PARAMS_BYTES and not task.edited_params
        params: Any = task.params if task.params and not apart else None
        given = effect.node.io
        io = {name: value for name, value in given.items() if name in FOR_HANDLERS} or None if given else None
        body: Body = (inputs, pack_artifacts(found), params, io, code)
        small = small and not code and _surely_small(io) and (params is inputs or _surely_small(params))
        large = b"" if small else _large(body)
        latest = task.deadline_of(effect.name)
        job = Job(
            task_id=task.task_id,
            tenant=task.tenant,
            principal=head.principal,
            partition=cell.partition,
            node=effect.name,
            role=effect.node.type,
            attempt=effect.attempt,
            token=effect.token,
            generation=task.generation,
            accept_by=effect.accept_by,
            inputs=None if large else inputs,
            artifacts=[] if large else body[1],
            params=None if large else params,
            run_sec=effect.node.timeouts.run_sec,
            heartbeat_sec=effect.node.timeouts.heartbeat_sec,
            deadline_sec=None if latest is None else max(0.0, latest - self._clock.wall()),
            given=effect.node.inputs is not MISSING or effect.node.stream is not None,
            body_ref=hashlib.sha256(large).hexdigest() if large else "",
            params_in_head=apart,
            io=None if large else io,
            code=None if large else code,
            ticket=self._ticket(task, head, effect) if code and code.get("secrets") else "",
            stream=streams.job(task, effect.node),
            traceparent=self._traceparent(head, effect),
        )
        if large:
            self._supervisor.spawn(self._dispatch_large(effect, job, large), "dispatch-large")
        else:
            self._publisher.work(effect.worker, effect.incarnation, job)

    def _under_policies(self, task: Task, head: Head, code: dict[str, Any]) -> dict[str, Any]:
        """With the policies that hold for it, which its worker looks at again."""
        rules = self._policies.on(task.tenant, head.flow, task.graph)
        flow = head.flow.partition("@")[0]
        code = code | {"flow": flow} if flow else code
        return code | {"policy": rows_of(rules)} if rules else code

    def _traceparent(self, head: Head, effect: Dispatch) -> str:
        if self.propagation is None:
            return head.traceparent
        return self.propagation.of_work(head, effect.name, effect.attempt, effect.node.type)

    def _ticket(self, task: Task, head: Head, effect: Dispatch) -> str:
        """For the secrets of this attempt; nothing where none can be issued: the worker says so then."""
        assert effect.code is not None
        flow = head.flow.partition("@")[0]
        use = SecretUse(task.tenant, task.task_id, effect.name, effect.attempt, effect.token, effect.worker, flow)
        rules = self._policies.on(task.tenant, head.flow, task.graph)
        if any(breaches({"secrets": effect.code["secrets"]}, rules)):
            return ""  # its worker says why
        try:
            return self.ticket(use, effect.code["secrets"])
        except (FlowKitError, ValueError) as error:
            _log.warning("no ticket for the secrets of node %r: %s", effect.name, error)
            return ""

    async def _dispatch_large(self, effect: Dispatch, job: Job, data: bytes) -> None:
        try:
            await self._store.put_blob(job.body_ref, data, kind="artifact", for_task=job.task_id)
        except StoreUnavailable:
            return  # the accept deadline brings the attempt back
        self._publisher.work(effect.worker, effect.incarnation, job)

    # ------------------------------------------------------------------------------------------ the rest

    def refuse(self, cell: Cell, item: Item, reason: str) -> None:
        """A report that cannot be applied goes to `dead.v1`, written as a worker would have."""
        try:
            value = dumps([cell.task_id, item.tenant, row_of(item.report)])  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError):
            value = repr(item.report)[:4096].encode("utf-8", "replace")
        record = Record(self._topics.facts, cell.partition, value, cell.task_id.encode("utf-8", "replace"))
        self._publisher.dead(record, reason, cell.task_id)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds <= 0:
            asyncio.get_running_loop().call_soon(action)
        else:
            asyncio.get_running_loop().call_later(seconds, action)


def _large(body: Body) -> bytes:
    """The body's bytes where they are too many to travel, else nothing."""
    data = dumps(body)
    return data if len(data) > LARGE_INPUT_BYTES else b""


def _surely_small(value: Any) -> bool:
    """A quick yes for the inputs of every day, in which nothing stands but scalars; no only means that they must be
    measured."""
    if value is None:
        return True
    if isinstance(value, dict):
        return len(value) < 16 and all([len(key) < 256 and _small_scalar(inner) for key, inner in value.items()])
    return _small_scalar(value)


def _small_scalar(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) < 1024
    if kind is int:
        return int(value).bit_length() < 1024
    return value is None or kind is float or kind is bool
