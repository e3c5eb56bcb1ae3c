"""Gives out the permits of the limits that are owned here. A permit is given once the record that names its holder is
acknowledged; whoever owned the limit before, and does not know that record, can change nothing any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from flowkit.coordinator.dispatcher import AGEING_SEC
from flowkit.core.limiter import Limiter, Want, Who
from flowkit.core.permits import PermitAsked, PermitDelayed, PermitGranted, PermitOver, PermitWanted, ToLimit, ToTask
from flowkit.errors import Corrupt, UnknownFact
from flowkit.ports import Clock, LimitRecord, LimitSwap, Outcome, Store
from flowkit.telemetry import LimitReloaded, LimitUnreadable, Telemetry
from flowkit.wire.limits import decode_limiter, encode_limiter
from flowkit.wire.topics import partition_of

BATCH = 500
TICK_SEC = 1.0
"""How often holders are asked, those that wait told their places, and records tidied up."""
ASK_SEC = 5.0
"""A holder that others wait for is asked so often whether it still is one..."""
ASK_IDLY_SEC = 10.0
"""... and any holder so often."""
UNHEARD_SEC = 60.0
"""Whoever waits says so again more often than this."""
RETRY_SEC = 0.3
LOOK_AGAIN_SEC = 60.0
"""So often an owner looks for limits that somebody holds and of which nobody speaks: one that was written while the
partition changed hands, by who had it before, may have been missed."""

Send = Callable[[str, int, str, ToTask], None]


@dataclass(slots=True)
class Meter:
    """A limit in the memory of its owner.

    `limiter` is None until the record was read whose `stamp` this is; `inbox` is what was said since, and `lost` who
    waited when it had to be read again. `asked` says when holders were asked last, `heard` when those that wait were
    heard of (monotonic); `curious` are those to be told their place. `gone`: holders that the record names are not any
    more; `untidy`: it is to be written though nobody was granted anything. `wake_at` is when time lets the next one
    through (epoch seconds).
    """

    limit_id: str
    partition: int
    limiter: Limiter | None = None
    stamp: str = ""
    inbox: deque[tuple[str, ToLimit]] = field(default_factory=deque)
    lost: list[Want] = field(default_factory=list)
    asked: dict[Who, float] = field(default_factory=dict)
    heard: dict[Who, float] = field(default_factory=dict)
    curious: dict[Who, None] = field(default_factory=dict)
    gone: bool = False
    untidy: bool = False
    wake_at: float | None = None
    load_at: float = 0.0


class Limits:
    """`send` brings a letter to a task; `decide` lets the engine decide about what was brought within this process. A
    point of priority is worth `ageing_sec` of waiting."""

    def __init__(self, *, store: Store, clock: Clock, telemetry: Telemetry, owned: Callable[[], set[int]],
                 partitions: int, coordinator_id: str, ageing_sec: float = AGEING_SEC) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._owned = owned
        self._partitions = partitions
        self._coordinator_id = coordinator_id
        self._ageing_sec = ageing_sec
        self.send: Send = lambda task_id, partition, tenant, letter: None
        self.decide: Callable[[], None] = lambda: None
        self.meters: dict[str, Meter] = {}
        self._due: dict[str, Meter] = {}
        self._taken: dict[int, str] = {}  # up to which limit a partition's records were found
        self._look_at: dict[int, float] = {}  # when to look for those of a partition
        self._wake = asyncio.Event()
        self._stamps = count(1)
        self._tick_at = 0.0

    def hear(self, limit_id: str, tenant: str, letter: ToLimit) -> None:
        """A letter for a limit; for one that is not owned here it comes to nothing."""
        if isinstance(letter, PermitWanted) and not letter.sound:
            self._telemetry.count("permits_wanted_in_vain")
            return
        meter = self.meters.get(limit_id)
        if meter is None:
            partition = partition_of(limit_id, self._partitions)
            if partition not in self._owned():
                return
            meter = self.meters[limit_id] = Meter(limit_id, partition)
        meter.inbox.append((tenant, letter))
        self._touch(meter)

    async def step(self) -> None:
        """Wait for something to do: take in what was said, give out what there is, and say so once it is recorded."""
        await self._sleep()
        owned = set(self._owned())
        self._let_go(owned)
        await self._take_up(owned)
        if self._clock.mono() >= self._tick_at:
            self._tick_at = self._clock.mono() + TICK_SEC
            self._tick()
        due, self._due = self._due, {}
        try:
            await self._load([meter for meter in due.values() if meter.limiter is None])
        except BaseException:
            self._due = due | self._due
            raise
        await self._decide([meter for meter in due.values() if meter.limiter is not None])
        self.decide()

    def _touch(self, meter: Meter) -> None:
        self._due[meter.limit_id] = meter
        self._wake.set()

    async def _sleep(self) -> None:
        """Until something was said, time lets somebody through, or the next tick."""
        wall = self._clock.wall()
        waits = [meter.wake_at - wall for meter in self.meters.values() if meter.wake_at is not None]
        wait = min([*waits, self._tick_at - self._clock.mono(), TICK_SEC])
        if wait > 0:
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass  # then it is time
        self._wake.clear()
        wall = self._clock.wall()
        for meter in self.meters.values():
            if meter.wake_at is not None and meter.wake_at <= wall:
                self._due[meter.limit_id] = meter

    # ------------------------------------------------------------------------------------------ owning, loading

    def _let_go(self, owned: set[int]) -> None:
        for partition in set(self._taken) - owned:
            del self._taken[partition], self._look_at[partition]
        for meter in [meter for meter in self.meters.values() if meter.partition not in owned]:
            self._drop(meter)

    def _drop(self, meter: Meter) -> None:
        del self.meters[meter.limit_id]
        self._due.pop(meter.limit_id, None)

    async def _take_up(self, owned: set[int]) -> None:
        """Take up the limits that somebody holds, of new partitions first of all: what they hold may be over long
        since."""
        now = self._clock.mono()
        for partition in owned:
            after = self._taken.setdefault(partition, "")
            if now < self._look_at.setdefault(partition, 0.0):
                continue
            records = await self._store.limits_of(partition, limit=BATCH, after=after)
            for record in records:
                if record.limit_id not in self.meters:
                    self.meters[record.limit_id] = Meter(record.limit_id, partition)
                    self._touch(self.meters[record.limit_id])
            if len(records) == BATCH:
                self._taken[partition] = records[-1].limit_id
            else:
                self._taken[partition], self._look_at[partition] = "", now + LOOK_AGAIN_SEC

    async def _load(self, meters: list[Meter]) -> None:
        now = self._clock.mono()
        meters = [meter for meter in meters if meter.load_at <= now]
        for start in range(0, len(meters), BATCH):
            part = meters[start : start + BATCH]
            records = {one.limit_id: one for one in await self._store.read_limits([meter.limit_id for meter in part])}
            for meter in part:
                self._loaded(meter, records.get(meter.limit_id))

    def _loaded(self, meter: Meter, record: LimitRecord | None) -> None:
        try:
            limiter = Limiter.of(()) if record is None else decode_limiter(record.body, self._clock.wall())
        except (Corrupt, UnknownFact) as error:
            # Nobody knows who holds what, so nothing is given out. Those that wait will say so again.
            self._telemetry.emit(LimitUnreadable(meter.limit_id, str(error)))
            meter.load_at = self._clock.mono() + ASK_IDLY_SEC
            meter.inbox.clear()
            return
        meter.limiter, meter.stamp = limiter, "" if record is None else record.stamp
        meter.gone, meter.untidy, meter.asked = False, False, {}
        for want in meter.lost:
            if not limiter.want(want):
                self._tell_granted(meter, want)
        meter.lost = []

    def _reload(self, meter: Meter, limiter: Limiter, outcome: Outcome, granted: list[Want]) -> None:
        """Somebody else has been at work, or it is not known what was written: what is recorded counts."""
        self._telemetry.emit(LimitReloaded(meter.limit_id, outcome.value))
        meter.lost = [*granted, *(limiter.line.wants[who] for who in limiter.line.in_order(self._clock.mono()))]
        meter.limiter, meter.wake_at = None, None
        meter.load_at = self._clock.mono() + (RETRY_SEC if outcome is Outcome.UNKNOWN else 0.0)
        self._touch(meter)

    # ------------------------------------------------------------------------------------------ deciding

    async def _decide(self, meters: list[Meter]) -> None:
        now = self._clock.wall()
        flights: list[tuple[Meter, Limiter, list[Want], LimitSwap]] = []
        for meter in meters:
            limiter = meter.limiter
            assert limiter is not None
            self._read_inbox(meter, limiter)
            granted = limiter.grant(now, self._clock.mono())
            meter.wake_at = limiter.wake_at(now)
            if granted or meter.untidy:
                flights.append((meter, limiter, granted, self._swap(meter, limiter, now)))
            elif not (meter.stamp or meter.gone or limiter.line or limiter.holders):
                self._drop(meter)
        for start in range(0, len(flights), BATCH):
            part = flights[start : start + BATCH]
            outcomes = await self._store.swap_limits([swap for _, _, _, swap in part])
            for (meter, limiter, granted, swap), outcome in zip(part, outcomes, strict=True):
                if outcome is Outcome.OK:
                    self._swapped(meter, granted, swap)
                else:
                    self._reload(meter, limiter, outcome, granted)

    def _read_inbox(self, meter: Meter, limiter: Limiter) -> None:
        now = self._clock.mono()
        while meter.inbox:
            tenant, letter = meter.inbox.popleft()
            who = (letter.task_id, letter.node, letter.claim)
            match letter:
                case PermitWanted():
                    worth = letter.priority * self._ageing_sec
                    want = Want(tenant, letter, now - max(0.0, letter.waited), worth)
                    if not limiter.want(want):
                        self._tell_granted(meter, want)
                        continue
                    meter.heard[who] = now
                    meter.curious[who] = None
                case PermitOver():
                    meter.gone = limiter.release(who) or meter.gone
                    meter.asked.pop(who, None)
                    meter.heard.pop(who, None)
                    meter.curious.pop(who, None)

    def _swap(self, meter: Meter, limiter: Limiter, now: float) -> LimitSwap:
        body = "" if limiter.blank(now) else encode_limiter(limiter, now)
        stamp = f"{self._coordinator_id}.{next(self._stamps)}"
        return LimitSwap(meter.limit_id, meter.partition, meter.stamp, stamp, body)

    def _swapped(self, meter: Meter, granted: list[Want], swap: LimitSwap) -> None:
        meter.stamp = swap.stamp if swap.body else ""
        meter.gone = meter.untidy = False
        now = self._clock.mono()
        for want in granted:
            meter.heard.pop(want.who, None)
            meter.curious.pop(want.who, None)
            meter.asked[want.who] = now
            self._tell_granted(meter, want)

    def _tell_granted(self, meter: Meter, want: Want) -> None:
        said = want.said
        self.send(said.task_id, said.partition, want.tenant, PermitGranted(meter.limit_id, said.node, said.claim))

    # ------------------------------------------------------------------------------------------ time

    def _tick(self) -> None:
        now, wall = self._clock.mono(), self._clock.wall()
        for meter in self.meters.values():
            limiter = meter.limiter
            if limiter is None:
                self._touch(meter)
                continue
            self._ask(meter, limiter, now)
            self._tell_places(meter, limiter)
            for who in [who for who, at in meter.heard.items() if now - at > UNHEARD_SEC]:
                del meter.heard[who]
                limiter.line.remove(who)
            # That holders are gone need not be recorded before the next grant: they stay gone.
            meter.untidy = meter.gone or bool(meter.stamp and limiter.blank(wall))
            if meter.untidy or not (limiter.holders or limiter.line):
                self._touch(meter)

    def _ask(self, meter: Meter, limiter: Limiter, now: float) -> None:
        """A holder whose last word was lost with its messenger would hold its permit for ever."""
        rest = ASK_SEC if limiter.line else ASK_IDLY_SEC
        for who, holder in limiter.holders.items():
            asked = meter.asked.get(who)
            if asked is None or now - asked > rest:
                meter.asked[who] = now
                task_id, node, claim = who
                self.send(task_id, holder.partition, holder.tenant, PermitAsked(meter.limit_id, node, claim))

    def _tell_places(self, meter: Meter, limiter: Limiter) -> None:
        if not meter.curious:
            return
        for place, who in enumerate(limiter.line.in_order(self._clock.mono())):
            want = limiter.line.wants[who]
            if who in meter.curious:
                task_id, node, claim = who
                delayed = PermitDelayed(meter.limit_id, node, claim, place, limiter.held)
                self.send(task_id, want.said.partition, want.tenant, delayed)
        meter.curious.clear()
