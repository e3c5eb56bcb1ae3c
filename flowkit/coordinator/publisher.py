"""Sends what acknowledged commits ask for: events to the world, work to the workers, letters about permits to other
coordinators. Nothing goes out before its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowkit.ports import Bus, Clock, Record
from flowkit.service import Supervisor
from flowkit.telemetry import DeadLettered, Telemetry
from flowkit.wire.dead import dead_letter
from flowkit.wire.messages import Mail, WorkItem, encode_facts_batch, encode_work
from flowkit.wire.topics import MAX_MESSAGE_BYTES, WORK_PARTITIONS, Topics, partition_of

RETRY_SEC = 0.3
MAX_FLIGHTS = 8
MAX_WAITING = 100_000
LETTERS_PER_RECORD = 250


@dataclass(slots=True)
class Parcel:
    """A record on its way. `wanted` is asked before it is sent again; `acknowledged` is told once, when it got
    through."""

    record: Record
    wanted: Callable[[], bool] | None = None
    acknowledged: Callable[[], None] | None = None


class Publisher:
    """One queue to the bus. What was not acknowledged is sent again for as long as somebody wants it. `packed`, where
    somebody observes, is told of each message of work, and its answer that it got through."""

    def __init__(self, bus: Bus, topics: Topics, clock: Clock, supervisor: Supervisor, telemetry: Telemetry,
                 sender: str) -> None:  # fmt: skip
        self._bus = bus
        self._topics = topics
        self._clock = clock
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._sender = sender
        self._queue: list[Parcel] = []
        self._work: dict[tuple[str, str], list[WorkItem]] = {}
        self._letters: dict[int, list[Mail]] = {}
        self._wake = asyncio.Event()
        self._flights = 0
        self.packed: Callable[[Sequence[WorkItem]], Callable[[], None]] | None = None

    def send(self, parcel: Parcel) -> None:
        self._queue.append(parcel)
        self._wake.set()

    def work(self, worker: str, incarnation: str, item: WorkItem) -> None:
        """Put an order for a worker into its next batch."""
        to = worker, incarnation
        items = self._work.get(to)
        if items is None:
            items = self._work[to] = []
            self._wake.set()
        items.append(item)

    def tell(self, partition: int, letter: Mail) -> None:
        """Put a letter to the owner of a partition of `facts` into the next batch. It is not sent again."""
        self._letters.setdefault(partition, []).append(letter)
        self._wake.set()

    def dead(self, record: Record, reason: str, task_id: str = "") -> None:
        """Send a message that nobody could read or apply to `dead.v1`, as it was found."""
        self._telemetry.emit(DeadLettered(record.topic, reason, task_id))
        self.send(Parcel(dead_letter(self._topics, record, reason, task_id), wanted=lambda: True))

    @property
    def waiting(self) -> int:
        """How many messages have not been handed to the bus yet."""
        return len(self._queue) + len(self._work)

    @property
    def room(self) -> bool:
        """Whether more may be decided: false while the bus does not take what was decided before."""
        return len(self._queue) < MAX_WAITING

    async def step(self) -> None:
        """Wait for something to send and hand it to the bus; a flight's outcome is awaited elsewhere."""
        await self._wake.wait()
        while self._flights >= MAX_FLIGHTS:
            await asyncio.sleep(0.001)
        self._wake.clear()
        self._pack_work()
        self._pack_letters()
        parcels, self._queue = self._queue, []
        if parcels:
            self._flights += 1
            self._supervisor.spawn(self._fly(parcels), "publish")

    async def _fly(self, parcels: Sequence[Parcel]) -> None:
        try:
            answers = await self._bus.publish([parcel.record for parcel in parcels])
        finally:
            self._flights -= 1
        again = []
        for parcel, ok in zip(parcels, answers, strict=True):
            if ok:
                if parcel.acknowledged is not None:
                    parcel.acknowledged()
            elif parcel.wanted is not None and parcel.wanted():
                again.append(parcel)
        if again:
            await asyncio.sleep(RETRY_SEC)
            self._queue.extend(parcel for parcel in again if parcel.wanted is not None and parcel.wanted())
            self._wake.set()

    def _pack_work(self) -> None:
        packed, self._work = self._work, {}
        for (worker, incarnation), orders in packed.items():
            self._pack(worker, incarnation, orders)

    def _pack_letters(self) -> None:
        packed, self._letters = self._letters, {}
        for partition, letters in packed.items():
            for start in range(0, len(letters), LETTERS_PER_RECORD):
                self._post(partition, letters[start : start + LETTERS_PER_RECORD])

    def _post(self, partition: int, letters: list[Mail]) -> None:
        value = encode_facts_batch(self._sender, "", -1, letters)
        if len(value) > MAX_MESSAGE_BYTES and len(letters) > 1:
            half = len(letters) // 2
            self._post(partition, letters[:half])
            self._post(partition, letters[half:])
            return
        self._queue.append(Parcel(Record(self._topics.facts, partition, value, self._sender.encode())))

    def _pack(self, worker: str, incarnation: str, items: list[WorkItem]) -> None:
        value = encode_work(worker, incarnation, self._sender, items)
        if len(value) > MAX_MESSAGE_BYTES and len(items) > 1:
            parts = max(2, -(-len(value) // (MAX_MESSAGE_BYTES - 4096)))
            share = max(1, -(-len(items) // parts))
            for start in range(0, len(items), share):
                self._pack(worker, incarnation, items[start : start + share])
            return
        partition = partition_of(worker, WORK_PARTITIONS)
        deadline = self._clock.mono() + 5.0
        self._queue.append(
            Parcel(
                Record(self._topics.work, partition, value, worker.encode()),
                wanted=lambda: self._clock.mono() < deadline,
                acknowledged=None if self.packed is None else self.packed(items),
            )
        )
