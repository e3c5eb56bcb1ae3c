"""Writes down the states of tasks whose commits have outgrown them: whoever loads one need not fold its whole history.

Never from the state in memory, which may be ahead of what is acknowledged: a replica is folded from what the store has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.history import History, Past, place_of
from flowkit.core.model import Task
from flowkit.errors import StoreUnavailable
from flowkit.ports import Clock, Store
from flowkit.slices import give_way
from flowkit.telemetry import SnapshotTaken, Telemetry
from flowkit.wire.snapshot import write_snapshot

SHARE = 0.05
"""The most of its time that a process spends on them: they are of use after a takeover, what runs is of use now."""
TIDY_SEC = 5.0
DOUBT_SEC = 30.0
"""So long after its cell has gone, a head that does not name a snapshot will not name it any more."""
SLICE_RUNS = 200


@dataclass(slots=True)
class Spare:
    """A snapshot that was handed to its cell, and the one that it replaces: one of them will be of no use. Of a cell
    that has gone, only what it said last is kept: its task may be large."""

    task_id: str
    cell: Cell | None
    new: str
    old: str
    last: str = ""
    gone_at: float | None = None

    def look(self) -> None:
        """See what the cell says of itself."""
        if self.cell is not None:
            self.last = self.cell.snapshot
            if self.cell.dead:
                self.cell = None


class Snapshots:
    """One at a time. What fails is left until as much again was committed."""

    def __init__(self, store: Store, clock: Clock, history: History, engine: Engine, telemetry: Telemetry,
                 coordinator_id: str) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._history = history
        self._engine = engine
        self._telemetry = telemetry
        self._coordinator_id = coordinator_id
        self._due: dict[str, Cell] = {}
        self._spares: list[Spare] = []
        self._tidy_at = 0.0
        self._rests_until = 0.0
        self._numbers = count(1)
        engine.on_outgrown = self.add

    def add(self, cell: Cell) -> None:
        """The cell's commits have outgrown its last snapshot."""
        self._due[cell.task_id] = cell

    async def step(self) -> None:
        """Take the snapshots that are due, and remove those that were replaced."""
        while self._due and self._clock.mono() >= self._rests_until:
            cell = self._due.pop(next(iter(self._due)))
            if self._wanted(cell) and cell.unfolded > cell.snapshot_size:
                began = self._clock.mono()
                try:
                    await self._take(cell)
                finally:
                    self._rests_until = began + (self._clock.mono() - began) / SHARE
        self._due = {task_id: cell for task_id, cell in self._due.items() if self._wanted(cell)}
        for spare in self._spares:
            spare.look()
        if self._spares and self._clock.mono() >= self._tidy_at:
            self._tidy_at = self._clock.mono() + TIDY_SEC
            await self._tidy()

    def _wanted(self, cell: Cell) -> bool:
        # An ended task's head may have been written for the last time: nothing would ever name the snapshot.
        return cell.live and cell.task is not None and not cell.task.ended and cell.partition in self._engine.owned

    async def _take(self, cell: Cell) -> None:
        cell.snapshot_size = 2 * cell.unfolded  # unless it succeeds
        past = (await self._history.load([cell.task_id])).get(cell.task_id)
        if past is None or (task := past.task) is None or task.ended:
            return
        past = replace(past, commits=())  # as large as the state, and of no use any more
        data = await written(past)
        await taken_apart(task)
        ref = f"{cell.task_id}.{self._coordinator_id}.{next(self._numbers)}"  # never given twice, whoever writes
        try:
            await self._store.put_blob(ref, data, kind="snapshot")
        except StoreUnavailable:
            await self._store.delete_blob(ref, kind="snapshot")
            raise
        if not self._wanted(cell):
            await self._store.delete_blob(ref, kind="snapshot")
            return
        spare = Spare(cell.task_id, cell, f"{past.seq}:{ref}", cell.snapshot)
        cell.snapshot, cell.snapshot_size = spare.new, len(data)
        cell.unfolded = max(0, cell.unfolded - past.unfolded)
        self._spares.append(spare)
        self._telemetry.emit(SnapshotTaken(cell.task_id, past.seq, len(data)))

    async def _tidy(self) -> None:
        """Remove what no head names any more. An acknowledged update is no proof: it may have been another's."""
        heads = await self._store.read_heads([spare.task_id for spare in self._spares])
        named = {head.task_id: head.snapshot for head in heads}
        for spare in list(self._spares):
            seen = named.get(spare.task_id, "")
            if seen == spare.new:
                # Also what coordinators left behind that died between writing one and naming it.
                await self._store.delete_snapshots(spare.task_id, but=place_of(spare.new)[1])
                self._spares.remove(spare)
            elif (useless := self._useless(spare, seen)) is not None:
                for snapshot in filter(None, useless):
                    await self._store.delete_blob(place_of(snapshot)[1], kind="snapshot")
                self._spares.remove(spare)

    def _useless(self, spare: Spare, named: str) -> list[str] | None:
        """The snapshots to remove, of one that the head does not name; None: it is too early to say."""
        spare.look()
        if spare.cell is not None and spare.last == spare.new:
            return None  # the next update of the head will name it
        if named != spare.old:  # nor will it name either of them: the cell has another by now, or somebody else had
            return [spare.old, spare.new]
        if spare.cell is not None:
            return None
        if spare.gone_at is None:
            spare.gone_at = self._clock.mono()
        return [spare.new] if self._clock.mono() - spare.gone_at > DOUBT_SEC else None


async def written(past: Past) -> bytes:
    """The snapshot of a task that was read, written down line by line while others go on."""
    assert past.task is not None
    lines: list[bytes] = []
    for line in write_snapshot(past.task, past.seq, past.commit_id):
        lines.append(line)
        await give_way()
    return b"".join(lines)


async def taken_apart(task: Task) -> None:
    """Free the nodes of a state that nobody uses any more, a few at a time: all together would keep others waiting."""
    while count := min(SLICE_RUNS, dict.__len__(task.runs)):  # those there are, not those of the graph
        for _ in range(count):
            dict.popitem(task.runs)
        await give_way()
