"""Keeps the index of ended attempts in a FlowKit file."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.adapters.sqlite_schema import Row, marks
from flowkit.adapters.sqlite_writer import write_rows
from flowkit.monitor_ports import AttemptQuery, AttemptRecord, HistogramRow, bin_of
from flowkit.ports import Outcome

DAY_SEC = 86_400
IDS_PER_READ = 500
RECORD = (
    "task_id, tenant, flow, node, base, role, attempt, generation, outcome, code, worker, ready_at, leased_at, "
    "ended_at, run_sec, seq"
)
INSERT = (
    f"INSERT INTO attempts ({RECORD}, day, bin, bad) VALUES ({marks(19)}) "  # noqa: S608
    "ON CONFLICT (task_id, node, attempt) DO NOTHING"
)
MARK = (
    "INSERT INTO indexed (task_id, seq) VALUES (?, ?) ON CONFLICT (task_id) "
    "DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq"
)
EXPIRE = "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE ended_at < ? LIMIT ?)"


class SqliteTraces:
    """A `TraceStore` by the connections of a `SqliteStore`: these are its ways to read and to write."""

    def __init__(self, read: Any, write_all: Any, write_one: Any) -> None:
        self._read = read
        self._write_all = write_all
        self._write_one = write_one

    async def insert_attempts(self, records: Sequence[AttemptRecord]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[AttemptRecord]) -> list[Outcome]:
            return write_rows(connection, INSERT, [_row(record) for record in good], Outcome.DUPLICATE)

        outcomes: list[Outcome] = await self._write_all(records, write)
        return outcomes

    async def indexed(self, task_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(task_ids), IDS_PER_READ):
            part = list(task_ids[start : start + IDS_PER_READ])
            sql = f"SELECT task_id, seq FROM indexed WHERE task_id IN ({marks(len(part))})"  # noqa: S608
            found |= dict(await self._read(sql, part, tuple, few=False))
        return found

    async def mark_indexed(self, seqs: Mapping[str, int]) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.executemany(MARK, list(seqs.items()))
            return [Outcome.OK]

        outcome: Outcome = await self._write_one(write)
        return outcome

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int) -> list[AttemptRecord]:
        # Day by day: within one, the index has them in their order.
        found: list[AttemptRecord] = []
        condition, values = _conditions(query)
        for day in range(int(query.since // DAY_SEC), int(query.until // DAY_SEC) + 1):
            sql = f"""SELECT {RECORD} FROM attempts WHERE day = ? AND {condition}
                ORDER BY run_sec DESC, task_id, node, attempt LIMIT ?"""  # noqa: S608
            found += await self._read(sql, [day, *values, limit], lambda row: AttemptRecord(*row), few=False)
        return heapq.nsmallest(limit, found, key=lambda one: (-one.run_sec, one.task_id, one.node, one.attempt))

    async def histogram(self, query: AttemptQuery, *, bucket_sec: float) -> list[HistogramRow]:
        condition, values = _conditions(query)
        sql = f"""SELECT flow, base, CAST(ended_at / ? AS INTEGER) AS bucket, bin, bad, count(*) FROM attempts
            WHERE {condition} GROUP BY flow, base, bucket, bin, bad ORDER BY flow, base, bucket, bin, bad"""  # noqa: S608
        found: list[HistogramRow] = await self._read(
            sql, [bucket_sec, *values],
            lambda row: HistogramRow(row[0], row[1], row[2] * bucket_sec, row[3], bool(row[4]), row[5]), few=False,
        )  # fmt: skip
        return found

    async def expire_attempts(self, before: float, *, limit: int) -> int:
        removed = 0

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            nonlocal removed
            removed = connection.execute(EXPIRE, (before, limit)).rowcount
            return [Outcome.OK]

        outcome = await self._write_one(write)
        return removed if outcome is Outcome.OK else 0


def _row(record: AttemptRecord) -> Row:
    return (
        *(record.task_id, record.tenant, record.flow, record.node, record.base, record.role, record.attempt),
        *(record.generation, record.outcome, record.code, record.worker, record.ready_at, record.leased_at),
        *(record.ended_at, record.run_sec, record.seq, int(record.ended_at // DAY_SEC), bin_of(record.run_sec)),
        record.bad,
    )


def _conditions(query: AttemptQuery) -> tuple[str, list[Any]]:
    terms, values = ["tenant = ?", "ended_at >= ?", "ended_at < ?"], [query.tenant, query.since, query.until]
    if query.flow is not None:
        terms.append("flow = ?")
        values.append(query.flow)
    if query.base is not None:
        terms.append("base = ?")
        values.append(query.base)
    return " AND ".join(terms), values
