"""Writes heads behind the commits: coalesced, guarded, never ahead of what is acknowledged (rules 9 and 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowkit.coordinator.cell import Cell, Front
from flowkit.core.model import ENDED_TASK, Task
from flowkit.ports import Clock, HeadUpdate, Outcome, Store

BATCH = 1000
BUSY_WAKE_SEC = 30.0
IDLE_WAKE_SEC = 600.0
CHILDREN_WAKE_SEC = 60.0
"""How long the end of a child may go unheard where nobody has its parent in memory."""


def front_of(task: Task, now: float) -> Front:
    """What the head should say of an acknowledged state. A task that is at work is woken by its owner; the wake in its
    head is for the case that nobody watches it: an owner of yesterday may still have leased a node of it. A paused task
    without timers has none: only a request moves it, and those are swept by themselves."""
    error = None if task.error is None else str(task.error.get("message", ""))[:500]
    if task.ended:
        return Front(task.status, None, task.ended_at, error)
    timer = task.next_wake()
    if task.leased or ((task.ready or task.gated) and not task.paused) or task.due:
        wake: float | None = now + BUSY_WAKE_SEC
    elif task.children:
        wake = min(now + CHILDREN_WAKE_SEC, timer if timer is not None else now + CHILDREN_WAKE_SEC)
    elif timer is not None:
        wake = timer
    else:
        wake = None if task.paused else now + IDLE_WAKE_SEC
    return Front(task.status, wake, None, error)


class Heads:
    """Every cell whose head lags is written within one step; then its requests are marked, and it may leave memory.
    `on_missing` hears of tasks whose head is not there."""

    def __init__(self, store: Store, clock: Clock, on_stored: Callable[[Cell], None],
                 on_missing: Callable[[str], None] = lambda task_id: None) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._on_stored = on_stored
        self._on_missing = on_missing
        self._lagging: dict[str, Cell] = {}

    def touch(self, cell: Cell) -> None:
        self._lagging[cell.task_id] = cell

    async def step(self) -> None:
        """Write the heads that lag, then mark the requests whose head has followed."""
        lagging, self._lagging = self._lagging, {}
        due: list[Cell] = []
        for cell in lagging.values():
            if cell.dead:
                continue
            if not cell.head_due and not cell.to_mark:
                self._on_stored(cell)
                continue
            self.touch(cell)  # until there is nothing left to write: whatever fails is tried again
            if cell.head_due:
                due.append(cell)
        for start in range(0, len(due), BATCH):
            await self._write(due[start : start + BATCH])
        await self._mark([cell for cell in lagging.values() if cell.to_mark and min(cell.stored) >= cell.acked])

    async def _write(self, cells: Sequence[Cell]) -> None:
        now = self._clock.wall()
        updates = [update_of(cell, now) for cell in cells]
        outcomes = await self._store.update_heads(updates)
        if Outcome.NO_MATCH in outcomes:
            outcomes = await self._ask_why(updates, outcomes)
        for cell, update, outcome in zip(cells, updates, outcomes, strict=True):
            if outcome is Outcome.OK:
                cell.stored = max(cell.stored, (update.seq, update.published_seq))

    async def _ask_why(self, updates: Sequence[HeadUpdate], outcomes: list[Outcome]) -> list[Outcome]:
        """No match may be one's own write, not majority yet when it was asked: a majority read tells. Or the task was
        deleted, and its head says more than the owner knows, or is gone."""
        unsure = [u.task_id for u, outcome in zip(updates, outcomes, strict=True) if outcome is Outcome.NO_MATCH]
        stored = {head.task_id: (head.seq, head.published_seq) for head in await self._store.read_heads(unsure)}
        for task_id in unsure:
            if task_id not in stored:
                self._on_missing(task_id)
        return [
            Outcome.OK
            if outcome is Outcome.NO_MATCH and stored.get(u.task_id, (-1, -1)) >= (u.seq, u.published_seq)
            else outcome
            for u, outcome in zip(updates, outcomes, strict=True)
        ]

    async def _mark(self, cells: Sequence[Cell]) -> None:
        keys = [(cell.task_id, n) for cell in cells for n in cell.to_mark]
        if keys and await self._store.mark_applied(keys) is Outcome.OK:
            done = set(keys)
            for cell in cells:
                cell.to_mark = [n for n in cell.to_mark if (cell.task_id, n) not in done]


def update_of(cell: Cell, now: float) -> HeadUpdate:
    ended = cell.front.status in ENDED_TASK
    return HeadUpdate(
        task_id=cell.task_id,
        status=cell.front.status,
        seq=cell.acked,
        published_seq=cell.published,
        active=not (ended and cell.published >= cell.acked),
        next_wake=cell.front.wake,
        updated_at=now,
        ended_at=cell.front.ended_at,
        error=cell.quarantine[:500] or cell.front.error,
        snapshot=cell.snapshot,
    )
