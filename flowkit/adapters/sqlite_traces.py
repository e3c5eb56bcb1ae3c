"""Keeps the index of ended attempts in a FlowKit file."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.adapters.attempt_counts import bodies_of
from flowkit.adapters.sqlite_rows import Row, marks
from flowkit.adapters.sqlite_writer import write_rows
from flowkit.monitor_ports import DAY_SEC, RUN, AttemptQuery, AttemptRecord, Bins, Histogram, Rollup, bin_of
from flowkit.ports import Outcome
from flowkit.slices import in_slices
from flowkit.wire.codec import dumps, loads
from flowkit.wire.rollups import OPEN_BYTES, Group, added

IDS_PER_READ = 500
RECORD = (
    "task_id, tenant, flow, node, base, role, attempt, generation, outcome, code, worker, ready_at, leased_at, "
    "ended_at, run_sec, seq, usage"
)
INSERT = (
    f"INSERT INTO attempts ({RECORD}, day, bin, cpu, memory) VALUES ({marks(21)}) "  # noqa: S608
    "ON CONFLICT (task_id, node, attempt) DO NOTHING"
)
MARK = (
    "INSERT INTO indexed (task_id, seq) VALUES (?, ?) ON CONFLICT (task_id) "
    "DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq"
)
MEASURE = {RUN: "run_sec", "cpu": "cpu", "memory": "memory"}
ROLLUP = "tenant, flow, span, start, part, body"
NEWEST = (
    "SELECT part, body FROM rollups WHERE tenant = ? AND flow = ? AND span = ? AND start = ? ORDER BY part DESC LIMIT 1"
)
ADD = "UPDATE rollups SET body = ? WHERE tenant = ? AND flow = ? AND span = ? AND start = ? AND part = ?"
INSERT_ROLLUP = f"INSERT INTO rollups ({ROLLUP}) VALUES ({marks(6)})"  # noqa: S608
EXPIRE_ROLLUPS = "DELETE FROM rollups WHERE rowid IN (SELECT rowid FROM rollups WHERE start + span < ? LIMIT ?)"
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

    async def count_attempts(self, marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        bodies = await in_slices(bodies_of(records))

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            # One transaction: what is counted is marked, and what is marked is not counted again.
            if _marked_otherwise(connection, marks):
                return [Outcome.NO_MATCH]
            for group, body in bodies.items():
                for piece in body:
                    _add(connection, group, piece)
            connection.executemany(MARK, [(task_id, seq) for task_id, (_, seq) in marks.items()])
            return [Outcome.OK]

        outcome: Outcome = await self._write_one(write)
        return outcome

    async def rollups(self, query: AttemptQuery, *, span: int) -> list[Rollup]:
        sql = f"SELECT {ROLLUP} FROM rollups WHERE tenant = ? AND span = ? AND start > ? AND start < ?"  # noqa: S608
        values: list[Any] = [query.tenant, span, query.since - span, query.until]
        if query.flow is not None:
            sql, values = f"{sql} AND flow = ?", [*values, query.flow]
        found: list[Rollup] = await self._read(sql, values, lambda row: Rollup(*row), few=False)
        return found

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int, by: str = RUN) -> list[AttemptRecord]:
        # Day by day: within one, the index has them in their order.
        found: list[AttemptRecord] = []
        condition, values = _conditions(query)
        measure = MEASURE[by]
        if by != RUN:  # most attempts run no program: the index leaves them out
            condition = f"{condition} AND {measure} IS NOT NULL"
        for day in await self._days(query):
            sql = f"""SELECT {RECORD} FROM attempts WHERE day = ? AND {condition}
                ORDER BY {measure} DESC, task_id, node, attempt LIMIT ?"""  # noqa: S608
            found += await self._read(sql, [day, *values, limit], _record, few=False)
        return heapq.nsmallest(
            limit, found, key=lambda one: (-(one.measure(by) or 0), one.task_id, one.node, one.attempt)
        )

    async def _days(self, query: AttemptQuery) -> range:
        """Those that may hold some of it."""
        ends = []
        for which in ("min", "max"):  # one at a time: each is one step in the index
            sql = f"SELECT {which}(day) FROM attempts WHERE tenant = ?"  # noqa: S608
            ends += await self._read(sql, [query.tenant], lambda row: row[0], few=True)
        if None in ends:
            return range(0)
        first, last = ends
        return range(max(int(query.since // DAY_SEC), first), min(int(query.until // DAY_SEC), last) + 1)

    async def histograms(self, query: AttemptQuery, *, bucket_sec: float) -> list[Histogram]:
        condition, values = _conditions(query)
        sql = f"""SELECT flow, base, CAST(ended_at / ? AS INTEGER) AS bucket, outcome, bin, count(*) FROM attempts
            WHERE {condition} GROUP BY flow, base, bucket, outcome, bin"""  # noqa: S608
        found: dict[tuple[str, str, float], dict[str, Bins]] = {}
        rows = await self._read(sql, [bucket_sec, *values], tuple, few=False)
        for flow, base, bucket, outcome, number, count in rows:
            found.setdefault((flow, base, bucket * bucket_sec), {}).setdefault(outcome, {})[number] = count
        return [Histogram(*key, found[key]) for key in sorted(found)]

    async def expire_attempts(self, before: float, *, limit: int) -> int:
        return await self._expire(EXPIRE, before, limit)

    async def expire_rollups(self, before: float, *, limit: int) -> int:
        return await self._expire(EXPIRE_ROLLUPS, before, limit)

    async def _expire(self, sql: str, before: float, limit: int) -> int:
        removed = 0

        def write(connection: sqlite3.Connection) -> list[Outcome]:
            nonlocal removed
            removed = connection.execute(sql, (before, limit)).rowcount
            return [Outcome.OK]

        outcome = await self._write_one(write)
        return removed if outcome is Outcome.OK else 0


def _row(record: AttemptRecord) -> Row:
    return (
        *(record.task_id, record.tenant, record.flow, record.node, record.base, record.role, record.attempt),
        *(record.generation, record.outcome, record.code, record.worker, record.ready_at, record.leased_at),
        *(record.ended_at, record.run_sec, record.seq, None if record.usage is None else dumps(record.usage).decode()),
        *(int(record.ended_at // DAY_SEC), bin_of(record.run_sec), record.cpu_sec, record.memory_bytes),
    )


def _record(row: Row) -> AttemptRecord:
    usage = None if row[-1] is None else loads(row[-1])
    return AttemptRecord(*(*row[:-1], usage))


def _marked_otherwise(connection: sqlite3.Connection, since: Mapping[str, tuple[int, int]]) -> bool:
    ids = list(since)
    known: dict[str, int] = {}
    for start in range(0, len(ids), IDS_PER_READ):
        part = ids[start : start + IDS_PER_READ]
        sql = f"SELECT task_id, seq FROM indexed WHERE task_id IN ({marks(len(part))})"  # noqa: S608
        known.update(connection.execute(sql, part))
    return any(known.get(task_id, 0) != of for task_id, (of, _) in since.items())


def _add(connection: sqlite3.Connection, group: Group, piece: bytes) -> None:
    newest = connection.execute(NEWEST, group).fetchone()
    if newest is not None and len(newest[1]) < OPEN_BYTES:
        connection.execute(ADD, (added(newest[1], piece), *group, newest[0]))
    else:
        connection.execute(INSERT_ROLLUP, (*group, 0 if newest is None else newest[0] + 1, piece))


def _conditions(query: AttemptQuery) -> tuple[str, list[Any]]:
    terms, values = ["tenant = ?", "ended_at >= ?", "ended_at < ?"], [query.tenant, query.since, query.until]
    if query.flow is not None:
        terms.append("flow = ?")
        values.append(query.flow)
    if query.base is not None:
        terms.append("base = ?")
        values.append(query.base)
    return " AND ".join(terms), values
