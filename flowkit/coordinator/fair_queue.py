"""Who waits for one kind of room, in the order in which room is to be given."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[float, int]

ROOMY = 64


class Place(Generic[T]):
    """An item's place in a queue; whoever holds it may give it up. Then it lets the item go, which may be large."""

    __slots__ = ("__weakref__", "_line", "item", "key", "tenant", "waits")

    def __init__(self, line: _Line[T], key: Key, item: T) -> None:
        self.tenant = line.tenant
        self.key = key
        self.item = item
        self.waits = True
        self._line = line


class _Line(Generic[T]):
    """What one tenant has waiting. `tag` is the tenant's turn, in the queue's own time; `size` counts the living."""

    __slots__ = ("heap", "size", "tag", "tenant")

    def __init__(self, tenant: str, tag: float) -> None:
        self.tenant = tenant
        self.tag = tag
        self.heap: list[tuple[Key, int, Place[T]]] = []
        self.size = 0

    def first(self) -> Place[T]:
        """The living place with the least key; there must be one."""
        heap = self.heap
        while not heap[0][2].waits:
            heapq.heappop(heap)
        return heap[0][2]

    def tidy(self) -> None:
        """Let go of places that were given up."""
        self.heap = [entry for entry in self.heap if entry[2].waits]
        heapq.heapify(self.heap)


class FairQueue(Generic[T]):
    """Tenants take turns in proportion to their weights; of one tenant, the least key comes first. Keys differ.

    Each tenant has a tag: where its next turn stands in the queue's time. `charge` moves it on by what the tenant got,
    divided by its weight, and the time follows the turns taken. Who did not wait does not save up turns: a tenant that
    comes late begins at the present time, so it is served next, and no more often than the others from then on.
    Everything costs O(log n), on average.
    """

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._now = 0.0
        self._lines: dict[str, _Line[T]] = {}  # none of them, empty or not, lies behind the present
        # By the tag that a line had when it was put here: tags only grow, and the first is put right when looked at.
        self._turns: list[tuple[float, int, _Line[T]]] = []
        self._ahead: dict[str, float] = {}  # tags of tenants that have nothing waiting, but got more than others
        self._most_ahead = ROOMY
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Place[T]]:
        """Everybody who waits, in no order."""
        return (place for line in self._lines.values() for *_, place in line.heap if place.waits)

    def push(self, tenant: str, key: Key, item: T) -> Place[T]:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = _Line(tenant, max(self._ahead.pop(tenant, 0.0), self._now))
            self._list(line)
        place = Place(line, key, item)
        self._count += 1  # who comes back to its old place meets the one it gave up
        heapq.heappush(line.heap, (key, self._count, place))
        line.size += 1
        self._size += 1
        return place

    def remove(self, place: Place[T]) -> None:
        """Give a place up. Nothing happens to one that was given up before."""
        if not place.waits:
            return
        place.waits = False
        del place.item
        line = place._line
        line.size -= 1
        self._size -= 1
        if len(line.heap) > 2 * line.size + ROOMY:
            line.tidy()

    def head(self) -> Place[T] | None:
        """Whose turn it is; None if nobody waits."""
        line = self._first_line()
        return None if line is None else line.first()

    @property
    def lag(self) -> float:
        """How far the head's turn lies ahead of the present: 0 for a tenant that was not served while it waited."""
        line = self._first_line()
        return 0.0 if line is None else line.tag - self._now

    def charge(self, tenant: str, amount: float) -> None:
        """The tenant got something that those who wait here wanted too; whether it waits here itself or not."""
        line = self._lines.get(tenant)
        start = max(self._ahead.get(tenant, 0.0) if line is None else line.tag, self._now)
        tag = start + amount / self._weight_of(tenant)
        if line is not None:
            line.tag = tag
        # Time never passes the turn of one who waits, or latecomers would have to wait for it to catch up.
        first = self._first_line()
        self._now = max(self._now, start if first is None else min(start, first.tag))
        if line is None:
            self._remember(tenant, tag)

    def _first_line(self) -> _Line[T] | None:
        turns = self._turns
        while turns:
            tag, _, line = turns[0]
            if not line.size:
                heapq.heappop(turns)
                line.heap.clear()
                del self._lines[line.tenant]
                self._remember(line.tenant, line.tag)
            elif tag < line.tag:
                self._count += 1
                heapq.heapreplace(turns, (line.tag, self._count, line))
            else:
                return line
        return None

    def _list(self, line: _Line[T]) -> None:
        self._count += 1
        heapq.heappush(self._turns, (line.tag, self._count, line))

    def _remember(self, tenant: str, tag: float) -> None:
        if tag > self._now:
            self._ahead[tenant] = tag
        if len(self._ahead) > self._most_ahead:
            self._ahead = {name: tag for name, tag in self._ahead.items() if tag > self._now}
            self._most_ahead = 2 * len(self._ahead) + ROOMY
