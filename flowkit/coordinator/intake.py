"""Reads `facts`: hands each item to its task's cell, keeps account of offsets, and follows the partitions as they
move."""

from __future__ import annotations

import asyncio
import logging

from flowkit.coordinator import authority
from flowkit.coordinator.cell import Item
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.fleet import Fleet
from flowkit.coordinator.limits import Limits
from flowkit.coordinator.offsets import OffsetTracker, Receipt
from flowkit.coordinator.publisher import Publisher
from flowkit.coordinator.requests import RequestReader
from flowkit.coordinator.takeover import Takeover
from flowkit.core.permits import PermitAsked, PermitDelayed, PermitGranted, PermitOver, PermitWanted
from flowkit.core.reports import TimeReached
from flowkit.errors import Corrupt, UnknownFact
from flowkit.ports import Bus, Member, Record
from flowkit.telemetry import Rebalanced, Telemetry
from flowkit.wire.messages import (
    FactsBatch,
    Knock,
    Mail,
    Told,
    Unreadable,
    decode_facts_batch,
    encode_facts_batch,
)
from flowkit.wire.topics import Topics

FETCH_SEC = 2.0
FLUSH_SEC = 1.4
LAST_OFFSETS_SEC = 0.4

_log = logging.getLogger(__name__)


class Intake:
    """A member of the coordinators' group. What it read is on its way to a commit, never lost, never waited for."""

    def __init__(self, *, bus: Bus, topics: Topics, group: str, engine: Engine, fleet: Fleet, publisher: Publisher,
                 requests: RequestReader, takeover: Takeover, limits: Limits,
                 telemetry: Telemetry) -> None:  # fmt: skip
        self._bus = bus
        self._topics = topics
        self._group = group
        self._engine = engine
        self._fleet = fleet
        self._publisher = publisher
        self._requests = requests
        self._takeover = takeover
        self._telemetry = telemetry
        self._limits = limits
        self._member: Member | None = None
        self._trackers: dict[int, OffsetTracker] = {}

    async def start(self) -> None:
        self._member = await self._bus.join(
            self._topics.facts, self._group, on_revoked=self._revoked, on_assigned=self._assigned
        )

    async def stop(self) -> None:
        """Let every partition go, and leave the group."""
        if self._member is not None:
            await self._revoked(frozenset(self._trackers))
            await self._member.stop()

    # ------------------------------------------------------------------------------------------ reading

    async def step(self) -> None:
        """Read what has come and decide about it."""
        assert self._member is not None
        while not self._publisher.room:
            await asyncio.sleep(0.05)
        for record in await self._member.fetch(FETCH_SEC):
            try:
                self._take(record)
            except Exception as error:  # whatever one record provokes must not cost the others
                _log.error("a record of %s could not be taken", record.topic, exc_info=error)
                self._put_aside(record, error)
        self._engine.pump_dirty()

    def _take(self, record: Record) -> None:
        tracker = self._trackers.get(record.partition)
        if tracker is None:
            return
        try:
            batch = read_facts(record)
        except (Corrupt, UnknownFact) as error:
            tracker.read(record.offset, 0)
            self._publisher.dead(record, str(error))
            return

        view = self._fleet.workers.get(batch.sender)
        if view is not None and view.incarnation == batch.incarnation and batch.held >= 0:
            view.note_held(batch.held)
        receipt = tracker.read(record.offset, len(batch.items))
        engine, partition, signer = self._engine, record.partition, record.signer
        for item in batch.items:
            if type(item) is Told and not signer:  # nearly always
                engine.feed(engine.get(item.task_id, partition), Item(item.report, receipt, item.tenant))
            elif why := authority.of_item(record, item):
                self._refuse(record, item, why, receipt)
            else:
                self._hand_over(record, item, receipt)

    def _hand_over(self, record: Record, item: Told | Mail | Knock | Unreadable, receipt: Receipt) -> None:
        match item:
            case Told(task_id=task_id, tenant=tenant, report=report):
                item_of_worker = Item(report, receipt, tenant, record.signer)
                self._engine.feed(self._engine.get(task_id, record.partition), item_of_worker)
            case Mail(limit_id, tenant, PermitWanted() | PermitOver() as letter):
                self._limits.hear(limit_id, tenant, letter)
                receipt.settle()
            case Mail(task_id, tenant, PermitGranted() | PermitDelayed() | PermitAsked() as letter):
                self._engine.deliver(self._engine.get(task_id, record.partition), Item(letter, receipt, tenant))
            case Knock(task_id=task_id, what="new"):
                self._engine.feed(self._engine.get(task_id, record.partition), Item(TimeReached(), receipt))
            case Knock(task_id=task_id):
                self._engine.get(task_id, record.partition)
                self._requests.read_soon(task_id, receipt)
            case Unreadable(text=text, why=why, task_id=task_id):
                self._publisher.dead(Record(record.topic, record.partition, text, record.key), why, task_id)
                receipt.settle()

    def _refuse(self, record: Record, item: Told | Mail | Knock | Unreadable, why: str, receipt: Receipt) -> None:
        """An item that its signer has no say about."""
        text = item.text if isinstance(item, Unreadable) else encode_facts_batch("", "", -1, [item])
        to = item.to if isinstance(item, Mail) else item.task_id
        self._publisher.dead(Record(record.topic, record.partition, text, record.key), why, to)
        receipt.settle()

    def _put_aside(self, record: Record, error: Exception) -> None:
        self._publisher.dead(record, f"{type(error).__name__}: {error}")
        tracker = self._trackers.get(record.partition)
        if tracker is not None and tracker.position > record.offset:
            tracker.settled(record.offset)
        elif tracker is not None:
            tracker.read(record.offset, 0)

    # ------------------------------------------------------------------------------------------ offsets

    async def commit_offsets(self) -> None:
        """Commit what is settled. A refusal is normal during a rebalance."""
        offsets = {p: at for p, tracker in self._trackers.items() if (at := tracker.to_commit()) is not None}
        if offsets and self._member is not None and await self._member.commit(offsets):
            for partition, offset in offsets.items():
                if partition in self._trackers:
                    self._trackers[partition].committed(offset)

    async def read_up_to_now(self, partition: int, timeout: float = 3.0) -> bool:
        """Whether everything that is in the partition now has been handed over (rule 6)."""
        if self._member is None:
            return False
        try:
            async with asyncio.timeout(timeout):
                end = await self._member.end_offset(partition)
                if end is None:
                    return False
                while not await self._reached(partition, end):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    async def _reached(self, partition: int, end: int) -> bool:
        tracker = self._trackers.get(partition)
        if tracker is None or self._member is None:
            return False
        if tracker.position:
            return tracker.reached(end)
        position = self._member.position(partition)
        if position is None or position < end:
            return False
        # Nothing was handed over yet: make sure that nothing is on its way from the fetch either.
        await asyncio.sleep(0.05)
        return tracker.reached(end)

    # ------------------------------------------------------------------------------------------ partitions

    async def _assigned(self, partitions: frozenset[int]) -> None:
        for partition in partitions:
            self._trackers[partition] = OffsetTracker()
        self._telemetry.emit(Rebalanced(self._engine.coordinator_id, partitions, frozenset()))
        self._takeover.begin(partitions)
        self._engine.gate.again_soon()

    async def _revoked(self, partitions: frozenset[int]) -> None:
        self._telemetry.emit(Rebalanced(self._engine.coordinator_id, frozenset(), partitions))
        try:
            await self._takeover.end(partitions, FLUSH_SEC)
            async with asyncio.timeout(LAST_OFFSETS_SEC):
                await self.commit_offsets()
        except TimeoutError:
            pass  # the next owner reads a few facts again, and finds them stale
        finally:
            for partition in partitions:
                self._trackers.pop(partition, None)


def read_facts(record: Record) -> FactsBatch:
    """Raises `Corrupt` or `UnknownFact` for a record that is not to be taken in."""
    if record.refused:
        raise Corrupt(record.refused)
    batch = decode_facts_batch(record.value)
    if why := authority.of_batch(record, batch):
        raise Corrupt(why)
    return batch
