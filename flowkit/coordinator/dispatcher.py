"""Gives ready nodes to workers. All policy of who runs what, where and when is here; nothing here waits."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.fleet import Fleet, WorkerView
from flowkit.core.model import NodeRun
from flowkit.core.reports import Placed

PREFETCH_SEC = 0.03
"""How much work, in seconds of a role's mean run time, a worker may hold beyond what its slots run."""
BEFORE_ALL = 2**62


class Dispatcher:
    """Places ready nodes on the live worker of the role with the most room, oldest first within a priority.

    Room is a worker's slots, plus a prefetch for roles whose nodes are short, less what it holds. A cell whose nodes
    found no room waits, by role; `serve` names the waiting cells for which there is room now.
    """

    def __init__(self, fleet: Fleet, *, accept_sec: float, prefetch: int, new_token: Callable[[], str]) -> None:
        self._fleet = fleet
        self._accept_sec = accept_sec
        self._prefetch = prefetch
        self._new_token = new_token
        self._waiting: dict[str, list[tuple[int, int, Cell]]] = {}
        self._gone: Counter[str] = Counter()  # how many of those that wait, by role, are dead
        self._order = count()
        self._mean_sec: dict[str, float] = {}
        self._served: dict[tuple[str, str], tuple[int, int]] = {}  # what each may take, and since when it waits

    # ------------------------------------------------------------------------------------------ placing

    def offer(self, cell: Cell) -> list[Placed]:
        """Placements for as many of the cell's ready nodes as there is room for; each reserves its place."""
        task = cell.task
        if task is None or not task.placing or not task.ready:
            return []
        placed: list[Placed] = []
        for role, names in task.ready.items():
            share, since = self._served.pop((cell.task_id, role), (0, None))
            quota = share or self._quota(role)
            views = list(self._fleet.of_role(role))
            for name in names:
                view = self._best(role, views) if quota > 0 else None
                if view is None:
                    early = task.graph.nodes[name].stream
                    turn = self._turn(task.runs[name], hurried=early is not None and early.first_batch)
                    self.wait(role, cell, turn if since is None else since)
                    break
                quota, since = quota - 1, None
                view.mine += 1
                accept_by = self._fleet.mono_of(view) + self._accept_sec
                placed.append(Placed(name, self._new_token(), view.worker, view.incarnation, accept_by))
        return placed

    def has_room(self, roles: Iterable[str]) -> bool:
        return any(self._room_for(role) > 0 for role in roles)

    def wait(self, role: str, cell: Cell, turn: int | None = None) -> None:
        """`turn`: the place in the queue, if not the last. Whoever was called for room that another role took keeps
        its own."""
        if role in cell.waiting_roles:
            return
        cell.waiting_roles.add(role)
        priority = cell.head.priority if cell.head is not None else 0
        turn = next(self._order) if turn is None else turn
        heapq.heappush(self._waiting.setdefault(role, []), (-priority, turn, cell))

    def forget(self, cell: Cell) -> None:
        """The cell is dead: it wants no room any more, and takes no part in what there is."""
        if cell.waiting_roles:
            self._gone.update(cell.waiting_roles)
            cell.waiting_roles.clear()

    def serve(self) -> list[Cell]:
        """The waiting cells to be offered again now, as many as there is room for, each with its share of it."""
        self._served.clear()
        served: list[Cell] = []
        waiting = max(1, self._all_waiting())
        # A worker's room is shared by its roles: who has waited longest comes first, whatever the role, and each gets
        # a share, so that whoever is offered first does not take it all.
        for role in sorted(self._waiting, key=lambda role: self._waiting[role][0][:2]):
            heap, room = self._waiting[role], self._room_for(role)
            share = max(1, room // waiting)
            while heap and room > 0:
                _, turn, cell = heapq.heappop(heap)
                if cell.dead:
                    self._gone[role] -= 1
                    continue
                cell.waiting_roles.discard(role)
                if cell.task is None:
                    continue
                served.append(cell)
                self._served[cell.task_id, role] = share, turn
                room -= min(share, len(cell.task.ready.get(role, ())) or 1)
            if not heap:
                del self._waiting[role]
                self._gone.pop(role, None)
        return served

    def give_back(self, worker: str, incarnation: str) -> None:
        """An attempt that was placed with this worker is over, or never came to be."""
        view = self._fleet.workers.get(worker)
        if view is not None and view.incarnation == incarnation and view.mine > 0:
            view.mine -= 1

    def take(self, worker: str, incarnation: str) -> None:
        """A lease was found on loading: it takes up room."""
        view = self._fleet.workers.get(worker)
        if view is not None and view.incarnation == incarnation:
            view.mine += 1
            view.others = max(0, view.others - 1)

    def observe(self, role: str, run_sec: float) -> None:
        """Learn from a finished attempt how long the role's nodes run."""
        mean = self._mean_sec.get(role)
        self._mean_sec[role] = run_sec if mean is None else mean + 0.1 * (run_sec - mean)

    # ------------------------------------------------------------------------------------------ explaining

    def waiting_for(self, role: str) -> int:
        """How many tasks wait for room at a role."""
        return len(self._waiting.get(role, ())) - self._gone[role]

    @property
    def roles(self) -> set[str]:
        return self._fleet.roles

    def serves(self, role: str) -> bool:
        return bool(self._fleet.of_role(role))

    # ------------------------------------------------------------------------------------------ room

    def _turn(self, run: NodeRun, *, hurried: bool) -> int:
        """Last, but before all others if the node had its turn already, and its worker died or declined; or if it is
        `hurried`, because others run that wait for it."""
        last = next(self._order)
        return last - BEFORE_ALL if run.losses or run.declines or hurried else last

    def _room(self, role: str, view: WorkerView) -> int:
        mean = self._mean_sec.get(role)
        ahead = 0 if mean is None else min(self._prefetch, int(view.slots * PREFETCH_SEC / max(mean, 1e-5)))
        return view.slots + ahead - view.mine - view.others

    def _best(self, role: str, views: list[WorkerView]) -> WorkerView | None:
        best, most = None, 0
        for view in views:
            room = self._room(role, view)
            if room > most:
                best, most = view, room
        return best

    def _room_for(self, role: str) -> int:
        return sum(max(0, self._room(role, view)) for view in self._fleet.of_role(role))

    def _all_waiting(self) -> int:
        return sum(map(len, self._waiting.values())) - self._gone.total()

    def _quota(self, role: str) -> int:
        """What one cell may take at once: its share of the room, so that a wide task does not shut others out, not even
        those of other roles that the same workers serve."""
        waiting = self._all_waiting()
        room = self._room_for(role)
        return room if waiting == 0 else max(1, room // (waiting + 1)) if room else 0
