"""One SQLite file: who owns it, how it is read, and how it is written."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

from flowkit.adapters import sqlite_schema as schema
from flowkit.adapters.limits import Document, storable
from flowkit.adapters.sqlite_rows import Row, marks
from flowkit.adapters.sqlite_writer import Write, Writer, write_rows
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.ports import Outcome

FLOOR = (3, 37, 0)
# A read of so few rows is over sooner on the loop's own thread than it takes to wake another.
FEW = 32
KEYS_PER_READ = 500

Kind = TypeVar("Kind", bound=Document)
Result = TypeVar("Result")


class SqliteFile:
    """A file of FlowKit's, with a thread that writes and another that reads.

    One process owns it (`acquire_ownership`); others may insert, and read. Reads raise `StoreUnavailable`; writes
    answer UNKNOWN, or None, where the file gave no clear answer in time."""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float, busy_timeout: float) -> None:
        self.path = Path(path).absolute()
        self._timeout = timeout
        self._busy_timeout = busy_timeout
        self._lock_file: int | None = None
        self._writer: Writer | None = None
        self._near: sqlite3.Connection | None = None
        self._far: sqlite3.Connection | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._seen = (0, 0)

    # life

    async def start(self) -> None:
        if sqlite3.sqlite_version_info < FLOOR:
            raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: FlowKit needs 3.37 or newer")
        try:
            writing, self._near, self._far = await asyncio.to_thread(self._open_all)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self.path}: {error}; {_advice(error)}") from error
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error
        self._writer = Writer(writing, name=self.path.name)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"flowkit-sqlite-read {self.path.name}")
        self._seen = (self._data_version(), 0)

    async def stop(self) -> None:
        # The writer goes last: whoever closes the file last folds the log into it, and a reader cannot.
        if self._near is not None and self._far is not None and self._pool is not None:
            self._near.close()
            closed = self._pool.submit(self._far.close)
            self._pool.shutdown(wait=False)
            await asyncio.wait([asyncio.wrap_future(closed)], timeout=self._timeout)
            self._near = self._far = self._pool = None
        if self._writer is not None:
            await self._writer.stop(self._timeout)
            self._writer = None
        self.release_ownership()

    # who may run tasks from it

    @property
    def owned(self) -> bool:
        return self._lock_file is not None

    def acquire_ownership(self) -> bool:
        """Whether this process is now the file's owner. The system takes that back when the process ends."""
        if self._lock_file is None:
            lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock_file)
                return False
            self._lock_file = lock_file
        return True

    def release_ownership(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def changed(self) -> bool:
        """Whether another process wrote since the last call. Costs microseconds; sees it one call later when
        this process wrote too."""
        writer = self._running_writer()
        seen = (self._data_version(), writer.commits_begun)
        foreign = writer.saw_foreign
        writer.saw_foreign = False
        if seen[0] != self._seen[0]:
            if seen[1] == self._seen[1]:
                foreign = True
            else:
                writer.probe()
        self._seen = seen
        return foreign

    # reading

    async def read(
        self, sql: str, values: Sequence[Any], convert: Callable[[Row], Result], *, few: bool
    ) -> list[Result]:
        connection = self._near if few else self._far
        if connection is None or self._pool is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")
        try:
            if few:
                return _fetch(connection, sql, values, convert)
            async with asyncio.timeout(self._timeout):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, _fetch, connection, sql, values, convert)
        except (sqlite3.Error, UnicodeError, TimeoutError) as error:
            raise StoreUnavailable(f"{self.path}: cannot read: {str(error) or 'timed out'}") from error

    async def read_of(self, keys: Sequence[str], sql: str, then: Sequence[Any], convert: Callable[[Row], Result], *,
                      few: bool) -> list[Result]:  # fmt: skip
        """What `sql` finds for these keys, which stand first in it, as `%s`; `then` are its other values."""
        found: list[Result] = []
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            found += await self.read(sql % marks(len(part)), [*part, *then], convert, few=few)
        return found

    # writing

    async def write_all(
        self,
        documents: Sequence[Kind],
        write: Callable[[sqlite3.Connection, Sequence[Kind]], list[Outcome]],
    ) -> list[Outcome]:
        good = [document for document in documents if storable(document)]
        if not good:
            return [Outcome.UNKNOWN] * len(documents)
        answer = await self._running_writer().write(lambda connection: write(connection, good), self._timeout)
        if answer is None:
            return [Outcome.UNKNOWN] * len(documents)
        if len(good) == len(documents):
            return answer
        outcomes = iter(answer)
        return [next(outcomes) if storable(document) else Outcome.UNKNOWN for document in documents]

    async def write_each(
        self, documents: Sequence[Kind], row: Callable[[Kind], Row], sql: str, otherwise: Outcome
    ) -> list[Outcome]:
        """Write each that can be kept: OK where `sql` changed something for it, `otherwise` where not."""

        def write(connection: sqlite3.Connection, good: Sequence[Kind]) -> list[Outcome]:
            return write_rows(connection, sql, [row(document) for document in good], otherwise)

        return await self.write_all(documents, write)

    async def write_many(self, write: Write) -> list[Outcome] | None:
        return await self._running_writer().write(write, self._timeout)

    async def write_one(self, write: Callable[[sqlite3.Connection], list[Outcome]]) -> Outcome:
        answer = await self._running_writer().write(write, self._timeout)
        return Outcome.UNKNOWN if answer is None else answer[0]

    async def write_until_none(self, write: Callable[[sqlite3.Connection], list[Outcome]]) -> Outcome:
        """Write again until it finds nothing more to write."""
        while (outcome := await self.write_one(write)) is Outcome.OK:
            pass
        return Outcome.OK if outcome is Outcome.NO_MATCH else outcome

    async def execute(self, *statements: tuple[str, Sequence[Any]]) -> Outcome:
        """Do them all or none."""

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            for sql, values in statements:
                connection.execute(sql, values)
            return [Outcome.OK]

        return await self.write_one(write)

    # how

    def _open_all(self) -> tuple[sqlite3.Connection, sqlite3.Connection, sqlite3.Connection]:
        with ExitStack() as opened:
            connections = [opened.enter_context(closing(self._open()))]
            connections += [opened.enter_context(closing(self._open_reader())) for _ in range(2)]
            opened.pop_all()
        writing, near, far = connections
        return writing, near, far

    def _open(self) -> sqlite3.Connection:
        # Before SQLite makes it: its side files (-wal, -shm) take the mode of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise ConfigError("SQLite cannot keep a write-ahead log here; put the file on a local disk")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            schema.migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_reader(self) -> sqlite3.Connection:
        address = f"{self.path.as_uri()}?mode=ro"
        return sqlite3.connect(
            address, uri=True, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )

    def _data_version(self) -> int:
        if self._near is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")
        (version,) = self._near.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _running_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")
        return self._writer


def _fetch(
    connection: sqlite3.Connection, sql: str, values: Sequence[Any], convert: Callable[[Row], Result]
) -> list[Result]:
    return [convert(row) for row in connection.execute(sql, values).fetchall()]


def _advice(error: Exception) -> str:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_NOTADB":
            return "name a file of FlowKit's, or one that is not there yet"
        case "SQLITE_CORRUPT":
            return "the file is damaged: restore it from a backup"
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return "another process holds it locked: try again, or end that one"
        case "SQLITE_FULL":
            return "make room on the disk"
    return "is the directory there, writable, and local?"
