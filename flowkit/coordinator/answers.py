"""Answers what decisions must ask the store before they can be made."""

from __future__ import annotations

import asyncio
from typing import Any

from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.engine import Engine
from flowkit.core.effects import Fetch, Question
from flowkit.core.reports import Fetched
from flowkit.errors import Corrupt, StoreUnavailable
from flowkit.ports import Store
from flowkit.service import Supervisor
from flowkit.wire.codec import loads

MOST_AT_ONCE = 16
RETRY_SEC = 0.5


class Answers:
    """Asks once for each question of a task, and again for as long as the store does not answer."""

    def __init__(self, store: Store, engine: Engine, supervisor: Supervisor) -> None:
        self._store = store
        self._engine = engine
        self._supervisor = supervisor
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._asked: set[tuple[Cell, Question]] = set()
        engine.on_question = self.ask

    def ask(self, cell: Cell, question: Question) -> None:
        if (cell, question) not in self._asked:
            self._asked.add((cell, question))
            self._supervisor.spawn(self._answer(cell, question), "answer")

    async def _answer(self, cell: Cell, question: Question) -> None:
        try:
            while not cell.dead:
                try:
                    async with self._slots:
                        report = await self._look(question)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_SEC)
                    continue
                self._asked.discard((cell, question))
                if not cell.dead:
                    self._engine.feed(cell, Item(report))
                    self._engine.pump_dirty()
                return
        finally:
            self._asked.discard((cell, question))

    async def _look(self, question: Question) -> Fetched:
        assert isinstance(question, Fetch)
        if question.kind != "json":
            return Fetched(question.ref, error="it holds bytes, and no value that a decision can look at")
        value: Any = None
        try:
            value = loads(await self._store.get_blob(question.ref, kind="artifact"))
        except KeyError:
            return Fetched(question.ref, error="it is not in the store any more")
        except Corrupt as error:
            return Fetched(question.ref, error=str(error))
        return Fetched(question.ref, value)
