"""Keeps the engine's documents in one SQLite file: the store of embedded mode."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowkit.adapters import sqlite_removal as removing
from flowkit.adapters import sqlite_schema as schema
from flowkit.adapters.limits import MAX_INT, chunks, storable
from flowkit.adapters.sqlite_schema import Row
from flowkit.adapters.sqlite_secrets import SqliteSecrets
from flowkit.adapters.sqlite_writer import Write, Writer, write_rows
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.ports import (
    FOREVER,
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadFilter,
    HeadUpdate,
    Kept,
    LimitRecord,
    LimitSwap,
    Outcome,
    Removal,
    Renewal,
    Request,
    StreamId,
)

FLOOR = (3, 37, 0)
# A read of so few rows is over sooner on the loop's own thread than it takes to wake another.
FEW = 32
IDS_PER_READ = 500
CHUNKS_PER_WRITE = 8

Document = TypeVar("Document", Head, HeadUpdate, Commit, Request, FlowVersion, FlowTag, LimitSwap, Block)
Result = TypeVar("Result")


class SqliteStore:
    """A `Store` in a file.

    One process owns it (`acquire_ownership`); others may insert heads and requests, and read."""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 10.0, busy_timeout: float = 5.0) -> None:
        self.path = Path(path).absolute()
        self._timeout = timeout
        self._busy_timeout = busy_timeout
        self._lock_file: int | None = None
        self._writer: Writer | None = None
        self._near: sqlite3.Connection | None = None
        self._far: sqlite3.Connection | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._seen = (0, 0)
        self.secrets = SqliteSecrets(self._read, self._write_many)

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

    # who may run tasks from this file

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

    # heads

    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[Head]) -> list[Outcome]:
            rows = [schema.head_row(head) for head in good]
            outcomes = write_rows(connection, schema.INSERT_HEAD, rows, Outcome.DUPLICATE)
            labels = [
                (key, value, head.task_id)
                for head, outcome in zip(good, outcomes, strict=True)
                if outcome is Outcome.OK
                for key, value in head.labels.items()
            ]
            connection.executemany(schema.INSERT_LABEL, labels)
            return outcomes

        return await self._write_all(heads, write)

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[HeadUpdate]) -> list[Outcome]:
            rows = [schema.update_row(update) for update in good]
            return write_rows(connection, schema.UPDATE_HEAD, rows, Outcome.NO_MATCH)

        return await self._write_all(updates, write)

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        ids = list(dict.fromkeys(task_ids))
        found: list[Head] = []
        for start in range(0, len(ids), IDS_PER_READ):
            part = ids[start : start + IDS_PER_READ]
            sql = f"SELECT {schema.HEAD} FROM heads WHERE task_id IN ({schema.marks(len(part))})"  # noqa: S608
            found += await self._read(sql, part, schema.row_head, few=len(ids) <= FEW)
        return found

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        sql, values = schema.list_query(where, limit, after)
        return await self._read(sql, values, schema.row_head, few=False)

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        sql = f"""SELECT {schema.HEAD} FROM heads WHERE part = ? AND active = 1 AND task_id > ?
            ORDER BY task_id LIMIT ?"""  # noqa: S608
        return await self._read(sql, [partition, after, limit], schema.row_head, few=False)

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        wanted = sorted(set(partitions))
        sql = f"""SELECT {schema.HEAD} FROM heads WHERE part IN ({schema.marks(len(wanted))}) AND active = 1
            AND wake <= ? ORDER BY wake, task_id LIMIT ?"""  # noqa: S608
        return await self._read(sql, [*wanted, now, limit], schema.row_head, few=False)

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        wanted = sorted(set(partitions))
        sql, values = schema.ended_query(wanted, status, before, limit, after)
        return await self._read(sql, values, schema.row_head, few=False)

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        found: list[str] = []
        for start in range(0, len(task_ids), IDS_PER_READ):
            part = task_ids[start : start + IDS_PER_READ]
            sql = f"SELECT DISTINCT parent FROM heads WHERE parent IN ({schema.marks(len(part))})"  # noqa: S608
            found += await self._read(sql, part, lambda row: row[0], few=False)
        return set(found)

    # deleting

    async def schedule_removal(self, removal: Removal) -> Outcome:
        return await self._write_one(lambda connection: removing.schedule(connection, removal))

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        wanted = sorted(set(partitions))
        sql = f"""SELECT {schema.HEAD} FROM heads WHERE part IN ({schema.marks(len(wanted))})
            AND remove_at IS NOT NULL AND remove_at <= ? ORDER BY remove_at, task_id LIMIT ?"""  # noqa: S608
        return await self._read(sql, [*wanted, now, limit], schema.row_head, few=False)

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        for start in range(0, len(task_ids), IDS_PER_READ):
            part = task_ids[start : start + IDS_PER_READ]
            for table in ("requests", "blocks", "commits"):
                if (
                    await self._write_all_of(partial(removing.delete_rows, table=table, task_ids=part))
                    is not Outcome.OK
                ):
                    return Outcome.UNKNOWN
            if await self._write_one(partial(removing.delete_snapshots, task_ids=part)) is not Outcome.OK:
                return Outcome.UNKNOWN
        return Outcome.OK

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        for start in range(0, len(task_ids), IDS_PER_READ):
            part = task_ids[start : start + IDS_PER_READ]
            if await self._write_all_of(partial(removing.collect_artifacts, task_ids=part)) is not Outcome.OK:
                return Outcome.UNKNOWN
        return Outcome.OK

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        return await self._write_one(partial(removing.delete_heads, heads=heads))

    # commits

    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[Commit]) -> list[Outcome]:
            rows = [schema.commit_row(commit) for commit in good]
            return write_rows(connection, schema.INSERT_COMMIT, rows, Outcome.DUPLICATE)

        return await self._write_all(commits, write)

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        ids = sorted(set(task_ids))
        found: list[Commit] = []
        for start in range(0, len(ids), IDS_PER_READ):
            part = ids[start : start + IDS_PER_READ]
            sql = f"""SELECT {schema.COMMIT} FROM commits WHERE task_id IN ({schema.marks(len(part))})
                AND seq > ? ORDER BY task_id, seq"""  # noqa: S608
            found += await self._read(sql, [*part, after], lambda row: Commit(*row), few=False)
        return found

    # requests

    async def insert_request(self, request: Request) -> Outcome:
        def write(connection: sqlite3.Connection, good: Sequence[Request]) -> list[Outcome]:
            rows = [schema.request_row(one) for one in good]
            return write_rows(connection, schema.INSERT_REQUEST, rows, Outcome.DUPLICATE)

        return (await self._write_all([request], write))[0]

    async def read_requests(self, task_id: str) -> list[Request]:
        sql = f"SELECT {schema.REQUEST} FROM requests WHERE task_id = ? ORDER BY n"  # noqa: S608
        return await self._read(sql, [task_id], schema.row_request, few=True)

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        wanted = sorted(set(partitions))
        sql = f"""SELECT {schema.REQUEST} FROM requests WHERE part IN ({schema.marks(len(wanted))})
            AND applied = 0 ORDER BY task_id, n LIMIT ?"""  # noqa: S608
        return await self._read(sql, [*wanted, limit], schema.row_request, few=False)

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.executemany(schema.MARK_APPLIED, keys)
            return [Outcome.OK]

        return await self._write_one(write)

    # streams

    async def insert_block(self, block: Block) -> Outcome:
        def write(connection: sqlite3.Connection, good: Sequence[Block]) -> list[Outcome]:
            rows = [schema.block_row(one) for one in good]
            return write_rows(connection, schema.INSERT_BLOCK, rows, Outcome.DUPLICATE)

        return (await self._write_all([block], write))[0]

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        sql = f"{schema.OF_STREAM} AND seq > ? ORDER BY seq LIMIT ?"
        values = [*schema.stream_key(stream), after, limit]
        return await self._read(sql, values, schema.row_block, few=False)

    async def last_block(self, stream: StreamId) -> Block | None:
        sql = f"{schema.OF_STREAM} ORDER BY seq DESC LIMIT 1"
        found = await self._read(sql, schema.stream_key(stream), schema.row_block, few=True)
        return found[0] if found else None

    async def delete_blocks(self, task_id: str) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.execute("DELETE FROM blocks WHERE task_id = ?", (task_id,))
            return [Outcome.OK]

        return await self._write_one(write)

    # limits

    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        ids = list(dict.fromkeys(limit_ids))
        found: list[LimitRecord] = []
        for start in range(0, len(ids), IDS_PER_READ):
            part = ids[start : start + IDS_PER_READ]
            sql = f"SELECT {schema.LIMIT} FROM limits WHERE limit_id IN ({schema.marks(len(part))})"  # noqa: S608
            found += await self._read(sql, part, lambda row: LimitRecord(*row), few=len(ids) <= FEW)
        return found

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        sql = f"SELECT {schema.LIMIT} FROM limits WHERE part = ? AND limit_id > ? ORDER BY limit_id LIMIT ?"  # noqa: S608
        return await self._read(sql, [partition, after, limit], lambda row: LimitRecord(*row), few=False)

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[LimitSwap]) -> list[Outcome]:
            return [schema.swap_limit(connection, swap) for swap in good]

        return await self._write_all(swaps, write)

    # graphs, artifacts and snapshots

    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        pieces = chunks(data)
        rows: list[Row] = [(kind, ref, i, len(pieces), piece) for i, piece in enumerate(pieces)]

        # Other writers get their turn in between; a blob that is not whole reads as missing.
        for start in range(0, len(rows), CHUNKS_PER_WRITE):
            part = rows[start : start + CHUNKS_PER_WRITE]

            def write(connection: sqlite3.Connection, part: list[Row] = part) -> list[Outcome]:
                if kind == "artifact" or for_task:
                    connection.execute(schema.CLAIM, (for_task, ref))
                if kind == "graph":
                    connection.execute(schema.PUT_GRAPH, (ref, at))
                connection.executemany(schema.INSERT_CHUNK, part)
                return [Outcome.OK]

            if await self._write_one(write) is not Outcome.OK:
                raise StoreUnavailable(f"{self.path}: {kind} {ref!r} was not written; is the disk full or locked?")

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        sql = "SELECT of, data FROM blobs WHERE kind = ? AND ref = ? ORDER BY i"
        rows = await self._read(sql, [kind, ref], lambda row: row, few=False)
        if not rows or len(rows) != rows[0][0]:
            raise KeyError(ref)
        return b"".join(data for _, data in rows)

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.execute("DELETE FROM blobs WHERE kind = ? AND ref = ?", (kind, ref))
            return [Outcome.OK]

        return await self._write_one(write)

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        return await self._write_one(partial(removing.delete_snapshots, task_ids=[task_id], but=but))

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        sql = "SELECT ref FROM graphs WHERE put_at < ? ORDER BY put_at, ref LIMIT ?"
        return await self._read(sql, [before, limit], lambda row: str(row[0]), few=False)

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        return await self._write_one(partial(removing.collect_graphs, refs=refs, before=before, at=at))

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        def write(connection: sqlite3.Connection, good: Sequence[FlowVersion]) -> list[Outcome]:
            rows = [schema.flow_row(one) for one in good]
            return write_rows(connection, schema.INSERT_FLOW, rows, Outcome.DUPLICATE)

        return (await self._write_all([version], write))[0]

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        sql = f"""SELECT {schema.FLOW} FROM flows WHERE tenant = ? AND name = ? AND version < ?
            ORDER BY version DESC LIMIT ?"""  # noqa: S608
        below = MAX_INT if before is None else before
        return await self._read(sql, [tenant, name, below, limit], lambda row: FlowVersion(*row), few=limit <= FEW)

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        # With max() the other columns are those of the row that has it.
        newest = schema.FLOW.replace("version", "max(version)")
        sql = f"""SELECT {newest} FROM flows WHERE tenant = ? AND name > ?
            GROUP BY name ORDER BY name LIMIT ?"""  # noqa: S608
        return await self._read(sql, [tenant, after, limit], lambda row: FlowVersion(*row), few=False)

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        def write(connection: sqlite3.Connection, good: Sequence[FlowTag]) -> list[Outcome]:
            if tag.revision == 1:
                return write_rows(connection, schema.INSERT_TAG, [schema.tag_row(tag)], Outcome.NO_MATCH)
            return write_rows(connection, schema.MOVE_TAG, [schema.move_row(tag)], Outcome.NO_MATCH)

        return (await self._write_all([tag], write))[0]

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        wanted = sorted(set(names))
        found: list[FlowTag] = []
        for start in range(0, len(wanted), IDS_PER_READ):
            part = wanted[start : start + IDS_PER_READ]
            sql = f"""SELECT {schema.TAG} FROM flow_tags WHERE tenant = ? AND name IN ({schema.marks(len(part))})
                ORDER BY name, tag"""  # noqa: S608
            found += await self._read(sql, [tenant, *part], lambda row: FlowTag(*row), few=len(wanted) <= FEW)
        return found

    # outputs that are kept

    async def keep(self, kept: Kept) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.execute(schema.FORGET_KEPT)
            connection.execute(schema.KEEP, (kept.key, kept.body, kept.until))
            return [Outcome.OK]

        return await self._write_one(write)

    async def find_kept(self, key: str, now: float) -> Kept | None:
        sql = "SELECT key, body, until FROM kept WHERE key = ? AND until > ?"
        found = await self._read(sql, [key, now], lambda row: Kept(*row), few=True)
        return found[0] if found else None

    # workers

    async def renew(self, renewal: Renewal) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.execute(schema.RENEW, schema.renewal_row(renewal))
            return [Outcome.OK]

        return await self._write_one(write)

    async def read_renewal(self, worker: str) -> Renewal | None:
        sql = "SELECT worker, incarnation, count, tokens FROM workers WHERE worker = ?"
        found = await self._read(sql, [worker], schema.row_renewal, few=True)
        return found[0] if found else None

    # for the operator

    async def describe(self) -> Mapping[str, Any]:
        counts = """SELECT (SELECT count(*) FROM heads), (SELECT count(*) FROM commits),
            (SELECT max(version) FROM schema_version), (SELECT count(*) FROM heads WHERE remove_at IS NOT NULL)"""
        ((tasks, commits, version, deleted),) = await self._read(counts, [], lambda row: row, few=False)
        return {
            "kind": "sqlite",
            "address": str(self.path),
            "version": sqlite3.sqlite_version,
            "schema": version,
            "owner": self._lock_file is not None,
            "bytes": self.path.stat().st_size,
            "tasks": tasks,
            "commits": commits,
            "deleted": deleted,
        }

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

    async def _write_all(
        self,
        documents: Sequence[Document],
        write: Callable[[sqlite3.Connection, Sequence[Document]], list[Outcome]],
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

    async def _write_many(self, write: Write) -> list[Outcome] | None:
        return await self._running_writer().write(write, self._timeout)

    async def _write_one(self, write: Callable[[sqlite3.Connection], list[Outcome]]) -> Outcome:
        answer = await self._running_writer().write(write, self._timeout)
        return Outcome.UNKNOWN if answer is None else answer[0]

    async def _write_all_of(self, write: Callable[[sqlite3.Connection], list[Outcome]]) -> Outcome:
        """Write again until it finds nothing more to write."""
        while (outcome := await self._write_one(write)) is Outcome.OK:
            pass
        return Outcome.OK if outcome is Outcome.NO_MATCH else outcome

    async def _read(
        self, sql: str, values: Sequence[Any], convert: Callable[[Row], Result], *, few: bool
    ) -> list[Result]:
        connection = self._near if few else self._far
        if connection is None or self._pool is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")

        def read() -> list[Result]:
            return [convert(row) for row in connection.execute(sql, values).fetchall()]

        try:
            if few:
                return read()
            async with asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._pool, read)
        except (sqlite3.Error, UnicodeError, TimeoutError) as error:
            raise StoreUnavailable(f"{self.path}: cannot read: {str(error) or 'timed out'}") from error

    def _data_version(self) -> int:
        if self._near is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")
        (version,) = self._near.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _running_writer(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable(f"{self.path}: the store is not started")
        return self._writer


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
