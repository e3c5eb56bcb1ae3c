"""The workers as this coordinator knows them: who lives, what they serve, and how much each can take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from flowkit.coordinator.lease_times import dangers, fresh_sec
from flowkit.core.signature import Signature, read_signature
from flowkit.ports import Clock
from flowkit.telemetry import LeaseTimesDiffer, Telemetry, WorkerSeen
from flowkit.wire.messages import Goodbye, Heartbeat, Hello

MOST_REPLACED = 8


@dataclass(slots=True)
class WorkerView:
    """One worker. `mine` are the attempts that this coordinator has placed with it, `others` what it holds beyond them;
    `mono` is its own monotonic clock as last reported, at `heard_at` in ours; `times` are its `lease_ttl_sec` and
    `heartbeat_sec`."""

    worker: str
    incarnation: str
    roles: tuple[str, ...]
    slots: int
    mono: float
    heard_at: float
    labels: dict[str, str] = field(default_factory=dict)
    draining: bool = False
    mine: int = 0
    others: int = 0
    cpu: float = 0.0
    memory_mb: float = 0.0
    signatures: dict[str, Signature | None] = field(default_factory=dict)
    times: tuple[float, float] = (0.0, 0.0)

    def note_held(self, held: int) -> None:
        self.others = max(0, held - self.mine)


class Fleet:
    """The workers by id and by role. Work is placed only with those heard of a little more than `heartbeat_sec` ago: a
    lease given to a dead worker costs a whole TTL; those silent for three times `ttl_sec` are forgotten."""

    def __init__(self, clock: Clock, telemetry: Telemetry, *, ttl_sec: float, heartbeat_sec: float) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._ttl_sec = ttl_sec
        self._heartbeat_sec = heartbeat_sec
        self._fresh_sec = fresh_sec(heartbeat_sec)
        self.workers: dict[str, WorkerView] = {}
        self._replaced: dict[str, deque[str]] = {}
        self._by_role: dict[str, dict[str, WorkerView]] = {}

    def heard(self, message: Hello | Heartbeat) -> WorkerView | None:
        """Note a sign of life; a new incarnation replaces the old one. None for one that was replaced before: a process
        that stood still while its successor said hello gets nothing any more, as long as that one is heard of."""
        view = self.workers.get(message.worker)
        roles = tuple(message.roles)
        if view is None or view.incarnation != message.incarnation:
            if view is not None:
                replaced = self._replaced.setdefault(message.worker, deque(maxlen=MOST_REPLACED))
                if message.incarnation in replaced and view.heard_at >= self._clock.mono() - self._fresh_sec:
                    return None
                self._forget(view)
                self._replaced[message.worker] = replaced
                replaced.append(view.incarnation)
            view = WorkerView(message.worker, message.incarnation, roles, message.slots, message.mono, 0.0)
            self.workers[message.worker] = view
            self._index(view)
            self._telemetry.emit(WorkerSeen(message.worker, "hello"))
        elif view.roles != roles:
            self._unindex(view)
            view.roles = roles
            self._index(view)
        if message.draining and not view.draining:
            self._telemetry.emit(WorkerSeen(message.worker, "draining"))
        view.slots, view.labels, view.draining = message.slots, message.labels, message.draining
        view.mono, view.heard_at = message.mono, self._clock.mono()
        if isinstance(message, Heartbeat):
            view.cpu, view.memory_mb = message.cpu, message.memory_mb
        else:
            view.signatures = {role: read_signature(schema) for role, schema in message.schemas.items()}
            self._compare_times(view, message)
        return view

    def _compare_times(self, view: WorkerView, hello: Hello) -> None:
        """Tell, once of each worker, where its settings and ours put leases in danger."""
        times = (hello.lease_ttl_sec, hello.heartbeat_sec)
        if view.times != times:
            view.times = times
            for danger in dangers(hello, self._ttl_sec, self._heartbeat_sec):
                self._telemetry.emit(LeaseTimesDiffer(hello.worker, *danger))

    def left(self, message: Goodbye) -> WorkerView | None:
        view = self.workers.get(message.worker)
        if view is None or view.incarnation != message.incarnation:
            return None
        self._forget(view)
        self._telemetry.emit(WorkerSeen(message.worker, "goodbye"))
        return view

    def forget_silent(self) -> None:
        """Drop workers not heard of for three times the TTL; until then their leases are watched, but nothing is
        placed."""
        limit = self._clock.mono() - 3 * self._ttl_sec
        for view in [view for view in self.workers.values() if view.heard_at < limit and not view.mine]:
            self._forget(view)
            self._telemetry.emit(WorkerSeen(view.worker, "silent"))

    def of_role(self, role: str) -> list[WorkerView]:
        """The workers of a role that may be given work now."""
        limit = self._clock.mono() - self._fresh_sec
        return [v for v in self._by_role.get(role, {}).values() if v.heard_at >= limit and not v.draining]

    def signatures_of(self, role: str) -> list[Signature | None]:
        """What each worker of a role says that it takes; None for one that does not say."""
        return [view.signatures.get(role) for view in self.of_role(role)]

    @property
    def roles(self) -> set[str]:
        """Every role that some living worker serves."""
        return {role for role in self._by_role if self.of_role(role)}

    def mono_of(self, view: WorkerView) -> float:
        """The worker's monotonic clock now: the last it reported plus what has passed since."""
        return view.mono + (self._clock.mono() - view.heard_at)

    def _forget(self, view: WorkerView) -> None:
        if self.workers.get(view.worker) is view:
            del self.workers[view.worker]
            self._replaced.pop(view.worker, None)
        self._unindex(view)

    def _index(self, view: WorkerView) -> None:
        for role in view.roles:
            self._by_role.setdefault(role, {})[view.worker] = view

    def _unindex(self, view: WorkerView) -> None:
        for role in view.roles:
            workers = self._by_role.get(role, {})
            if workers.get(view.worker) is view:
                del workers[view.worker]
            if not workers:
                self._by_role.pop(role, None)
