"""Brings reports to the coordinators: in as few messages as may be, and again until they are acknowledged (rule 5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

from flowkit.core.reports import AttemptReport, Declined, Failed, Released, Started, Streams, Succeeded
from flowkit.ports import Bus, Record
from flowkit.service import Supervisor
from flowkit.wire.codec import dumps
from flowkit.wire.messages import Job, Told, encode_facts_batch
from flowkit.wire.topics import MAX_MESSAGE_BYTES, Topics
from flowkit.worker.attempt import Attempt, Phase

NEWS = (Started, Streams)
MOST_AT_ONCE = 4096
FULL_BYTES = 60 * 1024
FIRST_WAIT_SEC = 0.3
LONGEST_WAIT_SEC = 5.0


@dataclass(slots=True)
class Letter:
    """A report on its way. `size` estimates its bytes; `attempt` is held until the report is acknowledged."""

    told: Told
    partition: int
    size: int
    attempt: Attempt | None = None

    @property
    def stale(self) -> bool:
        """That an attempt has started is no news once it has ended."""
        return isinstance(self.told.report, NEWS) and self.attempt is not None and self.attempt.phase is Phase.DONE

    @property
    def ends(self) -> Attempt | None:
        """The attempt that need not be held any longer once this is acknowledged."""
        return None if isinstance(self.told.report, NEWS) else self.attempt


Parcel = tuple[Record, Sequence[Letter]]


def letter(job: Job, report: AttemptReport, *, output_size: int = 0, attempt: Attempt | None = None) -> Letter:
    # A character of these names is at most three bytes in UTF-8, six if it must be escaped: they are short.
    names = len(job.task_id) + len(job.tenant) + len(job.node) + len(job.token)
    match report:
        case Succeeded(next=chosen):
            more = output_size + (0 if chosen is None else 6 * sum(map(len, chosen)) + 3 * len(chosen))
        case Failed(error=error):
            more = len(dumps(error))
        case Declined(why=why) | Released(why=why):
            more = 6 * len(why)
        case _:
            more = 0
    return Letter(Told(job.task_id, job.tenant, report), job.partition, 100 + 2 * names + more, attempt)


class Outbox:
    """`held` tells how many attempts the worker holds now; `acknowledged` hears of each attempt whose result got
    through.

    A partition has one publish at a time: the bus would keep a second one waiting anyway, and what waits here goes into
    fewer messages. What is for another partition leaves at once: the one result of a narrow task need not wait until
    hundreds of a wide one have landed.
    """

    def __init__(self, *, bus: Bus, topics: Topics, supervisor: Supervisor, sender: str, incarnation: str,
                 held: Callable[[], int], acknowledged: Callable[[Attempt], None]) -> None:  # fmt: skip
        self._bus = bus
        self._topic = topics.facts
        self._supervisor = supervisor
        self._sender = sender
        self._incarnation = incarnation
        self._held = held
        self._acknowledged = acknowledged
        self._waiting: deque[Letter] = deque()
        # Partitions that something goes to, and how many letters wait for each.
        self._flown: set[int] = set()
        self._queued: dict[int, int] = {}
        self._boarding = False
        self._pause: asyncio.TimerHandle | None = None
        self._wait_sec = FIRST_WAIT_SEC
        self._stopped = False
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, new: Letter) -> None:
        """Send it, together with what else comes in this turn of the loop."""
        self._waiting.append(new)
        self._queued[new.partition] = self._queued.get(new.partition, 0) + 1
        self._empty.clear()
        self._depart()

    async def flush(self, timeout: float) -> bool:
        """Wait until everything is acknowledged, `timeout` seconds at most; False if something is not."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()

    def _depart(self) -> None:
        """Have a flight begin in the next turn of the loop, if one may: it takes what waits by then."""
        if not self._waiting:
            if not self._flown:
                self._empty.set()
        elif not self._boarding and self._pause is None and not self._stopped and self._free():
            self._boarding = True
            self._supervisor.spawn(self._fly(), "outbox")

    def _free(self) -> Set[int]:
        """The partitions that something waits for and nothing goes to."""
        return self._queued.keys() - self._flown

    def _take(self) -> list[Letter]:
        if self._pause is not None or self._stopped:
            return []
        if not self._flown:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        free = self._free()
        taken = [letter for letter in self._waiting if letter.partition in free]
        self._waiting = deque(letter for letter in self._waiting if letter.partition not in free)
        return taken

    async def _fly(self) -> None:
        self._boarding = False
        late: Sequence[Letter] = (letters := self._take())
        if not letters:
            return
        going = _by_partition(letters)
        self._take_away(going)
        self._flown |= going.keys()
        try:
            parcels = self._pack([letter for letter in letters if not letter.stale])
            arrived = await self._bus.publish([record for record, _ in parcels]) if parcels else []
            late = self._landed(parcels, arrived)
        finally:
            self._flown -= going.keys()
            self._again(late)
            self._depart()

    def _take_away(self, going: Mapping[int, int]) -> None:
        for partition, count in going.items():
            if left := self._queued[partition] - count:
                self._queued[partition] = left
            else:
                del self._queued[partition]

    def _landed(self, parcels: list[Parcel], arrived: Sequence[bool]) -> list[Letter]:
        """Let go of what arrived; the answer is what did not."""
        late: list[Letter] = []
        for (_, letters), ok in zip(parcels, arrived, strict=True):
            if not ok:
                late.extend(letters)
                continue
            for letter in letters:
                if (attempt := letter.ends) is not None:
                    self._acknowledged(attempt)
        return late

    def _again(self, late: Sequence[Letter]) -> None:
        if not late:
            self._wait_sec = FIRST_WAIT_SEC
            return
        self._waiting.extendleft(reversed(late))
        for partition, count in _by_partition(late).items():
            self._queued[partition] = self._queued.get(partition, 0) + count
        if self._pause is None and not self._stopped:
            self._pause = asyncio.get_running_loop().call_later(self._wait_sec, self._resume)
            self._wait_sec = min(LONGEST_WAIT_SEC, self._wait_sec * 2)

    def _resume(self) -> None:
        self._pause = None
        self._depart()

    def _pack(self, letters: list[Letter]) -> list[Parcel]:
        by_partition: dict[int, list[list[Letter]]] = {}
        sizes: dict[int, int] = {}
        for letter in letters:
            chunks = by_partition.setdefault(letter.partition, [])
            size = sizes.get(letter.partition, 0) + letter.size
            if not chunks or size > FULL_BYTES:
                chunks.append([])
                size = letter.size
            chunks[-1].append(letter)
            sizes[letter.partition] = size
        parcels: list[Parcel] = []
        for chunks in by_partition.values():
            for chunk in chunks:
                self._seal(chunk, parcels)
        return parcels

    def _seal(self, letters: list[Letter], parcels: list[Parcel]) -> None:
        value = encode_facts_batch(self._sender, self._incarnation, self._held(), [letter.told for letter in letters])
        if len(value) > MAX_MESSAGE_BYTES and len(letters) > 1:  # the estimate was too low
            middle = len(letters) // 2
            self._seal(letters[:middle], parcels)
            self._seal(letters[middle:], parcels)
            return
        if len(value) > MAX_MESSAGE_BYTES:
            letters = [_shortened(letters[0])]
            value = encode_facts_batch(self._sender, self._incarnation, self._held(), [letters[0].told])
        first = letters[0]
        key = first.told.task_id.encode("utf-8", "surrogatepass")
        parcels.append((Record(self._topic, first.partition, value, key), letters))


def _by_partition(letters: Sequence[Letter]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for letter in letters:
        counts[letter.partition] = counts.get(letter.partition, 0) + 1
    return counts


def _shortened(letter: Letter) -> Letter:
    """A report that no message can carry becomes a failure that says so: silence would be worse."""
    told, report = letter.told, letter.told.report
    error = {"code": "output_too_large", "message": "the result is too large for a message"}
    short = Failed(report.node, report.attempt, report.token, error, permanent=True)
    return Letter(Told(told.task_id, told.tenant, short), letter.partition, 500, letter.attempt)
