"""Who holds a limit's permits, who waits for them, and who is next. Pure: knows neither store nor clock.

What must outlive its owner are the holders, and for a rate the time up to which permits are given out. Those that wait
ask again by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from flowkit.core.immutable import immutable
from flowkit.core.permits import Claim, PermitWanted

MOST_HOLDERS: Final = 2000
"""So many permits of one limit are out at a time, whatever its `max`: they stand in one record."""
SLACK_SEC: Final = 0.1
"""How late a rate's owner may be without the rate being lower for it."""

Who = tuple[str, str, Claim]
"""Task, node, claim: for whom a permit is."""


@immutable
class Holder:
    """Who holds a permit: where to ask for them (`partition`, `tenant`), and how much of it."""

    who: Who
    partition: int
    tenant: str
    weight: int


@immutable
class Want:
    """A claim that waits, as the task's owner last said it."""

    tenant: str
    said: PermitWanted

    @property
    def who(self) -> Who:
        return self.said.task_id, self.said.node, self.said.claim


class Line:
    """Those that wait: the highest priority first; within one, tenants take turns, and a tenant's tasks do."""

    def __init__(self) -> None:
        self.wants: dict[Who, Want] = {}
        self._lanes: dict[int, dict[str, dict[str, deque[Who]]]] = {}

    def __len__(self) -> int:
        return len(self.wants)

    def add(self, want: Want) -> None:
        """Take a place at the end; whoever waits already keeps its own."""
        who, said = want.who, want.said
        if who not in self.wants:
            tenants = self._lanes.setdefault(said.priority, {})
            tenants.setdefault(want.tenant, {}).setdefault(said.task_id, deque()).append(who)
        elif self.wants[who].said.priority != said.priority or self.wants[who].tenant != want.tenant:
            return  # what a task is does not change: whoever says so is mistaken
        self.wants[who] = want

    def remove(self, who: Who) -> None:
        self.wants.pop(who, None)  # its place in a lane is passed over

    def next(self) -> Want | None:
        """Whoever is next, who stays there until taken."""
        for priority in sorted(self._lanes, reverse=True):
            tenants = self._lanes[priority]
            while tenants:
                tenant = next(iter(tenants))
                tasks = tenants[tenant]
                task_id = next(iter(tasks))
                lane = tasks[task_id]
                while lane and lane[0] not in self.wants:
                    lane.popleft()
                if lane:
                    return self.wants[lane[0]]
                del tasks[task_id]
                if not tasks:
                    del tenants[tenant]
            del self._lanes[priority]
        return None

    def take(self, want: Want) -> None:
        """The next one leaves; its task and its tenant go to the end of their rounds."""
        tenants = self._lanes[want.said.priority]
        tasks = tenants.pop(want.tenant)
        lane = tasks.pop(want.said.task_id)
        lane.popleft()
        del self.wants[want.who]
        if lane:
            tasks[want.said.task_id] = lane
        if tasks:
            tenants[want.tenant] = tasks

    def in_order(self) -> Iterator[Who]:
        """All that wait, in the order of their turns as things stand."""
        for _, tenants in sorted(self._lanes.items(), reverse=True):
            rounds = deque(
                deque(deque(who for who in lane if who in self.wants) for lane in tasks.values())
                for tasks in tenants.values()
            )
            while rounds:
                tasks = rounds.popleft()
                while tasks and not tasks[0]:
                    tasks.popleft()
                if tasks:
                    lane = tasks.popleft()
                    yield lane.popleft()
                    tasks.append(lane)
                    rounds.append(tasks)


@dataclass(slots=True)
class Limiter:
    """One limit. `paid_until`: a rate's theoretical arrival time (GCRA), in epoch seconds of whoever was its owner."""

    holders: dict[Who, Holder]
    line: Line
    paid_until: float = 0.0
    held: int = 0

    @classmethod
    def of(cls, holders: Iterable[Holder], paid_until: float = 0.0) -> Limiter:
        """The limit as its record says: nobody waits yet."""
        limiter = cls({holder.who: holder for holder in holders}, Line(), paid_until)
        limiter.held = sum(holder.weight for holder in limiter.holders.values())
        return limiter

    def want(self, want: Want) -> bool:
        """A claim wants a permit: False if it holds it."""
        if want.who in self.holders:
            return False
        self.line.add(want)
        return True

    def release(self, who: Who) -> bool:
        """A claim is over: True if it held a permit."""
        self.line.remove(who)
        holder = self.holders.pop(who, None)
        if holder is None:
            return False
        self.held -= holder.weight
        return True

    def grant(self, now: float) -> list[Want]:
        """Give out what there is, in order; whoever is next and does not fit is waited for."""
        granted: list[Want] = []
        while (want := self.line.next()) is not None and self._fits(want.said, now):
            self.line.take(want)
            said = want.said
            if said.most is None:
                self.paid_until = self._paid(said, now)
            self.holders[want.who] = Holder(want.who, said.partition, want.tenant, said.weight)
            self.held += said.weight
            granted.append(want)
        return granted

    def wake_at(self, now: float) -> float | None:
        """When time alone lets the next one through; None if it is not time that it waits for."""
        want = self.line.next()
        if want is None or want.said.most is not None or len(self.holders) >= MOST_HOLDERS:
            return None
        return now + max(0.0, self._paid(want.said, now) - _ahead(want.said) - now)

    def blank(self, now: float) -> bool:
        """Whether it is as if nobody had ever got a permit."""
        return not self.holders and self.paid_until <= now

    def _fits(self, said: PermitWanted, now: float) -> bool:
        if len(self.holders) >= MOST_HOLDERS:
            return False
        if said.most is not None:
            return self.held + said.weight <= said.most
        return self._paid(said, now) - _ahead(said) <= now

    def _paid(self, said: PermitWanted, now: float) -> float:
        # Up to when the rate is used up once this one is let through.
        return max(self.paid_until, now - SLACK_SEC) + said.weight * said.per_sec / said.rate


def _ahead(said: PermitWanted) -> float:
    """How far ahead of time a rate may be used up: what `burst` allows at once."""
    return said.burst * said.per_sec / said.rate
