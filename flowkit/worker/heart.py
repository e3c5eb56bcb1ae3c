"""Renews the leases of what the worker holds, and ends what it could not renew in time (rules 5 to 7).

Everything here may live in a thread of its own, with its own loop, so that a handler that blocks the worker's loop does
not cost the worker its leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from flowkit.ports import Bus, Clock, Outcome, Record, Renewal
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Heartbeat, Hello, encode_message
from flowkit.wire.topics import FLEET_PARTITIONS, Topics, partition_of
from flowkit.worker.attempt import Attempt, Phase

DEFENCE = 0.8
FULL_BYTES = 60 * 1024
MOST_BEATS = 8
Gauge = Callable[[], tuple[float, float]]
"""The share of a CPU that the process uses, and its memory in MB."""


class Renewer(Protocol):
    """What the heart needs of a store."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def renew(self, renewal: Renewal) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What a worker says about itself."""

    worker_id: str
    incarnation: str
    roles: tuple[str, ...]
    slots: int
    labels: Mapping[str, str]
    version: str
    schemas: Mapping[str, Any] = field(default_factory=dict)
    lease_ttl_sec: float = 0.0
    heartbeat_sec: float = 0.0

    def hello(self, mono: float, draining: bool) -> Hello:
        return Hello(
            self.worker_id,
            self.incarnation,
            list(self.roles),
            self.slots,
            mono,
            dict(self.labels),
            self.version,
            draining,
            dict(self.schemas),
            self.lease_ttl_sec,
            self.heartbeat_sec,
        )


class Heart:
    """`held` is the worker's table of attempts by token, which is only read here. `on_lost` hears of each attempt
    that is to end because its lease may have passed to another; `spare` tells how many may run beyond the slots."""

    def __init__(self, *, bus: Bus, store: Renewer, clock: Clock, topics: Topics, identity: Identity,
                 held: Mapping[str, Attempt], heartbeat_sec: float, lease_ttl_sec: float,
                 on_lost: Callable[[Attempt], None], gauge: Gauge, telemetry: Telemetry,
                 defend: bool = True, spare: Callable[[], int] = lambda: 0) -> None:  # fmt: skip
        self._bus = bus
        self._store = store
        self._clock = clock
        self._topic = topics.fleet
        self._identity = identity
        self._partition = partition_of(identity.worker_id, FLEET_PARTITIONS)
        self._key = identity.worker_id.encode()
        self._held = held
        self._heartbeat_sec = heartbeat_sec
        self._limit = DEFENCE * lease_ttl_sec
        self._defend = defend
        self._on_lost = on_lost
        self._gauge = gauge
        self._spare = spare
        self._supervisor = Supervisor("heart", telemetry)
        self._beats = 0
        self._renewals = 0
        self.draining = False

    def start(self) -> None:
        self._supervisor.loop("beats", self.step, every=self._heartbeat_sec)
        self._supervisor.loop("guard", self.step_guard, every=max(0.05, self._limit / 16))

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def step(self) -> None:
        """Set one beat going; one that the bus does not answer must not delay the next."""
        self.beat_now()

    def beat_now(self) -> None:
        if self._beats < MOST_BEATS:
            self._beats += 1
            self._supervisor.spawn(self._beat(), "beat")

    async def step_guard(self) -> None:
        """Find the attempts whose lease this worker may have lost without knowing it."""
        self._guard(self._clock.mono())

    def _guard(self, now: float) -> None:
        if not self._defend:
            return
        for attempt in list(self._held.values()):  # one step of the interpreter: the table may change meanwhile
            since = max(attempt.base, attempt.renewed)
            if attempt.phase is not Phase.DONE and not attempt.lost and now - since > self._limit:
                attempt.lost = True
                attempt.kill_processes()
                self._on_lost(attempt)

    async def _beat(self) -> None:
        try:
            await self.beat()
        finally:
            self._beats -= 1

    async def beat(self) -> None:
        """One renewal: over the bus, and in the store where the bus does not acknowledge it in time."""
        at = self._looked_at()
        message = self._message(at)
        held = list(self._held.values())  # after the time: what is not in it by then was not taken before
        parts = self._parts([attempt for attempt in held if not attempt.lost], message)
        whole = len(parts) == 1 and len(parts[0]) == len(held)
        sending = asyncio.ensure_future(self._bus.publish([self._record(message, part, whole) for part in parts]))
        try:
            await asyncio.wait({sending}, timeout=self._heartbeat_sec)
            if not all(_answer(sending, len(parts))):
                await self._renew_in_store([attempt for part in parts for attempt in part])
                await asyncio.wait({sending}, timeout=self._limit)
            for part, arrived in zip(parts, _answer(sending, len(parts)), strict=True):
                if arrived:
                    _renewed(part, at)
        finally:
            sending.cancel()

    def _looked_at(self) -> float:
        """The time of a renewal, and with the same look at the clock, what it must not renew any more: a process that
        stood still between two looks would revive leases that are others' by now."""
        at = self._clock.mono()
        self._guard(at)
        return at

    async def _renew_in_store(self, attempts: Sequence[Attempt]) -> None:
        at = self._looked_at()
        attempts = [attempt for attempt in attempts if not attempt.lost]
        self._renewals += 1
        tokens = tuple(attempt.token for attempt in attempts)
        me = self._identity
        outcome = await self._store.renew(Renewal(me.worker_id, me.incarnation, self._renewals, tokens))
        if outcome is Outcome.OK:
            _renewed(attempts, at)

    def _parts(self, attempts: Sequence[Attempt], message: Heartbeat) -> list[list[Attempt]]:
        """What is held, for as many messages as it takes: each one names its part."""
        parts: list[list[Attempt]] = [[]]
        room = left = FULL_BYTES - len(encode_message(message))
        for attempt in attempts:
            need = len(msgspec.json.encode(attempt.held())) + 1
            if need > left:
                parts.append([])
                left = room
            parts[-1].append(attempt)
            left -= need
        return parts

    def _message(self, at: float) -> Heartbeat:
        me, (cpu, memory_mb) = self._identity, self._gauge()
        return Heartbeat(
            me.worker_id, me.incarnation, list(me.roles), me.slots + self._spare(), at, [], dict(me.labels), cpu,
            memory_mb, self.draining,
        )  # fmt: skip

    def _record(self, message: Heartbeat, part: Sequence[Attempt], whole: bool) -> Record:
        named = msgspec.structs.replace(message, held=[attempt.held() for attempt in part], whole=whole)
        return Record(self._topic, self._partition, encode_message(named), self._key)


def _answer(sending: asyncio.Future[list[bool]], count: int) -> list[bool]:
    """What the bus says now: silence and a fault are both no."""
    if not sending.done() or sending.cancelled() or sending.exception() is not None:
        return [False] * count
    return sending.result()


def _renewed(attempts: Sequence[Attempt], at: float) -> None:
    for attempt in attempts:
        attempt.renewed = max(attempt.renewed, at)
