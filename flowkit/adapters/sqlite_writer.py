"""The one thread that writes to a FlowKit file: all writes that wait become one transaction, one fsync."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flowkit.adapters.sqlite_rows import Row
from flowkit.alarms import Alarms
from flowkit.ports import Outcome

Write = Callable[[sqlite3.Connection], list[Outcome]]

MAX_JOBS = 512
MAX_WAITING = 4096

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    write: Write
    answer: asyncio.Future[list[Outcome] | None]


class Writer:
    """Runs writes in group commits. `None` for an answer: whether it was written is unknown."""

    def __init__(self, connection: sqlite3.Connection, *, name: str) -> None:
        self.commits_begun = 0
        self.saw_foreign = False
        self._connection = connection
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(MAX_WAITING)
        self._alarms: Alarms[list[Outcome] | None] = Alarms()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._data_version = self._read_data_version()
        self._thread = threading.Thread(target=self._run, name=f"flowkit-sqlite {name}", daemon=True)
        self._thread.start()

    async def write(self, write: Write, timeout: float) -> list[Outcome] | None:
        if self._room.locked():
            try:
                async with asyncio.timeout(timeout):
                    await self._room.acquire()
            except TimeoutError:
                return None
        else:
            await self._room.acquire()  # at once
        try:
            job = Job(write, self._loop.create_future())
            self._jobs.put(job)
            await self._alarms.sleep(job.answer, timeout)
            return job.answer.result()
        finally:
            self._room.release()

    def probe(self) -> None:
        """Let the thread look for foreign writes, soon."""
        self._jobs.put(Job(lambda connection: [], self._loop.create_future()))

    async def stop(self, timeout: float) -> None:
        """Write what waits, then close the connection."""
        self._jobs.put(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._ended)

    # What follows runs in the thread.

    def _run(self) -> None:
        going = True
        while going:
            taken = [self._jobs.get()]
            with suppress(queue.Empty):
                while len(taken) < MAX_JOBS:
                    taken.append(self._jobs.get_nowait())
            jobs = [job for job in taken if job is not None]
            going = len(jobs) == len(taken)
            if jobs:
                self._call(_answer, jobs, self._transact(jobs))
        with suppress(sqlite3.Error):
            self._connection.close()
        self._call(self._ended.set_result, None)

    def _transact(self, jobs: Sequence[Job]) -> Sequence[list[Outcome] | None]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            # Now nobody else writes; what changed since our last commit was foreign.
            if (version := self._read_data_version()) != self._data_version:
                self._data_version = version
                self.saw_foreign = True
            answers = [self._attempt(job) for job in jobs] if len(jobs) > 1 else [jobs[0].write(connection)]
            self.commits_begun += 1
            connection.execute("COMMIT")
            return answers
        except Exception as error:  # locked, disk full, an I/O error: this thread has to outlive them all
            self._tell(error, f"a transaction (writes: {len(jobs)})")
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return [None] * len(jobs)

    def _attempt(self, job: Job) -> list[Outcome] | None:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            answer = job.write(connection)
        except Exception as error:  # whatever one write provokes must not cost the others
            if not connection.in_transaction:  # SQLite has rolled back everything, the other jobs too
                raise
            self._tell(error, "a write")
            connection.execute("ROLLBACK TO job")
            answer = None
        connection.execute("RELEASE job")
        return answer

    def _tell(self, error: Exception, what: str) -> None:
        # SQLite's own words are enough; a fault of ours needs the place.
        trace = None if isinstance(error, sqlite3.Error) else error
        _log.warning("%s: %s failed: %s: %s", self._name, what, type(error).__name__, error, exc_info=trace)

    def _read_data_version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _answer(jobs: Sequence[Job], answers: Sequence[list[Outcome] | None]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if not job.answer.done():
            job.answer.set_result(answer)


def write_rows(connection: sqlite3.Connection, sql: str, rows: Sequence[Row], otherwise: Outcome) -> list[Outcome]:
    """Per row: OK where it changed something, `otherwise` where not, UNKNOWN where SQLite refused it."""
    if len(rows) > 1:
        connection.execute("SAVEPOINT rows")
        with suppress(sqlite3.DatabaseError, UnicodeError, OverflowError):
            if connection.executemany(sql, rows).rowcount == len(rows):
                connection.execute("RELEASE rows")
                return [Outcome.OK] * len(rows)
        if not connection.in_transaction:
            raise sqlite3.OperationalError("the transaction was rolled back")
        connection.execute("ROLLBACK TO rows")
        connection.execute("RELEASE rows")
    return [_write_row(connection, sql, row, otherwise) for row in rows]


def _write_row(connection: sqlite3.Connection, sql: str, row: Row, otherwise: Outcome) -> Outcome:
    try:
        return Outcome.OK if connection.execute(sql, row).rowcount == 1 else otherwise
    except (sqlite3.DatabaseError, UnicodeError, OverflowError):
        if not connection.in_transaction:
            raise
        return Outcome.UNKNOWN
