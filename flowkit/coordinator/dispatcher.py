"""Gives ready nodes to workers. All policy of who runs what, where and when is here; nothing here waits."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count, islice

from flowkit.coordinator.candidates import Candidates
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.fair_queue import Key
from flowkit.coordinator.fleet import Fleet, WorkerView
from flowkit.coordinator.room import Room
from flowkit.coordinator.shares import Weights
from flowkit.coordinator.waiting import Wait, WaitingRoom
from flowkit.core.code import CODE
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies, Rules, stricter_lane
from flowkit.core.labels import Wanted
from flowkit.core.lane import Demand, Lane, plain
from flowkit.core.model import Task
from flowkit.core.reports import Placed
from flowkit.ports import Clock

AGEING_SEC = 60.0
PATIENCE_SEC = 5.0
BEFORE_ALL = float("-inf")


class Dispatcher:
    """Places ready nodes on the live workers that may run them, those with the most room first.

    A cell whose nodes found no room waits, by lane; `serve` calls those for whom there is room, one after the other:
    tenants in turn, by weight; of one tenant whoever has waited longest, where a point of priority counts for
    `ageing_sec` of waiting. Who was called and found nothing keeps its place; who took its share and wants more begins
    to wait anew. Nodes whose worker died or declined go before all others of their tenant.
    """

    def __init__(self, fleet: Fleet, clock: Clock, *, accept_sec: float, prefetch: int, new_token: Callable[[], str],
                 ageing_sec: float = AGEING_SEC, patience_sec: float = PATIENCE_SEC,
                 tenant_weights: Mapping[str, float] | None = None,
                 policies: CodePolicies = NOTHING_SAID) -> None:  # fmt: skip
        self._fleet = fleet
        self._clock = clock
        self._accept_sec = accept_sec
        self._new_token = new_token
        self._ageing_sec = ageing_sec
        self._patience_sec = patience_sec
        self._room = Room(fleet, prefetch)
        self._waiting = WaitingRoom(Weights(tenant_weights).of)
        self._called: Wait | None = None
        self._workers: Callable[[Demand], list[WorkerView]] = self._room.workers
        self._known = cache(self._room.workers)
        self._in_round = False
        self._plain: dict[str, Lane] = {}
        self._policies = policies
        self._order = count()
        self.observe = self._room.observe

    # ------------------------------------------------------------------------------------------ placing

    def offer(self, cell: Cell) -> list[Placed]:
        """Placements for as many of the cell's ready nodes as there is room for; each reserves its place."""
        task = cell.task
        if task is None or not task.placing or not task.ready:
            return []
        placed: list[Placed] = []
        for lane, names in self._ready_lanes(task):
            if lane.key not in cell.waiting:  # else it will be called
                lane = self.lane_in(cell, lane)
                placed += self._place(cell, lane, names)
        return placed

    def _place(self, cell: Cell, lane: Lane, names: Iterable[str]) -> list[Placed]:
        wait = self._call_of(cell, lane)
        candidates = Candidates(self._room, cell, lane, self._workers(lane.demand), wait is not None and wait.anywhere)
        quota = self._newcomers_share(cell, lane) if wait is None else wait.share
        placed: list[Placed] = []
        taken: list[WorkerView] = []
        names = iter(names)
        if (only := candidates.only) is not None:  # so many in one go, as there is nothing to choose
            placed = self._place_at(only, list(islice(names, candidates.room_at(only, quota))))
            taken = [only] * len(placed)
        for name in names:
            view = candidates.choose() if len(placed) < quota else None
            if view is None and not placed and _has_nothing(cell):
                view = candidates.squeeze_in()
            if view is None:
                self._wait(wait or Wait(cell, lane), name, candidates.worker, len(placed))
                break
            taken.append(view)
            placed += self._place_at(view, (name,))
        if taken:
            self._waiting.charge(cell.tenant, taken)
        return placed

    def lane_in(self, cell: Cell, lane: Lane) -> Lane:
        """The lane for a task: code has to be shut in as far as policies ask for it."""
        return stricter_lane(lane, self.rules_for(cell)) if lane.demand.role == CODE else lane

    def rules_for(self, cell: Cell) -> Rules:
        """The policies that hold for a task's code."""
        if cell.head is None or cell.task is None:
            return ()
        return self._policies.on(cell.head.tenant, cell.head.flow, cell.task.graph)

    def _call_of(self, cell: Cell, lane: Lane) -> Wait | None:
        called = self._called
        return called if called is not None and called.cell is cell and called.lane.key == lane.key else None

    def _newcomers_share(self, cell: Cell, lane: Lane) -> int:
        if not self._waiting:
            return sys.maxsize  # nobody else wants any: all that there is
        return self._waiting.newcomers_share(cell.tenant, self._room_for(lane.demand))

    def _ready_lanes(self, task: Task) -> list[tuple[Lane, Iterable[str]]]:
        """The lanes in which nodes are ready, the most urgent first."""
        found: list[tuple[Lane, Iterable[str]]] = []
        for key, names in task.ready.items():
            lane = task.node(next(iter(names))).lane or self._plain.get(key)
            if lane is None:
                lane = self._plain[key] = plain(key)
            found.append((lane, names))
        if len(found) > 1:
            found.sort(key=lambda pair: -pair[0].priority)
        return found

    def _place_at(self, view: WorkerView, names: Sequence[str]) -> list[Placed]:
        view.mine += len(names)
        accept_by = self._fleet.mono_of(view) + self._accept_sec
        token, worker, incarnation = self._new_token, view.worker, view.incarnation
        return [Placed(name, token(), worker, incarnation, accept_by) for name in names]

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

    # ------------------------------------------------------------------------------------------ waiting

    def has_room(self, lanes: Iterable[Lane]) -> bool:
        return any([self._room_for(lane.demand) > 0 for lane in lanes])

    def wait_to_begin(self, cell: Cell, lanes: Iterable[Lane]) -> None:
        """A task that has not begun waits for the first room in any of these lanes."""
        for lane in lanes:
            if lane.key not in cell.waiting:
                self._wait(self._call_of(cell, lane) or Wait(cell, lane))

    def landed(self, cell: Cell) -> None:
        """The cell's commit is acknowledged: where its turn came meanwhile, it takes its old place again."""
        for wait in [wait for wait in cell.waiting.values() if wait.place is None]:
            if _wants_room(wait):
                self._waiting.enter(wait)
            else:
                del cell.waiting[wait.lane.key]

    def forget(self, cell: Cell) -> None:
        """The cell is dead: it wants no room any more, and takes no part in what there is."""
        for wait in cell.waiting.values():
            self._waiting.leave(wait)
        cell.waiting.clear()

    def _wait(self, wait: Wait, name: str = "", worker: str = "", took: int = 0) -> None:
        """Let a cell wait: for one worker only, if that is named. `name` is the first node that found no room."""
        if took or wait.key is None:
            wait.key = self._key(wait, name, anew=took > 0)
        wait.took = took
        if worker or wait.demand.worker:
            wait.follow(worker, self._clock.mono() + self._patience_of(wait.lane))
        wait.cell.waiting[wait.lane.key] = wait
        self._waiting.enter(wait)

    def _key(self, wait: Wait, name: str, *, anew: bool) -> Key:
        """Since when it waits, in this process's monotonic clock, moved by its priority. A node that waited under
        another coordinator has waited all the same."""
        cell, order = wait.cell, next(self._order)
        assert cell.task is not None
        run = cell.task.runs[name] if name else None
        if run is not None and (run.losses or run.declines or _is_awaited(cell.task, name)):
            return BEFORE_ALL, order
        since = self._clock.mono() - (0.0 if anew else cell.waited(run, self._clock.wall()))
        priority = wait.lane.priority + (cell.head.priority if cell.head is not None else 0)
        return since - priority * self._ageing_sec, order

    def _patience_of(self, lane: Lane) -> float:
        return self._patience_sec if lane.patience_sec is None else lane.patience_sec

    # ------------------------------------------------------------------------------------------ whose turn it is

    def begin_round(self) -> None:
        """Nobody comes or goes until `end_round`: which workers there are is looked at once."""
        self._known.cache_clear()
        self._in_round, self._workers = True, self._known

    def end_round(self) -> None:
        self._in_round, self._workers = False, self._room.workers

    def serve(self) -> Iterator[Cell]:
        """One round: the waiting cells to be offered again, each while there is room for it. Whoever iterates offers
        each at once, so that the next call knows what is left."""
        if not self._waiting:
            return
        alone = not self._in_round
        if alone:
            self.begin_round()
        in_vain: list[Wait] = []
        try:
            self._waiting.end_patience(self._clock.mono(), self._workers)
            while (wait := self._waiting.next(self._room_for)) is not None:
                self._waiting.leave(wait)
                if wait.cell.flight is not None:
                    continue  # it takes its place again when that has landed
                del wait.cell.waiting[wait.lane.key]
                if _wants_room(wait):
                    self._called, wait.took = wait, 0
                    yield wait.cell
                    if wait.place is not None and not wait.took:  # else it would be called for ever
                        self._waiting.leave(wait)
                        in_vain.append(wait)
        finally:
            self._called = None
            if alone:
                self.end_round()
            for wait in in_vain:
                if wait.place is None and not wait.cell.dead:
                    self._waiting.enter(wait)

    def _room_for(self, demand: Demand) -> int:
        return self._room.all(demand.role, self._workers(demand))

    # ------------------------------------------------------------------------------------------ explaining

    def waiting_for(self, role: str, labels: Wanted = ()) -> int:
        """How many tasks wait for room at a role, on workers with these labels."""
        return self._waiting.waiting_for(Demand(role, labels))

    def backlog(self) -> Counter[str]:
        """How many nodes are ready and wait for room, by role; of a task that has not begun, one."""
        found: Counter[str] = Counter()
        for wait in self._waiting.all():
            task = wait.cell.task
            ready = task.ready.get(wait.lane.key, ()) if task is not None else ()
            found[wait.lane.demand.role] += max(1, len(ready))
        return found

    def bound_to(self, cell: Cell, lane: Lane) -> tuple[str, float] | None:
        """The one worker that a cell waits for, and for how many seconds more; None where it waits for any."""
        wait = cell.waiting.get(lane.key)
        if wait is None or not wait.demand.worker:
            return None
        return wait.demand.worker, max(0.0, wait.until - self._clock.mono())

    def workers(self, role: str) -> dict[str, dict[str, str]]:
        """The labels of the live workers of a role, by worker."""
        return {view.worker: view.labels for view in self._fleet.of_role(role)}

    @property
    def roles(self) -> set[str]:
        return self._fleet.roles

    def serves(self, role: str) -> bool:
        return bool(self._fleet.of_role(role))


def _has_nothing(cell: Cell) -> bool:
    """Whether the task has begun, and has no attempt with any worker."""
    return cell.task is not None and cell.task.created and not cell.task.leased


def _is_awaited(task: Task, name: str) -> bool:
    """Whether another node runs that waits for this one to read what it hands on."""
    stream = task.node(name).stream
    return stream is not None and stream.first_batch


def _wants_room(wait: Wait) -> bool:
    task = wait.cell.task
    return wait.cell.live and task is not None and (not task.created or wait.lane.key in task.ready)
