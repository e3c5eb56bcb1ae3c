"""When tasks are decided about: those with little to be decided at once; those with much as soon as what was decided
before is on its way, and piece by piece. A task of a hundred thousand nodes must not keep the others waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkit.coordinator.cell import Cell, Flight
from flowkit.core.decide import Deciding
from flowkit.slices import give_way

if TYPE_CHECKING:
    from flowkit.coordinator.engine import Engine

MUCH = 16
"""Reports of one task, or facts of one commit: more of them take more than a millisecond."""
PIECE, MOST_PIECES = 50, 20
"""The weight of the reports that are heard in one go, and how often that is done for one decision."""


@dataclass(slots=True)
class Opened:
    """A decision in the making. `flight` has the reports that were heard and what was decided; while that is done
    piece by piece it stands at its cell, so that everybody takes the task for one whose commit is on its way."""

    deciding: Deciding
    flight: Flight


class Rounds:
    """`put_off` is asked at each round; `step` makes those that were put off."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._opened: dict[str, Opened] = {}
        self._landed = False
        self._due = asyncio.Event()

    def landed(self, flight: Flight) -> None:
        """A commit is acknowledged; one of much makes much room."""
        if len(flight.facts) > MUCH:
            self._landed = True

    def put_off(self, dirty: dict[str, Cell]) -> bool:
        """Where somebody has much to be decided: decide about the others, and about him in `step`."""
        if not (self._landed or self._opened or any(map(_has_much, dirty.values()))):
            return False
        for cell in [cell for cell in dirty.values() if cell.flight is None and len(cell.queue) <= MUCH]:
            del dirty[cell.task_id]
            self._engine.pump(cell)
        self._due.set()
        return True

    def take(self, cell: Cell) -> Opened | None:
        """The decision about a cell that was begun."""
        opened = self._opened.get(cell.task_id)
        if opened is None or opened.flight.cell is not cell:
            return None
        del self._opened[cell.task_id]
        return opened

    async def step(self) -> None:
        """Wait until something was put off, and decide about it once what was decided before has left."""
        await self._due.wait()
        self._due.clear()
        self._landed = False
        await give_way()
        try:
            for cell in self._engine.dirty():
                if _has_much(cell):
                    await self._hear(cell)
        finally:
            begun = [opened.flight.cell for opened in self._opened.values() if not opened.flight.cell.dead]
            for cell in begun:
                cell.flight = None
                self._engine.touch(cell)
        self._engine.round()
        self._opened.clear()

    async def _hear(self, cell: Cell) -> None:
        """Hear what has come for a cell, all but the last piece of it."""
        task = cell.task
        if not self._engine.may_decide(cell) or task is None or not task.created or cell.cautious:
            return
        opened = self._opened[cell.task_id] = self._engine.open(cell, task)
        cell.flight = opened.flight
        for _ in range(MOST_PIECES):
            if len(cell.queue) <= MUCH or cell.letters:
                return
            if not self._engine.hear(cell, opened, PIECE):
                break
            await give_way()
            if cell.dead:  # what was heard waits in the cell that came in its place
                break
        else:
            return
        del self._opened[cell.task_id]


def _has_much(cell: Cell) -> bool:
    return cell.flight is None and len(cell.queue) > MUCH
