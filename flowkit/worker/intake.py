"""Receives what coordinators send to this worker, and hands it over; it neither waits for anybody nor runs anything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from flowkit.errors import Corrupt, UnknownFact
from flowkit.ports import Bus, Record, Tail
from flowkit.service import Supervisor
from flowkit.telemetry import DeadLettered, Telemetry
from flowkit.wire.codec import dumps
from flowkit.wire.dead import dead_letter
from flowkit.wire.messages import Job, WorkItem, decode_control, decode_work
from flowkit.wire.seals import may_speak_for
from flowkit.wire.topics import WORK_PARTITIONS, Topics, partition_of

FETCH_SEC = 5.0
RETRY_SEC = 0.5
MOST_DEAD = 1000


class Intake:
    """Tails the worker's partition of `work`, which others may share, and `control`. `deliver` gets the jobs and
    stops of this incarnation, `say_hello` is called when a coordinator asks who is there."""

    def __init__(self, *, bus: Bus, topics: Topics, supervisor: Supervisor, telemetry: Telemetry, worker_id: str,
                 incarnation: str, deliver: Callable[[Sequence[WorkItem]], None],
                 say_hello: Callable[[], None]) -> None:  # fmt: skip
        self._bus = bus
        self._topics = topics
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._key = worker_id.encode()
        self._incarnation = incarnation
        self._deliver = deliver
        self._say_hello = say_hello
        self._work: Tail | None = None
        self._control: Tail | None = None
        self._dead: deque[Record] = deque()

    async def open(self) -> None:
        """Begin to read: what is sent from now on will be seen."""
        self._work = await self._bus.tail(self._topics.work, [partition_of(self._worker_id, WORK_PARTITIONS)])
        self._control = await self._bus.tail(self._topics.control)
        self._supervisor.loop("work", self.step_work)
        self._supervisor.loop("control", self.step_control)

    async def close(self) -> None:
        for tail in (self._work, self._control):
            if tail is not None:
                await tail.stop()

    async def step_work(self) -> None:
        """One fetch of `work`."""
        assert self._work is not None
        for record in await self._work.fetch(FETCH_SEC):
            if record.key == self._key:
                self._read(record)

    async def step_control(self) -> None:
        """One fetch of `control`; several askers get one answer."""
        assert self._control is not None
        asked = False
        for record in await self._control.fetch(FETCH_SEC):
            try:
                decode_control(record.value)
                asked = True
            except Corrupt as error:
                self._bury(record, str(error))
        if asked:
            self._say_hello()

    def _read(self, record: Record) -> None:
        try:
            if record.refused:
                raise Corrupt(record.refused)
            if not may_speak_for(record.signer, self._worker_id):
                raise Corrupt(f"signed by the pool {record.signer!r}, for {self._worker_id!r}")
            batch = decode_work(record.value)
            if batch.worker != self._worker_id:
                raise Corrupt(f"addressed to {batch.worker!r} under the key of {self._worker_id!r}")
        except (Corrupt, UnknownFact) as error:
            self._bury(record, str(error))
            return
        if batch.incarnation != self._incarnation:
            self._telemetry.count("work_for_another_incarnation", len(batch.items))
            return
        for unreadable in batch.unreadable:
            self._bury(replace(record, value=unreadable.text), unreadable.why)
        self._deliver([item for item in batch.items if self._can_answer(record, item)])

    def _can_answer(self, record: Record, item: WorkItem) -> bool:
        """A report that could never be sent would hold up all others."""
        if not isinstance(item, Job) or 0 <= item.partition < self._topics.partitions:
            return True
        reason = f"there is no partition {item.partition} of {self._topics.facts}"
        self._bury(replace(record, value=dumps(item)), reason)
        return False

    def _bury(self, record: Record, reason: str) -> None:
        """Send an unreadable message to `dead.v1`, as it was found. A flood of them is only counted."""
        self._telemetry.emit(DeadLettered(record.topic, reason))
        if len(self._dead) >= MOST_DEAD:
            self._telemetry.count("dead_letters_dropped")
            return
        self._dead.append(dead_letter(self._topics, record, reason))
        if len(self._dead) == 1:
            self._supervisor.spawn(self._bury_all(), "dead-letters")

    async def _bury_all(self) -> None:
        while self._dead:
            (buried,) = await self._bus.publish([self._dead[0]])
            if buried:
                self._dead.popleft()
            else:
                await asyncio.sleep(RETRY_SEC)
