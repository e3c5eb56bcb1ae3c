"""Asks for the permits that nodes need, on the tasks' side, and lets nodes through to the dispatcher that have theirs.

Nothing of it is recorded, and nothing of it needs to be: a permit is a claim's, and whoever loads the task asks for the
same claim again. Nothing is asked or given back for a state that is not acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from flowkit.coordinator.bids import Bid, Bids, Waiting
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.core import facts as f
from flowkit.core.bounds import Need
from flowkit.core.model import Task
from flowkit.core.permits import (
    PermitAsked,
    PermitDelayed,
    PermitGranted,
    PermitOver,
    PermitWanted,
    ToLimit,
    ToTask,
    claim_of,
    is_rate,
    needs_of,
    over,
)
from flowkit.core.reports import PermitsUnused, Placed
from flowkit.ports import Clock

MOST_ASKED = 128
"""Of one task's nodes that wait for the same, so many ask at a time."""
FIRST_AGAIN_SEC = 2.0
AGAIN_SEC = 15.0
UNUSED_SEC = 30.0
"""Permits that no worker has come for are given back after so long..."""
UNSERVED_SEC = 3.0
"""... and after so long where none could come: the task is paused, or nobody serves the role."""
SLICE = 500


class Gate:
    """`to_limit` and `feed` are set by the owner: where letters go, and who decides about a task."""

    def __init__(self, clock: Clock, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._cells: dict[str, Cell] = {}
        self.to_limit: Callable[[str, str, ToLimit], None] = lambda limit_id, tenant, letter: None
        self.feed: Callable[[Cell, Item], None] = lambda cell, item: None

    # ------------------------------------------------------------------------------------------ the engine's rounds

    def hear(self, cell: Cell, task: Task) -> list[Item]:
        """Take the letters out of what waits at a cell whose state is the acknowledged one; gives those taken."""
        cell.letters = False
        tenant = cell.head.tenant if cell.head is not None else ""
        letters, others = _parted(cell.queue, lambda item: _is_letter(item) and item.tenant == tenant)
        cell.queue = others if letters else cell.queue
        for item in letters:
            letter: Any = item.report
            match letter:
                case PermitGranted():
                    self._granted(cell, task, letter)
                case PermitDelayed() if (bid := self._bid(cell, letter)) is not None:
                    bid.place = letter.place, letter.held
                    cell.patient = False  # it will take longer than a moment: let its task begin without
                case PermitAsked():
                    self._asked(cell, task, letter)
        return letters

    def gone(self, cell: Cell) -> list[Item]:
        """There is no such task (any more), so none of its claims will be used. Gives the letters that came for it."""
        letters, cell.queue = _parted(cell.queue, _is_letter)
        for item in letters:
            letter: Any = item.report
            self.to_limit(letter.limit_id, item.tenant, PermitOver(cell.task_id, letter.node, letter.claim))
        return letters

    def first(self, cell: Cell, task: Task) -> bool:
        """Ask for the permits of a task's first nodes before it is recorded as begun; whether it had better wait for
        them, so that its first commit also holds its first leases."""
        roots = task.graph.roots
        if len(roots) > MOST_ASKED or not all(task.node(name).plain and task.is_limited(name) for name in roots):
            return False
        bids, now = self._bids(cell, task), self._clock.wall()
        for name in roots:
            if name not in bids.by_node:
                self._start(cell, task, bids, name, needs_of(task, name), now)
        return not bids.complete

    def open(self, cell: Cell, task: Task) -> None:
        """Let those through that have what they need."""
        if cell.bids is None:
            return
        for name in cell.bids.complete:
            if name in task.gated and cell.bids.by_node[name].claim == claim_of(task, task.runs[name]):
                task.let_through(name)

    def stamp(self, cell: Cell, task: Task, placed: list[Placed]) -> list[Placed]:
        """Placements with the permits that they are made with."""
        return [
            replace(one, permits=tuple(need.limit_id for need in needs_of(task, one.node)))
            if one.node in task.gated and cell.bids is not None and one.node in cell.bids.complete
            else one
            for one in placed
        ]

    def note(self, cell: Cell, task: Task, recorded: Iterable[f.Fact]) -> None:
        """These facts were just acknowledged: say of every claim that they ended that it is over."""
        bids = {} if cell.bids is None else cell.bids.by_node
        for fact in recorded:
            match fact:
                case f.PermitsReturned() if fact.node not in bids:
                    self._returned(cell, task, fact.node)
                case _ if not bids:
                    continue
                case f.TaskCancelling() | f.TaskEnded() | f.TaskRestarted():
                    for name in list(bids):
                        self._check(cell, task, name)
                case _:
                    self._check(cell, task, getattr(fact, "node", ""))

    def look(self, cell: Cell, task: Task) -> None:
        """The state is acknowledged, and nothing is under way: ask for what newly ready nodes need."""
        if task.ended or not (task.gated_anew or task.leased or cell.bids is not None):
            return
        bids = self._bids(cell, task)
        if not task.placing:
            return
        anew, task.gated_anew = task.gated_anew, []
        for name in anew:
            if name in task.gated and name not in bids.by_node:
                line = _line(task, name, needs_of(task, name))
                bids.waiting.setdefault(line, Waiting()).push(name, _priority(task, name))
        self._advance(cell, task, bids)

    # ------------------------------------------------------------------------------------------ time

    async def step(self) -> None:
        """Ask again where no answer came, and see which permits nobody uses."""
        for count, (task_id, cell) in enumerate(list(self._cells.items())):
            if cell.dead or cell.bids is None:
                if self._cells.get(task_id) is cell:
                    del self._cells[task_id]
            elif cell.live and cell.flight is None and cell.task is not None:
                self._again(cell, cell.task, cell.bids)
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    def _again(self, cell: Cell, task: Task, bids: Bids) -> None:
        now, wall = self._clock.mono(), self._clock.wall()
        running = task.placing or not task.created
        for bid in list(bids.by_node.values()):
            if bid.leased:
                continue
            served = _usable(task, bid.node) and self._dispatcher.serves(bid.line[1])
            if bid.got and now - bid.held_since > (UNUSED_SEC if served else UNSERVED_SEC):
                bid.held_since = now
                self.feed(cell, Item(PermitsUnused(bid.node, bid.claim)))
            elif (
                running and not bid.complete and now - bid.asked_at > (AGAIN_SEC if bid.tries > 1 else FIRST_AGAIN_SEC)
            ):
                self._ask(cell, task, bid, wall)
        if running:
            self._advance(cell, task, bids)

    def again_soon(self) -> None:
        """Limits may have new owners, who know nobody that waits."""
        for cell in self._cells.values():
            for bid in cell.bids.by_node.values() if cell.bids is not None else ():
                bid.tries = 0

    # ------------------------------------------------------------------------------------------ explaining

    def waits_for(self, cell: Cell, name: str) -> str:
        """What a gated node waits for, in words; empty if it has its permits."""
        task, bid = cell.task, None if cell.bids is None else cell.bids.by_node.get(name)
        if task is None or (bid is not None and bid.complete):
            return ""
        needs = needs_of(task, name)
        need = needs[0 if bid is None else bid.got]
        limit = need.limit
        size = f"max {limit.most}" if limit.most is not None else f"{limit.rate:g} per {limit.per_sec:g} s"
        takes = f", it takes {limit.weight}" if limit.weight > 1 else ""
        if bid is None:
            line = _line(task, name, needs)
            served = self._dispatcher.serves(line[1])
            why = "after others of its task" if served else f"once a worker serves {line[1]!r}"
            return f"limit {need.key!r} ({size}{takes}): it will ask {why}"
        if bid.place is None:
            return f"limit {need.key!r} ({size}{takes})"
        place, held = bid.place
        out = f", {held} held" if limit.most is not None else ""
        return f"limit {need.key!r} ({size}{out}{takes}): {place} come before it"

    # ------------------------------------------------------------------------------------------ letters

    def _granted(self, cell: Cell, task: Task, letter: PermitGranted) -> None:
        bid = self._bid(cell, letter)
        if bid is None or not _usable(task, letter.node):
            if over(task, letter.node, letter.claim, letter.limit_id):
                self._say_over(cell, letter)
            elif not _usable(task, letter.node) and (bid is not None or not self._bids_for(cell, letter)):
                self._unused(cell, letter)
            return
        if bid.got == 0:
            bid.held_since = self._clock.mono()
        bid.got += 1
        bid.place, bid.tries = None, 0
        if not bid.complete:
            self._ask(cell, task, bid, self._clock.wall())
            return
        assert cell.bids is not None
        cell.bids.complete[bid.node] = None
        cell.bids.asking[bid.line] -= 1

    def _asked(self, cell: Cell, task: Task, letter: PermitAsked) -> None:
        if over(task, letter.node, letter.claim, letter.limit_id):
            self._say_over(cell, letter)
        elif not _usable(task, letter.node) and not self._bids_for(cell, letter):
            self._unused(cell, letter)

    def _unused(self, cell: Cell, letter: PermitGranted | PermitAsked) -> None:
        """A permit that was asked for before a pause, which may last."""
        self.feed(cell, Item(PermitsUnused(letter.node, letter.claim)))

    def _bid(self, cell: Cell, letter: PermitGranted | PermitDelayed) -> Bid | None:
        """The bid that waits for this very permit."""
        bid = cell.bids.by_node.get(letter.node) if cell.bids is not None else None
        if bid is None or bid.leased or bid.complete or bid.claim != letter.claim:
            return None
        return bid if bid.needs[bid.got].limit_id == letter.limit_id else None

    @staticmethod
    def _bids_for(cell: Cell, letter: ToTask) -> bool:
        return cell.bids is not None and letter.node in cell.bids.by_node

    def _say_over(self, cell: Cell, letter: ToTask) -> None:
        tenant = cell.head.tenant if cell.head is not None else ""
        self.to_limit(letter.limit_id, tenant, PermitOver(cell.task_id, letter.node, letter.claim))

    # ------------------------------------------------------------------------------------------ bids

    def _bids(self, cell: Cell, task: Task) -> Bids:
        """The task's bids. At first, those of the leases that were found on loading."""
        if cell.bids is None:
            cell.bids = Bids()
            self._cells[cell.task_id] = cell
            for name in task.leased:
                if needs := needs_of(task, name):
                    claim = claim_of(task, task.runs[name])
                    cell.bids.by_node[name] = Bid(name, claim, needs, ("", ""), len(needs), leased=True)
        return cell.bids

    def _advance(self, cell: Cell, task: Task, bids: Bids) -> None:
        now = self._clock.wall()  # one for all: those that are ready since the same moment stay in their order
        for line in list(bids.waiting):
            names = bids.waiting[line]
            while names and bids.asking[line] < MOST_ASKED and self._dispatcher.serves(line[1]):
                name = names.pop()
                if name in task.gated and name not in bids.by_node:
                    self._start(cell, task, bids, name, needs_of(task, name), now)
            if not names:
                del bids.waiting[line]

    def _start(self, cell: Cell, task: Task, bids: Bids, name: str, needs: tuple[Need, ...], now: float) -> None:
        bid = Bid(name, claim_of(task, task.runs[name]), needs, _line(task, name, needs))
        bids.by_node[name] = bid
        bids.asking[bid.line] += 1
        self._ask(cell, task, bid, now)

    def _ask(self, cell: Cell, task: Task, bid: Bid, now: float) -> None:
        assert cell.head is not None
        bid.asked_at, bid.tries = self._clock.mono(), bid.tries + 1
        need = bid.needs[bid.got]
        limit = need.limit
        run = task.runs[bid.node] if task.created else None  # before that, what it waits for is its task's beginning
        wanted = PermitWanted(
            cell.task_id, cell.partition, bid.node, bid.claim, limit.most, limit.weight, limit.rate, limit.per_sec,
            limit.burst, cell.head.priority + _priority(task, bid.node),
            cell.waited(run, now),
        )  # fmt: skip
        self.to_limit(need.limit_id, task.tenant, wanted)

    def _returned(self, cell: Cell, task: Task, name: str) -> None:
        """What was given to a node that no bid is known of was given back: one of before the state was loaded."""
        run = task.runs.get(name)
        if run is None:
            return
        generation, attempt, turn = claim_of(task, run)
        for need in needs_of(task, name):
            self.to_limit(need.limit_id, task.tenant, PermitOver(cell.task_id, name, (generation, attempt, turn - 1)))

    def _check(self, cell: Cell, task: Task, name: str) -> None:
        """What was acknowledged of a node may have used its permits, or ended their claim."""
        assert cell.bids is not None
        bid = cell.bids.by_node.get(name)
        if bid is None:
            return
        letter = PermitOver(cell.task_id, name, bid.claim)
        held = bid.needs[: bid.got + 1]  # the next one may have been granted too
        if over(task, name, bid.claim, "limit:"):
            for need in held:
                if not (bid.leased and is_rate(need.limit_id)):
                    self.to_limit(need.limit_id, task.tenant, letter)
            self._forget(cell.bids, bid)
        elif not bid.leased and task.runs[name].lease is not None:
            bid.leased = True
            cell.bids.complete.pop(name, None)
            for need in held:
                if is_rate(need.limit_id):
                    self.to_limit(need.limit_id, task.tenant, letter)

    def _forget(self, bids: Bids, bid: Bid) -> None:
        del bids.by_node[bid.node]
        bids.complete.pop(bid.node, None)
        if not bid.complete:
            bids.asking[bid.line] -= 1


def _parted(queue: deque[Item], these: Callable[[Item], bool]) -> tuple[list[Item], deque[Item]]:
    return [item for item in queue if these(item)], deque(item for item in queue if not these(item))


def _is_letter(item: Item) -> bool:
    return isinstance(item.report, PermitGranted | PermitDelayed | PermitAsked)


def _usable(task: Task, name: str) -> bool:
    """Whether a permit would let the node begin: neither it nor its task is paused, and it has not begun."""
    return (task.placing and name in task.gated) or not task.created


def _priority(task: Task, name: str) -> int:
    lane = task.node(name).lane
    return 0 if lane is None else lane.priority


def _line(task: Task, name: str, needs: Sequence[Need]) -> tuple[str, str]:
    return needs[0].limit_id, task.node(name).type
