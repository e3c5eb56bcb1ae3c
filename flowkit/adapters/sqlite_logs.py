"""Keeps what attempts say in a FlowKit file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from flowkit.adapters.sqlite_rows import Row
from flowkit.adapters.sqlite_writer import write_rows
from flowkit.monitor_ports import LogBlock, LogQuery
from flowkit.ports import Outcome

BLOCK = "task_id, tenant, node, base, attempt, first, count, level, until, place, body"
INSERT = (
    f"INSERT INTO logs ({BLOCK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "ON CONFLICT (task_id, node, attempt, first) DO NOTHING"
)
EXPIRE = "DELETE FROM logs WHERE rowid IN (SELECT rowid FROM logs WHERE until < ? LIMIT ?)"


class SqliteLogs:
    """A `LogStore` by the connections of a `SqliteStore`: these are its ways to read and to write."""

    def __init__(self, read: Any, write_all: Any, write_one: Any) -> None:
        self._read = read
        self._write_all = write_all
        self._write_one = write_one

    async def insert_logs(self, blocks: Sequence[LogBlock]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[LogBlock]) -> list[Outcome]:
            return write_rows(connection, INSERT, [_row(block) for block in good], Outcome.DUPLICATE)

        outcomes: list[Outcome] = await self._write_all(blocks, write)
        return outcomes

    async def read_logs(self, query: LogQuery, *, limit: int) -> list[LogBlock]:
        terms: list[tuple[str, list[Any]]] = [("task_id = ?", [query.task_id])]
        if query.node is not None:
            terms.append(("(node = ? OR base = ?)", [query.node, query.node]))
        if query.attempt is not None:
            terms.append(("attempt = ?", [query.attempt]))
        if query.level:
            terms.append(("level >= ?", [query.level]))
        if query.since is not None:
            terms.append(("until >= ?", [query.since]))
        if query.start is not None:
            terms.append(("(place, node, attempt, first) >= (?, ?, ?, ?)", list(query.start)))
        condition = " AND ".join(term for term, _ in terms)
        sql = f"SELECT {BLOCK} FROM logs WHERE {condition} ORDER BY place, node, attempt, first LIMIT ?"  # noqa: S608
        values = [*(value for _, given in terms for value in given), limit]
        found: list[LogBlock] = await self._read(sql, values, lambda row: LogBlock(*row), few=False)
        return found

    async def expire_logs(self, before: float, *, limit: int) -> int:
        removed = 0

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            nonlocal removed
            removed = connection.execute(EXPIRE, (before, limit)).rowcount
            return [Outcome.OK]

        outcome = await self._write_one(write)
        return removed if outcome is Outcome.OK else 0


def _row(block: LogBlock) -> Row:
    return (
        *(block.task_id, block.tenant, block.node, block.base, block.attempt, block.first, block.count, block.level),
        *(block.until, block.place, block.body),
    )
