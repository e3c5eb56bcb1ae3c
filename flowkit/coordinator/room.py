"""Which workers may take a node, and how much each can take."""

from __future__ import annotations

from collections.abc import Iterable

from flowkit.coordinator.fleet import Fleet, WorkerView
from flowkit.core.labels import Wanted, fits, score
from flowkit.core.lane import Demand

PREFETCH_SEC = 0.03
"""How much work, in seconds of a role's mean run time, a worker may hold beyond what its slots run."""
SHORTEST_SEC = 1e-5


def meets(view: WorkerView, demand: Demand) -> bool:
    """Whether a worker is what is asked for."""
    if demand.role not in view.roles or (demand.worker and view.worker != demand.worker):
        return False
    return not demand.labels or fits(demand.labels, view.labels)


class Room:
    """A worker's slots, plus a prefetch for roles whose nodes are short, less what it holds."""

    def __init__(self, fleet: Fleet, prefetch: int) -> None:
        self._fleet = fleet
        self._prefetch = prefetch
        self._mean_sec: dict[str, float] = {}

    def observe(self, role: str, run_sec: float) -> None:
        """Learn from a finished attempt how long the role's nodes run."""
        run_sec = max(run_sec, SHORTEST_SEC)
        mean = self._mean_sec.get(role)
        self._mean_sec[role] = run_sec if mean is None else mean + 0.1 * (run_sec - mean)

    def workers(self, demand: Demand) -> list[WorkerView]:
        """The workers that may be given such work now, whether they have room or not."""
        views = self._fleet.of_role(demand.role)
        if not demand.labels and not demand.worker:
            return views
        return [view for view in views if meets(view, demand)]

    def at(self, role: str, view: WorkerView) -> int:
        """How many more nodes of a role a worker can take; less than nothing where too many were placed."""
        room = view.slots - view.mine - view.others
        mean = self._mean_sec.get(role)
        return room if mean is None else room + min(self._prefetch, int(view.slots * PREFETCH_SEC / mean))

    def beyond(self, role: str, view: WorkerView) -> int:
        """How many more nodes of a short role a worker may be sent, beyond what it can take, of tasks that have nothing
        with any worker: what was sent ahead of wide ones must not keep them waiting."""
        mean = self._mean_sec.get(role)
        if mean is None or mean > PREFETCH_SEC:
            return 0
        return view.slots + self._prefetch + min(view.slots, self._prefetch) - view.mine - view.others

    def all(self, role: str, views: Iterable[WorkerView]) -> int:
        """How many nodes of a role some workers can take together."""
        room = 0
        for view in views:
            if (here := self.at(role, view)) > 0:
                room += here
        return room

    def best(self, role: str, views: Iterable[WorkerView], prefers: Wanted = ()) -> WorkerView | None:
        """The worker with the most room; before that, with the most of the labels preferred. None without room."""
        best, most, liked = None, 0, 0
        for view in views:
            room = self.at(role, view)
            if room <= 0:
                continue
            likes = score(prefers, view.labels) if prefers else 0
            if likes > liked or (likes == liked and room > most):
                best, most, liked = view, room, likes
        return best
