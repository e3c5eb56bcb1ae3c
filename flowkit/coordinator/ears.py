"""Listens to the fleet: signs of life renew leases, and a worker that holds what it should not is told so."""

from __future__ import annotations

from typing import Any

from flowkit.coordinator import authority
from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import MOST_AHEADS, Engine
from flowkit.coordinator.expiry import Expiry
from flowkit.coordinator.fleet import Fleet
from flowkit.coordinator.leases import Leases
from flowkit.coordinator.publisher import Publisher
from flowkit.coordinator.stream_progress import StreamProgress
from flowkit.errors import Corrupt
from flowkit.ports import Bus, Record, Tail
from flowkit.wire.messages import Beacon, FleetMessage, Goodbye, Heartbeat, Held, Hello, Stop, decode_fleet
from flowkit.wire.topics import Topics

FETCH_SEC = 2.0
MOST_DOUBTS = 10_000


class Ears:
    def __init__(self, *, bus: Bus, topics: Topics, engine: Engine, fleet: Fleet, leases: Leases, expiry: Expiry,
                 carrier: Carrier, publisher: Publisher, streams: StreamProgress) -> None:  # fmt: skip
        self._bus = bus
        self._topics = topics
        self._engine = engine
        self._fleet = fleet
        self._leases = leases
        self._expiry = expiry
        self._carrier = carrier
        self._publisher = publisher
        self._streams = streams
        self._tail: Tail | None = None
        self._suspects: dict[str, float] = {}
        self._unjudged: dict[str, dict[str, tuple[str, str, Held]]] = {}
        engine.on_loaded = self._loaded

    async def start(self) -> None:
        self._tail = await self._bus.tail(self._topics.fleet)

    async def stop(self) -> None:
        if self._tail is not None:
            await self._tail.stop()

    async def step(self) -> None:
        """Take in what the fleet said, then place what found no room before."""
        assert self._tail is not None
        records = await self._tail.fetch(FETCH_SEC)
        for record in records:
            try:
                message = _read(record)
            except Corrupt as error:
                self._publisher.dead(record, str(error))
                continue
            match message:
                case Heartbeat():
                    self._heartbeat(message, record)
                case Hello():
                    self._fleet.heard(message)
                case Goodbye():
                    self._fleet.left(message)
                case Beacon():
                    self._expiry.beacon_back(message)
        if records:
            self._engine.pump_dirty()

    def _heartbeat(self, message: Heartbeat, record: Record) -> None:
        view = self._fleet.heard(message)
        if view is not None:
            view.note_held(len(message.held))
        strangers = 0
        for held in message.held:
            if self._leases.of_stranger(held.token, record.signer):
                strangers += 1
            elif self._leases.heard(held.token):
                self._progress(held)
            elif held.partition in self._engine.owned:
                self._unwatched(message, held)
        self._streams.tell()
        if strangers:
            self._publisher.dead(record, f"names {strangers} attempts that are leased to another pool's workers")
        if message.whole:
            self._leases.all_named(message.worker, message.incarnation, message.mono)

    def _progress(self, held: Held) -> None:
        if held.progress is not None:
            self._leases.said(held.token, held.progress)
        if held.streams is not None:
            watch = self._leases.watches[held.token]
            self._streams.heard(watch.cell, watch.node, held.streams)

    def _unwatched(self, message: Heartbeat, held: Held) -> None:
        """A worker holds a lease that is not watched here: its task is not loaded, or the lease is over."""
        cell = self._engine.get(held.task_id, held.partition)
        if cell.loading:
            # An ended task leaves memory before the next heartbeat: it is asked about as soon as it is there.
            self._unjudged.setdefault(held.task_id, {})[held.token] = (message.worker, message.incarnation, held)
            _bound(self._unjudged)
        # A result just applied may be listed once more before its acknowledgement is back: only a second time tells.
        elif self._suspects.pop(held.token, None) is None:
            self._suspects[held.token] = message.mono
            _bound(self._suspects)
        else:
            self._judge(cell, message.worker, message.incarnation, held)

    def _loaded(self, cell: Cell) -> None:
        for worker, incarnation, held in self._unjudged.pop(cell.task_id, {}).values():
            if held.token not in self._leases.watches:
                self._judge(cell, worker, incarnation, held)

    def _judge(self, cell: Cell, worker: str, incarnation: str, held: Held) -> None:
        if cell.task is None or not cell.live or cell.flight is not None:
            return
        if held.attempt > cell.task.last_attempt(held.node):
            cell.aheads += 1
            if cell.aheads <= MOST_AHEADS:
                self._engine.reload(cell, "ahead", 0.3)
            return
        stop = Stop(held.token, held.task_id, held.node, held.attempt, "the lease is over", 0.0)
        self._carrier.revoke_unknown(worker, incarnation, stop)


def _read(record: Record) -> FleetMessage:
    if record.refused:
        raise Corrupt(record.refused)
    message = decode_fleet(record.value)
    if why := authority.of_fleet(record, message):
        raise Corrupt(why)
    return message


def _bound(items: dict[str, Any]) -> None:
    if len(items) > MOST_DOUBTS:
        del items[next(iter(items))]
