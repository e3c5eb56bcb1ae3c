"""Ends the leases of workers that fell silent, once it is certain that the silence is theirs (rule 6), and those that
never reached their worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from flowkit.coordinator.cell import Item
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.fleet import Fleet
from flowkit.coordinator.intake import Intake
from flowkit.coordinator.leases import Leases, Watch
from flowkit.coordinator.publisher import Parcel, Publisher
from flowkit.core.reports import Expired
from flowkit.ports import Record, Store
from flowkit.service import Supervisor
from flowkit.telemetry import LeaseExpired, Telemetry
from flowkit.wire.messages import Beacon, encode_message
from flowkit.wire.topics import FLEET_PARTITIONS, Topics, partition_of

BEACON_SEC = 3.0


class Expiry:
    """Before a lease is judged lost: the road from the worker works (a beacon came back), the worker has not renewed in
    the store, and its results, had it sent any, have been read."""

    def __init__(
        self,
        *,
        coordinator_id: str,
        store: Store,
        topics: Topics,
        engine: Engine,
        leases: Leases,
        fleet: Fleet,
        intake: Intake,
        publisher: Publisher,
        supervisor: Supervisor,
        telemetry: Telemetry,
    ) -> None:
        self._coordinator_id = coordinator_id
        self._store = store
        self._topics = topics
        self._engine = engine
        self._leases = leases
        self._fleet = fleet
        self._intake = intake
        self._publisher = publisher
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._checking: set[str] = set()
        self._reading: set[int] = set()
        self._beacons: dict[str, asyncio.Event] = {}
        self._renewals: dict[str, tuple[str, int]] = {}
        self._nonces = count(1)

    async def step(self) -> None:
        """Begin a check of every worker whose leases are overdue, and take back what workers say they never got."""
        self._fleet.forget_silent()
        self._renewals = {t: seen for t, seen in self._renewals.items() if t in self._leases.watches}
        for worker in self._leases.overdue():
            if worker not in self._checking:
                self._checking.add(worker)
                self._supervisor.spawn(self._check(worker), f"expiry-{worker}")
        for partition, watches in self._leases.missed().items():
            if partition not in self._reading:
                self._reading.add(partition)
                self._supervisor.spawn(self._take_back(partition, watches), f"lost-dispatches-{partition}")

    def beacon_back(self, beacon: Beacon) -> None:
        waiting = self._beacons.get(beacon.nonce)
        if waiting is not None and beacon.coordinator == self._coordinator_id:
            waiting.set()

    async def _check(self, worker: str) -> None:
        try:
            suspects = {watch.token for watch in self._late(worker)}
            if not await self.road_works(worker):
                return
            await self.note_renewals(worker)
            late = [watch for watch in self._late(worker) if watch.token in suspects]
            # Each partition for itself: one that cannot be read must not hold up the leases of the others.
            await asyncio.gather(
                *(self._expire_in(p, worker, suspects) for p in {watch.cell.partition for watch in late})
            )
        finally:
            self._checking.discard(worker)

    async def road_works(self, worker: str) -> bool:
        """Whether a beacon sent now, into the worker's own fleet partition, comes back."""
        nonce = f"{self._coordinator_id}.{next(self._nonces)}"
        back = self._beacons[nonce] = asyncio.Event()
        record = Record(
            self._topics.fleet,
            partition_of(worker, FLEET_PARTITIONS),
            encode_message(Beacon(self._coordinator_id, nonce)),
            self._coordinator_id.encode(),
        )
        self._publisher.send(Parcel(record))
        try:
            async with asyncio.timeout(BEACON_SEC):
                await back.wait()
        except TimeoutError:
            return False
        finally:
            del self._beacons[nonce]
        return True

    async def note_renewals(self, worker: str) -> None:
        """A count in the store that was not seen before is a renewal, on receipt."""
        renewal = await self._store.read_renewal(worker)
        if renewal is None:
            return
        mark = (renewal.incarnation, renewal.count)
        for token in renewal.tokens:
            if token in self._leases.watches and self._renewals.get(token) != mark:
                self._renewals[token] = mark
                self._leases.heard(token)

    async def results_read(self, partition: int) -> bool:
        """Whether all results that were in the partition a moment ago have been handed over."""
        return await self._intake.read_up_to_now(partition)

    def _late(self, worker: str) -> list[Watch]:
        return [w for w in self._leases.overdue().get(worker, []) if not (w.cell.dead or w.cell.closing)]

    async def _expire_in(self, partition: int, worker: str, suspects: set[str]) -> None:
        if not await self.results_read(partition):
            return
        view = self._fleet.workers.get(worker)
        for watch in self._late(worker):
            if watch.cell.partition != partition or watch.token not in suspects:
                continue  # what became late since then has not been asked after
            living = view is not None and view.incarnation == watch.incarnation and view.heard_at > watch.heard
            self._expire(watch, unaccepted=living and not watch.named)
        self._engine.pump_dirty()

    async def _take_back(self, partition: int, watches: Sequence[Watch]) -> None:
        """Their worker lives and does not have them: either they never arrived, or their results are in the
        partition."""
        try:
            if await self.results_read(partition):
                for watch in watches:
                    if self._leases.watches.get(watch.token) is watch and not watch.cell.closing:
                        self._expire(watch, unaccepted=True)
                self._engine.pump_dirty()
        finally:
            self._reading.discard(partition)

    def _expire(self, watch: Watch, *, unaccepted: bool) -> None:
        cell = watch.cell
        self._telemetry.emit(LeaseExpired(cell.task_id, watch.node, watch.attempt, watch.worker))
        self._engine.feed(cell, Item(Expired(watch.node, watch.attempt, watch.token, unaccepted)))
