"""Lets go of what is over: deletes tasks whose retention has ended, removes what is left of deleted ones, and graphs
that no task names any more.

In slices, of the partitions owned here only, and in a small share of the time: nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.graphs import IDLE_SEC
from flowkit.core.model import ENDED_TASK
from flowkit.ports import DELETED, Clock, Head, Outcome, Store
from flowkit.telemetry import TasksDeleted, TasksRemoved, Telemetry

SHARE: Final = 0.05
"""The most of its time that a process spends on it..."""
LATE_SHARE: Final = 0.2
"""... and while that does not keep up."""
LATE_SEC: Final = 3600.0
"""Then the oldest of what is due has been so for longer than this."""
BATCH: Final = 50
GRAPHS: Final = 50
FIRST_LOOK_SEC: Final = 2.0
LOOK_SEC: Final = 30.0
"""How often it is looked for what is due."""
DOUBT_SEC: Final = 60.0
"""A head that was not found is looked for again after so long, before what may belong to it is removed."""
MOST_STRAYS: Final = 1000
MOST_REQUESTS: Final = 10_000

Slice = Callable[[], Coroutine[Any, Any, float | None]]
"""Does a part of what is due. Gives for how many seconds what is left has been due; None if nothing is left."""


class Retention:
    """`keep_sec` says for each status how long after its end a task is kept; None: for ever."""

    def __init__(self, store: Store, clock: Clock, engine: Engine, deletion: Deletion, telemetry: Telemetry,
                 keep_sec: Mapping[str, float | None]) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._engine = engine
        self._deletion = deletion
        self._telemetry = telemetry
        self._keep_sec = {str(status): keep_sec[status] for status in sorted(ENDED_TASK)}
        self._pages: dict[str, tuple[float, str] | None] = {}
        self._strays: dict[str, float] = {}
        slices: tuple[Slice, ...] = (self._look_after_strays, self._remove, self._expire, self._collect_graphs)
        self._looks_at = dict.fromkeys(slices, clock.mono() + FIRST_LOOK_SEC)
        self._rests_until = 0.0
        engine.on_stray = self.add_stray

    def add_stray(self, task_id: str) -> None:
        """Something came for a task that is not there."""
        if len(self._strays) < MOST_STRAYS:
            self._strays.setdefault(task_id, self._clock.mono() + DOUBT_SEC)

    async def step(self) -> None:
        """Do one slice of what is due, if its share of the time is not spent."""
        began = self._clock.mono()
        due = min(self._looks_at, key=lambda one: self._looks_at[one])
        if began < max(self._looks_at[due], self._rests_until) or not self._engine.owned:
            return
        self._looks_at[due] = began + LOOK_SEC  # also where it fails
        late: float | None = None
        try:
            late = await due()
        finally:
            now = self._clock.mono()
            share = LATE_SHARE if late is not None and late > LATE_SEC else SHARE
            self._rests_until = now + (now - began) / share
            if late is not None:
                self._looks_at[due] = now

    # ------------------------------------------------------------------------------------------ retention

    async def _expire(self) -> float | None:
        """Delete a page of the tasks of one status."""
        if not self._pages:
            self._pages = {status: None for status, keep in self._keep_sec.items() if keep is not None}
        for status in list(self._pages):
            if (late := await self._expire_page(status)) is not None:
                return late
            del self._pages[status]
        return None

    async def _expire_page(self, status: str) -> float | None:
        keep = self._keep_sec[status]
        assert keep is not None
        before = self._clock.wall() - keep
        heads = await self._store.ended_heads(
            self._engine.owned, status, before, limit=BATCH, after=self._pages[status]
        )
        if not heads:
            return None
        # Those that live on are not looked at again before the next round.
        ended_at = heads[-1].ended_at or 0.0
        self._pages[status] = (ended_at, heads[-1].task_id)
        await self._delete(await self._free(heads))
        return before - ended_at if len(heads) == BATCH else None

    async def _free(self, heads: list[Head]) -> list[Head]:
        """Those that nobody has asked to run again, with the children of each behind it, if all have ended."""
        requests = await self._store.open_requests(self._engine.owned, limit=MOST_REQUESTS)
        asked = {request.task_id for request in requests}
        heads = [head for head in heads if head.task_id not in asked]
        parents = await self._store.parents_among([head.task_id for head in heads])
        free: list[Head] = []
        for head in heads:
            family = await self._deletion.family(head) if head.task_id in parents else []
            if not any(one.active or one.task_id in asked for one in family):
                free += [head, *family]
        return free

    async def _delete(self, heads: list[Head]) -> None:
        dead = await self._deletion.bury(heads)
        for head in dead:
            self._engine.forget_task(head.task_id)
        if dead:
            self._telemetry.emit(TasksDeleted(len(dead)))

    # ------------------------------------------------------------------------------------------ what is left

    async def _remove(self) -> float | None:
        """Remove what is left of deleted tasks."""
        now = self._clock.wall()
        heads = await self._store.removable_heads(self._engine.owned, now, limit=BATCH)
        for head in heads:
            if head.status == DELETED:
                self._engine.forget_task(head.task_id)
        removed = await self._deletion.remove(heads) if heads else []
        if removed:
            self._telemetry.emit(TasksRemoved(len(removed)))
        return now - (heads[-1].remove_at or now) if len(heads) == BATCH else None

    async def _collect_graphs(self) -> float | None:
        """Look at the graphs that nobody has put for long."""
        now = self._clock.wall()
        refs = await self._store.idle_graphs(now - IDLE_SEC, limit=GRAPHS)
        if refs:
            await self._store.collect_graphs(refs, now - IDLE_SEC, at=now)
        return 0.0 if len(refs) == GRAPHS else None

    # ------------------------------------------------------------------------------------------ strays

    async def _look_after_strays(self) -> float | None:
        """What was written about a task behind its removal goes too: a request whose head was read before, the
        artifact of a worker that came late, a commit of an owner that was frozen all the while."""
        now = self._clock.mono()
        due = [task_id for task_id, at in self._strays.items() if at <= now][:BATCH]
        if due:
            heads = {head.task_id: head for head in await self._store.read_heads(due)}
            if await self._deletion.purge([one for one in due if one not in heads]) is not Outcome.OK:
                return None
            for task_id in due:
                del self._strays[task_id]
        return 0.0 if len(due) == BATCH else None
