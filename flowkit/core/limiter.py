"""Who holds a limit's permits, who waits for them, and who is next. Pure: knows neither store nor clock.

What must outlive its owner are the holders, and for a rate the time up to which permits are given out. Those that wait
ask again by themselves.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from typing import Final

from flowkit.core.immutable import immutable
from flowkit.core.permits import Claim, PermitWanted

MOST_HOLDERS: Final = 2000
"""So many permits of one limit are out at a time, whatever its `max`: they stand in one record."""
SLACK_SEC: Final = 0.1
"""How late a rate's owner may be, while somebody waits, without the rate being lower for it."""

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
    """A claim that waits, as the task's owner last said it: since when, in the monotonic clock of the limit's owner,
    and how many seconds of waiting its priority is `worth`."""

    tenant: str
    said: PermitWanted
    since: float = 0.0
    worth: float = 0.0

    @property
    def who(self) -> Who:
        return self.said.task_id, self.said.node, self.said.claim


class _Lane:
    """What one task has waiting at one priority. `key` is since when it waits, moved by what its priority is worth: its
    first claim's, until it had a turn; since then, that of its last turn. `number` is that of its place among its
    tenant's; others that it has there do not count."""

    __slots__ = ("claims", "had_turn", "key", "name", "number", "worth")

    def __init__(self, name: tuple[str, str, int], worth: float) -> None:
        self.name = name
        self.worth = worth
        self.key = inf
        self.number = 0
        self.had_turn = False
        self.claims: list[tuple[float, int, Who]] = []


class Line:
    """Those that wait. Tenants take turns; of a tenant that task comes first that waits for longest, its priority
    counted as waiting. Who had a turn and wants more waits anew, so tasks take turns, too. A place costs O(log n)."""

    def __init__(self) -> None:
        self.wants: dict[Who, Want] = {}
        self._lanes: dict[tuple[str, str, int], _Lane] = {}
        self._tenants: dict[str, list[tuple[float, int, _Lane]]] = {}  # in the order of their turns
        self._count = 0

    def __len__(self) -> int:
        return len(self.wants)

    def add(self, want: Want) -> None:
        """Take a place; whoever waits already keeps its own."""
        who, said, there = want.who, want.said, self.wants.get(want.who)
        if there is not None:
            if there.said.priority == said.priority and there.tenant == want.tenant:
                self.wants[who] = replace(there, said=said)
            return  # what a task is does not change: whoever says so is mistaken
        name = (want.tenant, said.task_id, said.priority)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, want.worth)
        self._count += 1
        heapq.heappush(lane.claims, (want.since, self._count, who))
        if not lane.had_turn and want.since - want.worth < lane.key:
            lane.key, lane.number = want.since - want.worth, self._count
            heapq.heappush(self._tenants.setdefault(want.tenant, []), (lane.key, self._count, lane))
        self.wants[who] = want

    def remove(self, who: Who) -> None:
        self.wants.pop(who, None)  # its place in a lane is passed over

    def next(self) -> Want | None:
        """Whoever is next, who stays there until taken."""
        while self._tenants:
            tenant, lanes = next(iter(self._tenants.items()))
            while lanes:
                _, number, lane = lanes[0]
                if number == lane.number and (first := self._first(lane)) is not None:
                    return first
                heapq.heappop(lanes)
                if number == lane.number:
                    self._forget(lane)
            del self._tenants[tenant]
        return None

    def _first(self, lane: _Lane) -> Want | None:
        while lane.claims:
            if (want := self.wants.get(lane.claims[0][2])) is not None:
                return want
            heapq.heappop(lane.claims)
        return None

    def take(self, want: Want, now: float) -> None:
        """The next one leaves; its tenant goes to the end of the round, what its task still wants waits from now."""
        lanes = self._tenants.pop(want.tenant)
        lane = lanes[0][2]
        heapq.heappop(lane.claims)
        del self.wants[want.who]
        if lane.claims:
            self._count += 1
            lane.key, lane.number, lane.had_turn = now - lane.worth, self._count, True
            heapq.heapreplace(lanes, (lane.key, self._count, lane))
        else:
            heapq.heappop(lanes)
            self._forget(lane)
        if lanes:
            self._tenants[want.tenant] = lanes

    def _forget(self, lane: _Lane) -> None:
        del self._lanes[lane.name]
        lane.number = 0

    def in_order(self, now: float) -> Iterator[Who]:
        """All that wait, in the order of their turns as things stand."""
        last = count(self._count + 1)
        rounds: deque[list[tuple[float, int, _Lane, deque[Who]]]] = deque()
        for lanes in self._tenants.values():
            there = [(*place, self._living(place[2])) for place in sorted(lanes) if place[1] == place[2].number]
            rounds.append([entry for entry in there if entry[3]])
        while rounds:
            if lines := rounds.popleft():
                _, _, lane, claims = lines[0]
                yield claims.popleft()
                if claims:
                    heapq.heapreplace(lines, (now - lane.worth, next(last), lane, claims))
                else:
                    heapq.heappop(lines)
                rounds.append(lines)

    def _living(self, lane: _Lane) -> deque[Who]:
        return deque(dict.fromkeys(who for _, _, who in sorted(lane.claims) if who in self.wants))


@dataclass(slots=True)
class Limiter:
    """One limit. `paid_until`: a rate's theoretical arrival time (GCRA), in epoch seconds of whoever was its owner;
    `waited`: whether somebody was left waiting by the last grant."""

    holders: dict[Who, Holder]
    line: Line
    paid_until: float = 0.0
    held: int = 0
    waited: bool = False

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

    def grant(self, now: float, mono: float) -> list[Want]:
        """Give out what there is, in order; whoever is next and does not fit is waited for. `now` is epoch seconds, by
        which rates go; `mono` monotonic ones, by which those that wait do."""
        granted: list[Want] = []
        while (want := self.line.next()) is not None and self._fits(want.said, now):
            self.line.take(want, mono)
            said = want.said
            if said.most is None:
                self.paid_until = self._paid(said, now)
            self.holders[want.who] = Holder(want.who, said.partition, want.tenant, said.weight)
            self.held += said.weight
            granted.append(want)
        self.waited = want is not None
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
        # Up to when the rate is used up once this one is let through. After a pause nobody is late.
        since = now - SLACK_SEC if self.waited else now
        return max(self.paid_until, since) + said.weight * said.per_sec / said.rate


def _ahead(said: PermitWanted) -> float:
    """How far ahead of time a rate may be used up: what `burst` allows at once."""
    return said.burst * said.per_sec / said.rate
