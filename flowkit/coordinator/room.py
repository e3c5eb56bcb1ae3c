"""Which workers may take a node, and how much each can take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from flowkit.coordinator.fleet import Fleet, WorkerView
from flowkit.core.labels import Wanted, fits, score

PREFETCH_SEC = 0.03
"""How much work, in seconds of a role's mean run time, a worker may hold beyond what its slots run."""


class Demand(NamedTuple):
    """What a worker must be: of a role, with labels; and this very one, if `worker` is not empty."""

    role: str
    labels: Wanted = ()
    worker: str = ""

    def met_by(self, view: WorkerView) -> bool:
        if self.worker and view.worker != self.worker:
            return False
        return self.role in view.roles and (not self.labels or fits(self.labels, view.labels))


class Room:
    """A worker's slots, plus a prefetch for roles whose nodes are short, less what it holds."""

    def __init__(self, fleet: Fleet, prefetch: int) -> None:
        self._fleet = fleet
        self._prefetch = prefetch
        self._mean_sec: dict[str, float] = {}

    def observe(self, role: str, run_sec: float) -> None:
        """Learn from a finished attempt how long the role's nodes run."""
        mean = self._mean_sec.get(role)
        self._mean_sec[role] = run_sec if mean is None else mean + 0.1 * (run_sec - mean)

    def workers(self, demand: Demand) -> list[WorkerView]:
        """The workers that may be given such work now, whether they have room or not."""
        views = self._fleet.of_role(demand.role)
        if not demand.labels and not demand.worker:
            return views
        return [view for view in views if demand.met_by(view)]

    def at(self, role: str, view: WorkerView) -> int:
        """How many more nodes of a role a worker can take; less than nothing where too many were placed."""
        mean = self._mean_sec.get(role)
        ahead = 0 if mean is None else min(self._prefetch, int(view.slots * PREFETCH_SEC / max(mean, 1e-5)))
        return view.slots + ahead - view.mine - view.others

    def some(self, role: str, views: Iterable[WorkerView]) -> bool:
        return any(self.at(role, view) > 0 for view in views)

    def all(self, role: str, views: Iterable[WorkerView]) -> int:
        return sum(max(0, self.at(role, view)) for view in views)

    def best(self, role: str, views: Iterable[WorkerView], prefers: Wanted = ()) -> WorkerView | None:
        """The worker with the most room; before that, with the most of the labels preferred. None without room."""
        best, most = None, (0, 0)
        for view in views:
            room = self.at(role, view)
            if room > 0 and (rank := (score(prefers, view.labels) if prefers else 0, room)) > most:
                best, most = view, rank
        return best
