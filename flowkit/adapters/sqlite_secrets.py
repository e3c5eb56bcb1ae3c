"""Keeps sealed secrets and the record of their use in a FlowKit file."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple
from typing import Any, Protocol

from flowkit.adapters.limits import MAX_INT, storable
from flowkit.adapters.sqlite_rows import Row, marks
from flowkit.adapters.sqlite_writer import Write, write_rows
from flowkit.ports import AuditFilter, AuditRow, Outcome, Rewrap, SealedSecret
from flowkit.wire.audit import Mark, chained

FEW = 32
SECRET = "tenant, name, version, key_id, wrapped, sealed, allow, created_at, principal"  # noqa: S105 - columns
AUDIT = "id, at, tenant, principal, action, name, version, outcome, flow, task_id, node, attempt, worker, note, seq, "
AUDIT += "previous, digest"
INSERT_SECRET = f"""INSERT INTO secrets ({SECRET}) VALUES ({marks(9)})
    ON CONFLICT (tenant, name, version) DO NOTHING"""  # noqa: S608
INSERT_AUDIT = f"INSERT INTO audit ({AUDIT}) VALUES ({marks(17)})"  # noqa: S608
END_OF_CHAIN = "SELECT seq, digest FROM audit WHERE tenant = ? AND seq > 0 ORDER BY seq DESC LIMIT 1"
REWRAP = """UPDATE secrets SET key_id = ?, wrapped = ?
    WHERE tenant = ? AND name = ? AND version = ? AND key_id = ? AND wrapped = ?"""


class Reader(Protocol):
    """How the file's store reads."""

    def __call__(
        self, sql: str, values: Sequence[Any], convert: Callable[[Row], Any], *, few: bool
    ) -> Awaitable[list[Any]]: ...


class SqliteSecrets:
    """A `SecretStore` by means of a file's own reader and writer."""

    def __init__(self, read: Reader, write: Callable[[Write], Awaitable[list[Outcome] | None]]) -> None:
        self._read = read
        self._write = write

    async def start(self) -> None:
        """Nothing is to be done: the file has its tables."""

    async def insert_secret(self, secret: SealedSecret) -> Outcome:
        return (await self._insert(INSERT_SECRET, [secret]))[0]

    async def secret_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[SealedSecret]:
        sql = f"""SELECT {SECRET} FROM secrets WHERE tenant = ? AND name = ? AND version < ?
            ORDER BY version DESC LIMIT ?"""  # noqa: S608
        below = MAX_INT if before is None else before
        return await self._read(sql, [tenant, name, below, limit], _secret, few=limit <= FEW)

    async def newest_secrets(self, tenant: str, *, limit: int, after: str = "") -> list[SealedSecret]:
        # With max() the other columns are those of the row that has it.
        newest = SECRET.replace("version", "max(version)")
        sql = f"""SELECT {newest} FROM secrets WHERE tenant = ? AND name > ?
            GROUP BY name ORDER BY name LIMIT ?"""  # noqa: S608
        return await self._read(sql, [tenant, after, limit], _secret, few=False)

    async def secrets_of_other_keys(
        self, key_id: str, *, limit: int, after: tuple[str, str, int] = ("", "", 0)
    ) -> list[SealedSecret]:
        sql = f"""SELECT {SECRET} FROM secrets WHERE (tenant, name, version) > (?, ?, ?) AND key_id != ?
            AND sealed != x'' ORDER BY tenant, name, version LIMIT ?"""  # noqa: S608
        return await self._read(sql, [*after, key_id, limit], _secret, few=False)

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        was = rewrap.before
        row = (rewrap.key_id, rewrap.wrapped, was.tenant, was.name, was.version, was.key_id, was.wrapped)
        return (await self._rows(REWRAP, [row], Outcome.NO_MATCH))[0]

    async def destroy_secrets(self, tenant: str, name: str, *, below: int) -> Outcome:
        def write(connection: sqlite3.Connection) -> list[Outcome]:
            sql = "DELETE FROM secrets WHERE tenant = ? AND name = ? AND version < ?"
            connection.execute(sql, (tenant, name, below))
            return [Outcome.OK]

        answer = await self._write(write)
        return Outcome.UNKNOWN if answer is None else answer[0]

    async def insert_audit(self, rows: Sequence[AuditRow]) -> list[Outcome]:
        good = [row for row in rows if storable(row)]
        # One transaction, and one writer at a time in the file: nobody comes between the last row and the next.
        answer = await self._write(lambda connection: [_append(connection, row) for row in good]) if good else []
        outcomes = iter([Outcome.UNKNOWN] * len(good) if answer is None else answer)
        return [next(outcomes) if storable(row) else Outcome.UNKNOWN for row in rows]

    async def read_chain(self, tenant: str, *, after: int, limit: int) -> list[AuditRow]:
        # Without the index, which somebody may have dropped to put in a second row of a number: in the order of rows.
        sql = f"SELECT {AUDIT} FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq, rowid LIMIT ?"  # noqa: S608
        return await self._read(sql, [tenant, max(0, after), limit], lambda row: AuditRow(*row), few=limit <= FEW)

    async def list_audit(
        self, where: AuditFilter, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[AuditRow]:
        terms: list[tuple[str, list[Any]]] = [("tenant = ?", [where.tenant])]
        if where.name:
            terms.append(("name = ?", [where.name]))
        if where.actions:
            terms.append((f"action IN ({', '.join('?' * len(where.actions))})", list(where.actions)))
        if where.outcome:
            terms.append(("outcome = ?", [where.outcome]))
        if where.loose:
            terms.append(("seq = 0", []))
        if after is not None:
            terms.append(("(at, id) < (?, ?)", list(after)))
        condition = " AND ".join(term for term, _ in terms)
        sql = f"SELECT {AUDIT} FROM audit WHERE {condition} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608
        values = [value for _, values in terms for value in values]
        return await self._read(sql, [*values, limit], lambda row: AuditRow(*row), few=limit <= FEW)

    # how

    async def _insert(self, sql: str, items: Sequence[SealedSecret]) -> list[Outcome]:
        good = [astuple(item) for item in items if storable(item)]
        outcomes = iter(await self._rows(sql, good, Outcome.DUPLICATE))
        return [next(outcomes) if storable(item) else Outcome.UNKNOWN for item in items]

    async def _rows(self, sql: str, rows: Sequence[Row], otherwise: Outcome) -> list[Outcome]:
        if not rows:
            return []
        answer = await self._write(lambda connection: write_rows(connection, sql, rows, otherwise))
        return [Outcome.UNKNOWN] * len(rows) if answer is None else answer


def _append(connection: sqlite3.Connection, row: AuditRow) -> Outcome:
    if connection.execute("SELECT 1 FROM audit WHERE id = ?", (row.id,)).fetchone() is not None:
        return Outcome.DUPLICATE
    last = connection.execute(END_OF_CHAIN, (row.tenant,)).fetchone()
    connection.execute(INSERT_AUDIT, astuple(chained(row, Mark(*last) if last is not None else Mark())))
    return Outcome.OK


def _secret(row: Row) -> SealedSecret:
    return SealedSecret(*row)
