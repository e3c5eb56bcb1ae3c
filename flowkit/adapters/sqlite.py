"""Keeps the engine's documents in one SQLite file: the store of embedded mode."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from flowkit.adapters import sqlite_removal as removing
from flowkit.adapters import sqlite_rows as tables
from flowkit.adapters.limits import MAX_INT, chunks
from flowkit.adapters.sqlite_file import FEW, KEYS_PER_READ, SqliteFile
from flowkit.adapters.sqlite_logs import SqliteLogs
from flowkit.adapters.sqlite_rows import Row
from flowkit.adapters.sqlite_secrets import SqliteSecrets
from flowkit.adapters.sqlite_traces import SqliteTraces
from flowkit.adapters.sqlite_writer import write_rows
from flowkit.errors import StoreUnavailable
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

CHUNKS_PER_WRITE = 8


class SqliteStore:
    """A `Store` in a file.

    One process owns it (`acquire_ownership`); others may insert heads and requests, and read."""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 10.0, busy_timeout: float = 5.0) -> None:
        file = self._file = SqliteFile(path, timeout=timeout, busy_timeout=busy_timeout)
        self.path = file.path
        self.logs = SqliteLogs(file.read, file.write_all, file.write_one)
        self.traces = SqliteTraces(file.read, file.write_all, file.write_one)
        self.secrets = SqliteSecrets(file.read, file.write_many)

    # life

    async def start(self) -> None:
        await self._file.start()

    async def stop(self) -> None:
        await self._file.stop()

    # who may run tasks from this file

    def acquire_ownership(self) -> bool:
        """Whether this process is now the file's owner. The system takes that back when the process ends."""
        return self._file.acquire_ownership()

    def release_ownership(self) -> None:
        self._file.release_ownership()

    def changed(self) -> bool:
        """Whether another process wrote since the last call. Costs microseconds; sees it one call later when
        this process wrote too."""
        return self._file.changed()

    # heads

    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[Head]) -> list[Outcome]:
            rows = [tables.head_row(head) for head in good]
            outcomes = write_rows(connection, tables.INSERT_HEAD, rows, Outcome.DUPLICATE)
            labels = [
                (key, value, head.task_id)
                for head, outcome in zip(good, outcomes, strict=True)
                if outcome is Outcome.OK
                for key, value in head.labels.items()
            ]
            connection.executemany(tables.INSERT_LABEL, labels)
            return outcomes

        return await self._file.write_all(heads, write)

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        return await self._file.write_each(updates, tables.update_row, tables.UPDATE_HEAD, Outcome.NO_MATCH)

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        ids = list(dict.fromkeys(task_ids))
        sql = f"SELECT {tables.HEAD} FROM heads WHERE task_id IN (%s)"  # noqa: S608
        return await self._file.read_of(ids, sql, [], tables.row_head, few=len(ids) <= FEW)

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        sql, values = tables.list_query(where, limit, after)
        return await self._file.read(sql, values, tables.row_head, few=False)

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        sql = f"""SELECT {tables.HEAD} FROM heads WHERE part = ? AND active = 1 AND task_id > ?
            ORDER BY task_id LIMIT ?"""  # noqa: S608
        return await self._file.read(sql, [partition, after, limit], tables.row_head, few=False)

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int,
                        after: float | None = None) -> list[Head]:  # fmt: skip
        wanted = sorted(set(partitions))
        sql = f"""SELECT {tables.HEAD} FROM heads WHERE part IN ({tables.marks(len(wanted))}) AND active = 1
            AND wake <= ? AND wake > ? ORDER BY wake, task_id LIMIT ?"""  # noqa: S608
        values = [*wanted, now, -math.inf if after is None else after, limit]
        return await self._file.read(sql, values, tables.row_head, few=False)

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        wanted = sorted(set(partitions))
        sql, values = tables.ended_query(wanted, status, before, limit, after)
        return await self._file.read(sql, values, tables.row_head, few=False)

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        sql = "SELECT DISTINCT parent FROM heads WHERE parent IN (%s)"
        return set(await self._file.read_of(task_ids, sql, [], lambda row: str(row[0]), few=False))

    # deleting

    async def schedule_removal(self, removal: Removal) -> Outcome:
        return await self._file.write_one(lambda connection: removing.schedule(connection, removal))

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        wanted = sorted(set(partitions))
        sql = f"""SELECT {tables.HEAD} FROM heads WHERE part IN ({tables.marks(len(wanted))})
            AND remove_at IS NOT NULL AND remove_at <= ? ORDER BY remove_at, task_id LIMIT ?"""  # noqa: S608
        return await self._file.read(sql, [*wanted, now, limit], tables.row_head, few=False)

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        for start in range(0, len(task_ids), KEYS_PER_READ):
            part = task_ids[start : start + KEYS_PER_READ]
            for table in ("requests", "blocks", "logs", "attempts", "indexed", "commits"):
                if (
                    await self._file.write_until_none(partial(removing.delete_rows, table=table, task_ids=part))
                    is not Outcome.OK
                ):
                    return Outcome.UNKNOWN
            if await self._file.write_one(partial(removing.delete_snapshots, task_ids=part)) is not Outcome.OK:
                return Outcome.UNKNOWN
        return Outcome.OK

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        for start in range(0, len(task_ids), KEYS_PER_READ):
            part = task_ids[start : start + KEYS_PER_READ]
            if await self._file.write_until_none(partial(removing.collect_artifacts, task_ids=part)) is not Outcome.OK:
                return Outcome.UNKNOWN
        return Outcome.OK

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        return await self._file.write_one(partial(removing.delete_heads, heads=heads))

    # commits

    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        return await self._file.write_each(commits, tables.commit_row, tables.INSERT_COMMIT, Outcome.DUPLICATE)

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        sql = f"SELECT {tables.COMMIT} FROM commits WHERE task_id IN (%s) AND seq > ? ORDER BY task_id, seq"  # noqa: S608
        return await self._file.read_of(sorted(set(task_ids)), sql, [after], lambda row: Commit(*row), few=False)

    # requests

    async def insert_request(self, request: Request) -> Outcome:
        write = self._file.write_each([request], tables.request_row, tables.INSERT_REQUEST, Outcome.DUPLICATE)
        return (await write)[0]

    async def read_requests(self, task_id: str) -> list[Request]:
        sql = f"SELECT {tables.REQUEST} FROM requests WHERE task_id = ? ORDER BY n"  # noqa: S608
        return await self._file.read(sql, [task_id], tables.row_request, few=True)

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        wanted = sorted(set(partitions))
        sql = f"""SELECT {tables.REQUEST} FROM requests WHERE part IN ({tables.marks(len(wanted))})
            AND applied = 0 ORDER BY task_id, n LIMIT ?"""  # noqa: S608
        return await self._file.read(sql, [*wanted, limit], tables.row_request, few=False)

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            connection.executemany(tables.MARK_APPLIED, keys)
            return [Outcome.OK]

        return await self._file.write_one(write)

    # streams

    async def insert_block(self, block: Block) -> Outcome:
        return (await self._file.write_each([block], tables.block_row, tables.INSERT_BLOCK, Outcome.DUPLICATE))[0]

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        sql = f"{tables.OF_STREAM} AND seq > ? ORDER BY seq LIMIT ?"
        values = [*tables.stream_key(stream), after, limit]
        return await self._file.read(sql, values, tables.row_block, few=False)

    async def last_block(self, stream: StreamId) -> Block | None:
        sql = f"{tables.OF_STREAM} ORDER BY seq DESC LIMIT 1"
        found = await self._file.read(sql, tables.stream_key(stream), tables.row_block, few=True)
        return found[0] if found else None

    async def delete_blocks(self, task_id: str) -> Outcome:
        return await self._file.execute(("DELETE FROM blocks WHERE task_id = ?", [task_id]))

    # limits

    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        ids = list(dict.fromkeys(limit_ids))
        sql = f"SELECT {tables.LIMIT} FROM limits WHERE limit_id IN (%s)"  # noqa: S608
        return await self._file.read_of(ids, sql, [], lambda row: LimitRecord(*row), few=len(ids) <= FEW)

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        sql = f"SELECT {tables.LIMIT} FROM limits WHERE part = ? AND limit_id > ? ORDER BY limit_id LIMIT ?"  # noqa: S608
        return await self._file.read(sql, [partition, after, limit], lambda row: LimitRecord(*row), few=False)

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        def write(connection: sqlite3.Connection, good: Sequence[LimitSwap]) -> list[Outcome]:
            return [tables.swap_limit(connection, swap) for swap in good]

        return await self._file.write_all(swaps, write)

    # graphs, artifacts and snapshots

    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        pieces = chunks(data)
        rows: list[Row] = [(kind, ref, i, len(pieces), piece) for i, piece in enumerate(pieces)]

        # Other writers get their turn in between; a blob that is not whole reads as missing.
        for start in range(0, len(rows), CHUNKS_PER_WRITE):
            part = rows[start : start + CHUNKS_PER_WRITE]

            def write(connection: sqlite3.Connection, part: list[Row] = part) -> list[Outcome]:
                if kind == "artifact" or for_task:
                    connection.execute(tables.CLAIM, (for_task, ref))
                if kind == "graph":
                    connection.execute(tables.PUT_GRAPH, (ref, at))
                connection.executemany(tables.INSERT_CHUNK, part)
                return [Outcome.OK]

            if await self._file.write_one(write) is not Outcome.OK:
                raise StoreUnavailable(f"{self.path}: {kind} {ref!r} was not written; is the disk full or locked?")

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        sql = "SELECT of, data FROM blobs WHERE kind = ? AND ref = ? ORDER BY i"
        rows = await self._file.read(sql, [kind, ref], lambda row: row, few=False)
        if not rows or len(rows) != rows[0][0]:
            raise KeyError(ref)
        return b"".join(data for _, data in rows)

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        return await self._file.execute(("DELETE FROM blobs WHERE kind = ? AND ref = ?", [kind, ref]))

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        return await self._file.write_one(partial(removing.delete_snapshots, task_ids=[task_id], but=but))

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        sql = "SELECT ref FROM graphs WHERE put_at < ? ORDER BY put_at, ref LIMIT ?"
        return await self._file.read(sql, [before, limit], lambda row: str(row[0]), few=False)

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        return await self._file.write_one(partial(removing.collect_graphs, refs=refs, before=before, at=at))

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        return (await self._file.write_each([version], tables.flow_row, tables.INSERT_FLOW, Outcome.DUPLICATE))[0]

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        sql = f"""SELECT {tables.FLOW} FROM flows WHERE tenant = ? AND name = ? AND version < ?
            ORDER BY version DESC LIMIT ?"""  # noqa: S608
        below = MAX_INT if before is None else before
        return await self._file.read(sql, [tenant, name, below, limit], lambda row: FlowVersion(*row), few=limit <= FEW)

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        # With max() the other columns are those of the row that has it.
        newest = tables.FLOW.replace("version", "max(version)")
        sql = f"""SELECT {newest} FROM flows WHERE tenant = ? AND name > ?
            GROUP BY name ORDER BY name LIMIT ?"""  # noqa: S608
        return await self._file.read(sql, [tenant, after, limit], lambda row: FlowVersion(*row), few=False)

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        first = tag.revision == 1
        row, sql = (tables.tag_row, tables.INSERT_TAG) if first else (tables.move_row, tables.MOVE_TAG)
        return (await self._file.write_each([tag], row, sql, Outcome.NO_MATCH))[0]

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        wanted = sorted(set(names))
        sql = f"SELECT {tables.TAG} FROM flow_tags WHERE name IN (%s) AND tenant = ? ORDER BY name, tag"  # noqa: S608
        return await self._file.read_of(wanted, sql, [tenant], lambda row: FlowTag(*row), few=len(wanted) <= FEW)

    # outputs that are kept

    async def keep(self, kept: Kept) -> Outcome:
        keep = (tables.KEEP, [kept.key, kept.body, kept.until])
        return await self._file.execute((tables.FORGET_KEPT, []), keep)

    async def find_kept(self, key: str, now: float) -> Kept | None:
        sql = "SELECT key, body, until FROM kept WHERE key = ? AND until > ?"
        found = await self._file.read(sql, [key, now], lambda row: Kept(*row), few=True)
        return found[0] if found else None

    # workers

    async def renew(self, renewal: Renewal) -> Outcome:
        return await self._file.execute((tables.RENEW, tables.renewal_row(renewal)))

    async def read_renewal(self, worker: str) -> Renewal | None:
        sql = "SELECT worker, incarnation, count, tokens FROM workers WHERE worker = ?"
        found = await self._file.read(sql, [worker], tables.row_renewal, few=True)
        return found[0] if found else None

    # for the operator

    async def describe(self) -> Mapping[str, Any]:
        counts = """SELECT (SELECT count(*) FROM heads), (SELECT count(*) FROM commits),
            (SELECT max(version) FROM schema_version), (SELECT count(*) FROM heads WHERE remove_at IS NOT NULL)"""
        ((tasks, commits, version, deleted),) = await self._file.read(counts, [], lambda row: row, few=False)
        return {
            "kind": "sqlite",
            "address": str(self.path),
            "version": sqlite3.sqlite_version,
            "schema": version,
            "owner": self._file.owned,
            "bytes": self.path.stat().st_size,
            "tasks": tasks,
            "commits": commits,
            "deleted": deleted,
        }
