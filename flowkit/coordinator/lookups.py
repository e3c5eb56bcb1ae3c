"""Reads single tasks for whoever asks: those that are asked for at the same time share a read."""

from __future__ import annotations

import asyncio
from itertools import islice

from flowkit.coordinator.history import History, Past
from flowkit.errors import StoreUnavailable
from flowkit.service import Supervisor

AT_ONCE = 4
BATCH = 64

Answer = asyncio.Future[Past | None]


class Lookups:
    """A read of one task costs two round trips, and a read of 64 costs as many. So only `AT_ONCE` reads are under way,
    and whoever asks meanwhile is answered by the next: one that begins later than the question, and never sees less."""

    def __init__(self, history: History, supervisor: Supervisor) -> None:
        self._history = history
        self._supervisor = supervisor
        self._asked: dict[str, list[Answer]] = {}
        self._readers = 0
        self._coming = False

    async def past(self, task_id: str) -> Past | None:
        """The task as the store has it, for reading only: others may have been given the same. None for one that is
        unknown or deleted. Raises `StoreUnavailable`."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self._asked.setdefault(task_id, []).append(answer)
        self._call()
        return await answer

    def _call(self) -> None:
        """Have one more reader, if there may be."""
        if self._asked and not self._coming and self._readers < AT_ONCE:
            self._coming = True
            self._supervisor.spawn(self._read(), "lookups").add_done_callback(self._stopped)

    async def _read(self) -> None:
        self._coming = False
        self._readers += 1
        try:
            while self._asked:
                batch = {task_id: self._asked.pop(task_id) for task_id in list(islice(self._asked, BATCH))}
                self._call()
                await self._answer(batch)
        finally:
            self._readers -= 1

    def _stopped(self, reader: asyncio.Task[None]) -> None:
        """If it was, whether it had begun or not: what nobody else will read is told so."""
        if reader.cancelled():
            self._coming = False
            if not self._readers:
                _fail(self._asked, StoreUnavailable("reading ended before it was this task's turn"))

    async def _answer(self, batch: dict[str, list[Answer]]) -> None:
        """Each as soon as it is there: small tasks do not wait for a large one."""
        try:
            async for pasts in self._history.batches(list(batch)):
                for past in pasts:
                    _tell(batch.pop(past.head.task_id), None if past.deleted else past)
        except asyncio.CancelledError:
            _fail(batch, StoreUnavailable("reading ended before this task was read"))
            raise
        except Exception as error:  # whoever asked is to know, whatever it is; the reader serves the others
            _fail(batch, error)
        while batch:
            _tell(batch.popitem()[1], None)


def _tell(answers: list[Answer], past: Past | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(past)


def _fail(asked: dict[str, list[Answer]], error: Exception) -> None:
    while asked:
        for answer in asked.popitem()[1]:
            if not answer.done():
                answer.set_exception(error)
