"""Traces that somebody has posted, beside those that the engine records by itself: in MongoDB, or in a SQLite file of
their own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from flowkit.config import CoordinatorConfig
from flowkit.errors import StoreUnavailable
from flowkit.wire.codec import loads

T = TypeVar("T")

BUSY_SEC: Final = 5.0
ANSWER_SEC: Final = 10.0
TRIES: Final = 50
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS posted (
    trace_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, flow_id TEXT NOT NULL, runner_id TEXT NOT NULL,
    sequence INTEGER NOT NULL, at REAL NOT NULL, body TEXT NOT NULL, UNIQUE (tenant, flow_id, sequence));
CREATE INDEX IF NOT EXISTS posted_runner ON posted (tenant, runner_id);
CREATE INDEX IF NOT EXISTS posted_at ON posted (tenant, at);
"""


class PostedTraces(Protocol):
    """Rows are traces: `trace_id`, `flow_id`, `runner_id`, `at` (epoch seconds) and whatever else they have. Everything
    raises `StoreUnavailable`."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def add(self, tenant: str, row: dict[str, Any]) -> int:
        """Store a trace as the next of its flow; gives its number, from 1 on."""

    async def of_flow(self, tenant: str, flow_id: str, *, limit: int) -> list[dict[str, Any]]:
        """The traces of a flow, in order."""

    async def of_runner(self, tenant: str, runner_id: str) -> dict[str, Any] | None:
        """The newest trace of a run."""

    async def newest(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        """Newest first."""

    async def flows(self, tenant: str, *, limit: int) -> list[str]:
        """The flows that have traces, those with the newest first."""

    async def delete(self, tenant: str, trace_id: str) -> bool:
        """False where there is no such trace."""


def open_posted(db: str, collection: str) -> PostedTraces:
    """Those beside a database: in a collection of MongoDB, or beside the SQLite file."""
    if db.startswith("mongodb"):
        return MongoPosted(db, collection)
    return SqlitePosted(Path(f"{db}.traces"))


class SqlitePosted:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    async def start(self) -> None:
        await asyncio.to_thread(self._open)

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)

    async def add(self, tenant: str, row: dict[str, Any]) -> int:
        def insert(connection: sqlite3.Connection) -> int:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                found = connection.execute(
                    "SELECT coalesce(max(sequence), 0) + 1 FROM posted WHERE tenant = ? AND flow_id = ?",
                    (tenant, row["flow_id"]),
                )
                number = int(found.fetchone()[0])
                said = json.dumps({**row, "sequence": number})
                connection.execute(
                    "INSERT INTO posted VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (row["trace_id"], tenant, row["flow_id"], row["runner_id"], number, row["at"], said),
                )
            return number

        return await self._do(insert)

    async def of_flow(self, tenant: str, flow_id: str, *, limit: int) -> list[dict[str, Any]]:
        return await self._rows("flow_id = ? ORDER BY sequence LIMIT ?", tenant, flow_id, limit)

    async def of_runner(self, tenant: str, runner_id: str) -> dict[str, Any] | None:
        rows = await self._rows("runner_id = ? ORDER BY at DESC LIMIT ?", tenant, runner_id, 1)
        return rows[0] if rows else None

    async def newest(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        return await self._rows("1 ORDER BY at DESC, trace_id DESC LIMIT ?", tenant, limit)

    async def flows(self, tenant: str, *, limit: int) -> list[str]:
        said = "SELECT flow_id FROM posted WHERE tenant = ? GROUP BY flow_id ORDER BY max(at) DESC LIMIT ?"
        return await self._do(lambda connection: [row[0] for row in connection.execute(said, (tenant, limit))])

    async def delete(self, tenant: str, trace_id: str) -> bool:
        def remove(connection: sqlite3.Connection) -> bool:
            with connection:
                gone = connection.execute("DELETE FROM posted WHERE tenant = ? AND trace_id = ?", (tenant, trace_id))
            return gone.rowcount > 0

        return await self._do(remove)

    async def _rows(self, where: str, tenant: str, *values: Any) -> list[dict[str, Any]]:
        said = f"SELECT body FROM posted WHERE tenant = ? AND {where}"  # noqa: S608 - `where` is one of the above
        return await self._do(
            lambda connection: [loads(row[0]) for row in connection.execute(said, (tenant, *values))]
        )  # fmt: skip

    async def _do(self, act: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._locked, act)

    def _locked(self, act: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            if self._connection is None:
                raise StoreUnavailable(f"{self._path} is not open")
            try:
                return act(self._connection)
            except sqlite3.Error as error:
                raise StoreUnavailable(f"{self._path} does not answer: {error}") from error

    def _open(self) -> None:
        try:
            self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, timeout=BUSY_SEC, check_same_thread=False, isolation_level=None)
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;{SCHEMA}")
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path} cannot be opened: {error}") from error
        self._connection = connection


class MongoPosted:
    def __init__(self, db: str, collection: str) -> None:
        self._db = db
        self._name = collection
        self._handle: Any = None

    async def start(self) -> None:
        from flowkit.connections import mongo_handle

        self._handle = mongo_handle(self._db, CoordinatorConfig.load())

        async def prepare(collection: Any) -> None:
            for keys, unique in ((["tenant", "flow_id", "sequence"], True), (["tenant", "runner_id"], False),
                                 (["tenant", "at"], False)):  # fmt: skip
                await collection.create_index([(key, 1) for key in keys], unique=unique)

        await self._do(prepare)

    async def stop(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            await handle.close()

    async def add(self, tenant: str, row: dict[str, Any]) -> int:
        from pymongo.errors import DuplicateKeyError

        async def insert(collection: Any) -> int:
            where = {"tenant": tenant, "flow_id": row["flow_id"]}
            for _ in range(TRIES):
                last = await collection.find_one(where, {"sequence": 1}, sort=[("sequence", -1)])
                number = (last["sequence"] if last else 0) + 1
                # As one text: what a user's JSON says, a document may not be able to.
                body = json.dumps({**row, "sequence": number})
                document = {"_id": row["trace_id"], **where, "runner_id": row["runner_id"], "at": row["at"],
                            "sequence": number, "body": body}  # fmt: skip
                try:
                    await collection.insert_one(document)
                except DuplicateKeyError:
                    continue  # another has this number
                return number
            raise StoreUnavailable(f"too many post traces of flow {row['flow_id']} at a time; post it again")

        return await self._do(insert)

    async def of_flow(self, tenant: str, flow_id: str, *, limit: int) -> list[dict[str, Any]]:
        return await self._rows({"tenant": tenant, "flow_id": flow_id}, [("sequence", 1)], limit)

    async def of_runner(self, tenant: str, runner_id: str) -> dict[str, Any] | None:
        rows = await self._rows({"tenant": tenant, "runner_id": runner_id}, [("at", -1)], 1)
        return rows[0] if rows else None

    async def newest(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        return await self._rows({"tenant": tenant}, [("at", -1), ("_id", -1)], limit)

    async def flows(self, tenant: str, *, limit: int) -> list[str]:
        steps = [{"$match": {"tenant": tenant}}, {"$group": {"_id": "$flow_id", "at": {"$max": "$at"}}},
                 {"$sort": {"at": -1}}, {"$limit": limit}]  # fmt: skip

        async def read(collection: Any) -> list[str]:
            cursor = await collection.aggregate(steps)
            return [document["_id"] async for document in cursor]

        return await self._do(read)

    async def delete(self, tenant: str, trace_id: str) -> bool:
        async def remove(collection: Any) -> bool:
            gone = await collection.delete_one({"_id": trace_id, "tenant": tenant})
            return bool(gone.deleted_count)

        return await self._do(remove)

    async def _rows(self, where: dict[str, Any], order: list[tuple[str, int]], limit: int) -> list[dict[str, Any]]:
        async def read(collection: Any) -> list[dict[str, Any]]:
            found = collection.find(where, {"body": 1}).sort(order).limit(limit)
            return [loads(document["body"]) async for document in found]

        return await self._do(read)

    async def _do(self, act: Callable[[Any], Awaitable[T]]) -> T:
        from pymongo.errors import PyMongoError

        if self._handle is None:
            raise StoreUnavailable("the traces are not open")
        try:
            async with asyncio.timeout(ANSWER_SEC):
                return await act(self._handle.collection(self._name))
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._handle.address} did not answer within {ANSWER_SEC:g} s") from error
        except PyMongoError as error:
            raise StoreUnavailable(f"{self._handle.address} does not answer: {type(error).__name__}") from error
