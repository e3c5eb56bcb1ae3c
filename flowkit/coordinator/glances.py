"""Asks for many waiters at once whether their tasks have moved on."""

from __future__ import annotations

import asyncio

from flowkit.coordinator.hub import Listener
from flowkit.errors import StoreUnavailable
from flowkit.ports import Store
from flowkit.service import Supervisor

GATHER_SEC = 0.5
BATCH = 500

Asked = dict[str, list[Listener]]


class Glances:
    """Whether a task that only waits has moved is told by one read for all that are asked about within half a second:
    to load each would cost as much as to run it."""

    def __init__(self, store: Store, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor
        self._asked: dict[int, Asked] = {}
        self._answering: asyncio.Task[None] | None = None

    def ask(self, task_id: str, seen: int, listener: Listener) -> None:
        """Poke the listener soon if the task has commits after `seen`, or if nobody can tell."""
        self._asked.setdefault(seen, {}).setdefault(task_id, []).append(listener)
        if self._answering is None or self._answering.done():
            self._answering = self._supervisor.spawn(self._answer(), "glances")

    async def _answer(self) -> None:
        while self._asked:
            await asyncio.sleep(GATHER_SEC)
            asked, self._asked = self._asked, {}
            for seen, of_tasks in asked.items():
                ids = list(of_tasks)
                for start in range(0, len(ids), BATCH):
                    for task_id in await self._moved(ids[start : start + BATCH], seen):
                        for listener in of_tasks[task_id]:
                            listener.poke()

    async def _moved(self, ids: list[str], seen: int) -> list[str]:
        try:
            commits = await self._store.read_commits(ids, after=seen)
        except StoreUnavailable:
            return ids  # whoever reads will be told so
        return list(dict.fromkeys(commit.task_id for commit in commits))
