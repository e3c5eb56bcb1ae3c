"""To whom the nodes of one lane of a task may go: everybody who meets the demand, or the worker that they follow."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.fleet import WorkerView
from flowkit.coordinator.room import Room
from flowkit.core.lane import Lane


class Candidates:
    """Chooses one worker after the other. `home` is the living worker that the lane follows, if there is one; it is
    waited for, unless the lane may go `anywhere`. Where that worker is gone, or there never was one, the first choice
    becomes the one to be followed."""

    __slots__ = ("_cell", "_lane", "_room", "anywhere", "home", "views")

    def __init__(self, room: Room, cell: Cell, lane: Lane, views: Sequence[WorkerView], anywhere: bool) -> None:
        self._room = room
        self._cell = cell
        self._lane = lane
        self.views = views
        self.anywhere = anywhere
        self.home = None if lane.follows is None else self._find_home(lane.follows)

    @property
    def only(self) -> WorkerView | None:
        """The worker that every node goes to as long as it has room, because there is no other."""
        return self.views[0] if self._lane.follows is None and len(self.views) == 1 else None

    def room_at(self, view: WorkerView, most: int) -> int:
        """How many nodes it can take, of so many."""
        return max(0, min(most, self._room.at(self._lane.role, view)))

    def choose(self) -> WorkerView | None:
        """The worker for the next node; None without room."""
        role, home = self._lane.role, self.home
        if self._lane.follows is None:
            return self._room.best(role, self.views, self._lane.prefers)
        if home is not None and self._room.at(role, home) > 0:
            return home
        if home is not None and not self.anywhere:
            return None
        view = self._room.best(role, self.views, self._lane.prefers)
        if view is not None and home is None:
            self._move_in(self._lane.follows, view)
        return view

    def squeeze_in(self) -> WorkerView | None:
        """A worker for the one node of a task that has nothing with any: its place is beyond what was sent ahead."""
        if self._lane.follows is not None:
            return None
        best = max(self.views, key=lambda view: self._room.beyond(self._lane.role, view), default=None)
        return best if best is not None and self._room.beyond(self._lane.role, best) > 0 else None

    @property
    def worker(self) -> str:
        """The one worker that is waited for; empty if any will do."""
        return "" if self.home is None or self.anywhere else self.home.worker

    def _find_home(self, anchor: str) -> WorkerView | None:
        first = _recorded(self._cell, anchor)
        own = (anchor, self._lane.demand)
        # Those of the same demand stay together, and had better be where others went that follow the same.
        stand_ins = sorted(
            (key != own, worker)
            for key, (instead_of, worker) in self._cell.homes.items()
            if key[0] == anchor and instead_of in ("", first)
        )
        places = {view.worker: view for view in self.views}
        return next((places[one] for one in (first, *(one for _, one in stand_ins)) if one in places), None)

    def _move_in(self, anchor: str, view: WorkerView) -> None:
        self._cell.homes[anchor, self._lane.demand] = (_recorded(self._cell, anchor), view.worker)
        self.home = view


def _recorded(cell: Cell, anchor: str) -> str:
    return cell.task.ran_on.get(anchor, "") if cell.task is not None else ""
