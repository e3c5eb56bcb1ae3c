"""The cells that wait for room: for each kind of worker a fair queue, and whose turn it is among all of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.fair_queue import ROOMY, FairQueue, Key, Place
from flowkit.coordinator.fleet import WorkerView
from flowkit.coordinator.room import meets
from flowkit.coordinator.shares import Crowd
from flowkit.core.lane import Demand, Lane


class Wait:
    """A cell that waits in one lane. `key` is where it stands among those of its tenant, once it has been given one.
    Where the demand names a worker, it waits for that one until `until`; `anywhere`: it did so for long enough. When it
    was called last, it might take a `share` of the room, and `took` so much. `place` is its place in a queue, if it
    stands there now."""

    __slots__ = ("anywhere", "cell", "demand", "key", "lane", "place", "share", "took", "until")

    def __init__(self, cell: Cell, lane: Lane) -> None:
        self.cell = cell
        self.lane = lane
        self.key: Key | None = None
        self.demand = lane.demand
        self.anywhere = False
        self.until = 0.0
        self.share = 0
        self.took = 0
        self.place: Place[Wait] | None = None

    def follow(self, worker: str, until: float) -> None:
        """Wait for one worker; for any, if it is empty."""
        self.demand = self.lane.demand._replace(worker=worker) if worker else self.lane.demand
        self.until = until


class WaitingRoom:
    """All cells that wait, by what they wait for.

    What was placed with a worker is charged to its tenant wherever somebody waits for that worker too: so it makes no
    difference to fairness which of a worker's roles, or which labels, a tenant's nodes ask for.
    """

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._queues: dict[Demand, FairQueue[Wait]] = {}
        self._crowd = Crowd(weight_of)
        self._patience: list[tuple[float, int, Wait]] = []
        self._most_patience = ROOMY
        self._count = count()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def waiting_for(self, demand: Demand) -> int:
        return len(self._queues.get(demand, ()))

    def all(self) -> Iterator[Wait]:
        """Everybody who waits, in no order."""
        return (place.item for queue in self._queues.values() for place in queue)

    def newcomers_share(self, tenant: str, room: int) -> int:
        """What one may take that did not wait: all of it, if nobody waits."""
        return self._crowd.share(tenant, room, newcomer=True)

    # ------------------------------------------------------------------------------------------ coming and going

    def enter(self, wait: Wait) -> None:
        assert wait.key is not None
        queue = self._queues.get(wait.demand)
        if queue is None:
            queue = self._queues[wait.demand] = FairQueue(self._weight_of)
        tenant = wait.cell.tenant
        wait.place = queue.push(tenant, wait.key, wait)
        self._crowd.enter(tenant)
        if wait.demand.worker:
            self._note_patience(wait)

    def leave(self, wait: Wait) -> None:
        """Give the place up."""
        if wait.place is not None:
            self._queues[wait.demand].remove(wait.place)
            self._crowd.leave(wait.place.tenant)
            wait.place = None

    def charge(self, tenant: str, views: Sequence[WorkerView]) -> None:
        """The tenant got a place with each of these workers."""
        if not self._crowd.others(tenant):
            return
        for demand, queue in self._queues.items():
            if queue and (got := sum(meets(view, demand) for view in views)):
                queue.charge(tenant, got)

    # ------------------------------------------------------------------------------------------ patience

    def end_patience(self, now: float, workers: Callable[[Demand], list[WorkerView]]) -> None:
        """Let those go anywhere who have waited long enough for one worker, or whose worker is not there any more."""
        if not self._patience:
            return
        while self._patience and self._patience[0][0] <= now:
            entry = heapq.heappop(self._patience)
            if _still(entry):
                self._scatter([entry[2]])
        for demand, queue in list(self._queues.items()):
            if demand.worker and not workers(demand):
                self._scatter([place.item for place in queue])

    def _note_patience(self, wait: Wait) -> None:
        heapq.heappush(self._patience, (wait.until, next(self._count), wait))
        if len(self._patience) > self._most_patience:
            self._patience = [entry for entry in self._patience if _still(entry)]
            self._most_patience = 2 * len(self._patience) + ROOMY
            heapq.heapify(self._patience)

    def _scatter(self, waits: Iterable[Wait]) -> None:
        for wait in waits:
            self.leave(wait)
            wait.demand, wait.anywhere = wait.lane.demand, True
            self.enter(wait)

    # ------------------------------------------------------------------------------------------ whose turn it is

    def next(self, room: Callable[[Demand], int]) -> Wait | None:
        """Whose turn it is of all for whom there is room; what it may take of that is its share."""
        heads: list[tuple[FairQueue[Wait], Place[Wait], int]] = []
        for demand, queue in list(self._queues.items()):
            head = queue.head()
            if head is None:
                del self._queues[demand]
            elif (left := room(demand)) > 0:
                heads.append((queue, head, left))
        if not heads:
            return None
        _, head, left = heads[0] if len(heads) == 1 else _first(heads)
        head.item.share = self._crowd.share(head.tenant, left)
        return head.item


def _still(entry: tuple[float, int, Wait]) -> bool:
    until, _, wait = entry
    return wait.place is not None and wait.demand.worker != "" and wait.until == until


def _first(heads: list[tuple[FairQueue[Wait], Place[Wait], int]]) -> tuple[FairQueue[Wait], Place[Wait], int]:
    # A tenant's turn among the others is the same wherever it waits; its own go by their keys.
    lag: dict[str, float] = {}
    for queue, head, _ in heads:
        lag[head.tenant] = max(queue.lag, lag.get(head.tenant, 0.0))
    return min(heads, key=lambda one: (lag[one[1].tenant], one[1].key))
