"""Sees what no process of the cluster can see, and judges at the moment it happens: was this lease's end just?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.core.reports import Failed, Succeeded
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.ports import Record, Renewal
from flowkit.telemetry import AttemptKilled, DeadLettered, Happening, LeaseExpired, LoopFailed, Quarantined
from flowkit.testing.bus import Broker
from flowkit.testing.evidence import Start, Violation
from flowkit.testing.machine import KAFKA, MONGO, Machine
from flowkit.testing.replica import ReplicaSet
from flowkit.testing.stage import Stage
from flowkit.wire.events import decode_event
from flowkit.wire.facts import decode_facts
from flowkit.wire.messages import Heartbeat, Told, decode_facts_batch, decode_fleet
from flowkit.wire.tombstone import is_tombstone
from flowkit.wire.topics import Topics

TTL_SEC = 10.0
KILL_SEC = 8.0
Lease = tuple[str, str, int]


@dataclass(slots=True)
class Observer:
    """`renewed`: when a lease's last acknowledged renewal was sent; `told`: when its result was acknowledged."""

    stage: Stage
    broker: Broker
    replica: ReplicaSet
    topics: Topics
    machines: dict[str, Machine]
    new_task: Callable[[str], Task | None]
    starts: list[Start] = field(default_factory=list)
    running: dict[Lease, Start] = field(default_factory=dict)
    finished: dict[Lease, Start] = field(default_factory=dict)
    told: dict[Lease, float] = field(default_factory=dict)
    renewed: dict[Lease, float] = field(default_factory=dict)
    events: set[tuple[str, int, str]] = field(default_factory=set)
    unjust: dict[Lease, str] = field(default_factory=dict)
    found: list[Violation] = field(default_factory=list)
    _tokens: dict[str, Lease] = field(default_factory=dict)

    def attach(self) -> None:
        self.broker.on_append = self._appended
        self.broker.on_acknowledged = self._acknowledged

    def say(self, kind: str, task_id: str, detail: object) -> None:
        self.stage.note("VIOLATION", kind, task_id, detail)
        self.found.append(Violation(kind, task_id, str(detail)))

    # ---- handlers

    def begin(self, start: Start) -> None:
        self.stage.note(start.worker, "starts", start.task_id[:8], start.node, start.attempt)
        self.starts.append(start)
        self.running[start.task_id, start.node, start.attempt] = start

    def end(self, start: Start, how: str) -> None:
        if self.stage.loop.is_closed():
            return
        start.ended_at = self.stage.now
        lease = (start.task_id, start.node, start.attempt)
        if self.running.get(lease) is start:
            del self.running[lease]
        if how != "stops":
            self.finished[lease] = start
        self.stage.note(start.worker, how, start.task_id[:8], start.node, start.attempt)

    def buried(self, machine: Machine) -> None:
        """A worker died: its runs are over."""
        for lease, start in list(self.running.items()):
            if start.worker == machine.name:
                start.ended_at = self.stage.now
                del self.running[lease]

    # ---- what travels

    def _appended(self, record: Record) -> None:
        if record.topic == self.topics.events:
            event = decode_event(record.value)
            if not event.streams:  # those are of no commit
                self.events.add((event.task_id, event.seq, event.commit_id))

    def _acknowledged(self, machine: Machine, record: Record) -> None:
        if machine.kind != "worker":
            return
        if record.topic == self.topics.fleet:
            message = decode_fleet(record.value)
            if isinstance(message, Heartbeat) and message.incarnation == f"{machine.name}.{machine.incarnation}":
                sent = message.mono - machine.clock.boot
                for held in message.held:
                    lease = (held.task_id, held.node, held.attempt)
                    self._tokens[held.token] = lease
                    self.renewed[lease] = max(sent, self.renewed.get(lease, 0.0))
        elif record.topic == self.topics.facts:
            for item in decode_facts_batch(record.value).items:
                if isinstance(item, Told) and isinstance(item.report, Succeeded | Failed):
                    lease = (item.task_id, item.report.node, item.report.attempt)
                    self.told.setdefault(lease, self.stage.now)

    def renewed_in_store(self, renewal: Renewal, sent: float) -> None:
        for token in renewal.tokens:
            if (lease := self._tokens.get(token)) is not None:
                self.renewed[lease] = max(sent, self.renewed.get(lease, 0.0))

    # ---- what the processes say

    def heard(self, machine: Machine, happening: Happening) -> None:
        if not machine.alive or self.stage.loop.is_closed():
            return  # the closing of what a crash left behind
        match happening:
            case LeaseExpired(task_id=task_id, node=node, attempt=attempt, worker=worker):
                self.stage.count("lease_expired")
                self.stage.note(machine.name, "expires", task_id[:8], node, attempt)
                self._judge_expiry((task_id, node, attempt), worker)
            case AttemptKilled(why=why, token=token):
                self.stage.count(f"killed_{why}")
                if why == "revoked":
                    self._judge_kill(token)
                elif why == "no_renewal" and (lease := self._tokens.get(token)) is not None:
                    # Its handler may have returned, but its batches were not in the store yet: there is no result.
                    self.finished.pop(lease, None)
            case LoopFailed(error=error) if not isinstance(error, StoreUnavailable | BusUnavailable):
                self.say("loop_failed", machine.name, f"{happening.owner}/{happening.loop}: {error!r}")
            case Quarantined(task_id=task_id, reason=reason):
                self.say("quarantined", task_id, f"by {machine.name}: {reason}")
            case DeadLettered(reason="no such task"):
                self.stage.count("no_such_task")  # a stale read, and a doorbell that the sweeper makes good for
            case DeadLettered(task_id=task_id, reason=reason):
                self.say("dead_lettered", task_id, f"by {machine.name}: {reason}")
            case _:
                self.stage.count(type(happening).__name__)

    def _judge_expiry(self, lease: Lease, worker: str) -> None:
        now, machine = self.stage.now, self.machines.get(worker)
        if machine is None:
            return
        lost_at = self.broker.lost_at
        if lease in self.told:
            # After a total loss a position may lie beyond the new log's messages: known, and counted apart.
            if lost_at < 0:
                self.unjust[lease] = "wasted_result"
            else:
                self.unjust.pop(lease, None)  # an earlier attempt to end it came to nothing
                self.stage.count("wasted_after_loss")
            return
        if not machine.alive or now - machine.last_freeze <= TTL_SEC or now - lost_at <= 2 * TTL_SEC:
            return
        start = self.running.get(lease)
        if start is not None and start.worker == worker:
            if now - self.renewed.get(lease, -99.0) < KILL_SEC:
                self.unjust[lease] = "unjust_expiry"
            return
        done = self.finished.get(lease)
        if done is not None and done.started_at > machine.started_at and self._fine_for_long(machine):
            self.unjust[lease] = "finished_work_rerun"

    def _fine_for_long(self, machine: Machine) -> bool:
        limit = self.stage.now - TTL_SEC
        cuts = (machine.cut_until(MONGO), machine.cut_until(KAFKA))
        return max(*cuts, self.broker.down_until, self.replica.slow_until) < limit

    def fold(self, task_id: str, upto: int | None = None) -> Task | None:
        """The state that a majority's commits say, up to a seq."""
        task = self.new_task(task_id)
        if task is None:
            return None
        for seq, commit in sorted(self.replica.majority.data.commits.get(task_id, {}).items()):
            if (upto is None or seq <= upto) and not is_tombstone(commit):
                for fact in decode_facts(commit.body):
                    evolve(task, fact, commit.at)
        return task

    def _judge_kill(self, token: str) -> None:
        """A worker stopped an attempt because it was told to: its lease must be over, or about to be."""
        lease = self._tokens.get(token)
        task = self.fold(lease[0]) if lease is not None else None
        if lease is None or task is None:
            return
        current = task.runs[lease[1]].lease
        if current is not None and current.token == token and not current.cancelling:
            self.say("unjust_kill", lease[0], f"{lease[1]} attempt {lease[2]} was current")
