"""What the SQLite store promises beyond the contract: one owner, foreign writes seen, errors survived."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from flowkit.adapters import sqlite_rows, sqlite_schema
from flowkit.adapters.sqlite import SqliteStore
from flowkit.errors import ConfigError, StoreUnavailable
from flowkit.ports import AuditFilter, AuditRow, Commit, Head, HeadFilter, Outcome
from tests.contracts.conftest import PATIENCE_SEC

OWN = """
import asyncio, sys
from flowkit.adapters.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print(store.acquire_ownership(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "tasks.db", timeout=PATIENCE_SEC, busy_timeout=PATIENCE_SEC)
    await store.start()
    yield store
    await store.stop()


def commit(task_id: str, seq: int = 1, body: str = "{}") -> Commit:
    return Commit(task_id, seq, f"{task_id}-{seq}", "", 1.0, "me", body)


def start_owner(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


class TestOwnership:
    async def test_one_owner_at_a_time(self, store: SqliteStore, tmp_path: Path) -> None:
        other = SqliteStore(store.path)
        await other.start()
        assert store.acquire_ownership()
        assert store.acquire_ownership()
        assert not other.acquire_ownership()

        await store.stop()
        assert other.acquire_ownership()
        await other.stop()

    async def test_a_killed_owner_owns_nothing(self, store: SqliteStore) -> None:
        owner = start_owner(store.path)
        assert owner.stdout is not None
        assert owner.stdin is not None
        try:
            assert owner.stdout.readline().strip() == "True"
            assert not store.acquire_ownership()
        finally:
            owner.send_signal(signal.SIGKILL)
            owner.wait(10)
            owner.stdin.close()
            owner.stdout.close()
        assert store.acquire_ownership()


class TestOtherProcesses:
    async def test_a_foreign_write_is_noticed_and_an_own_one_is_not(self, store: SqliteStore) -> None:
        other = SqliteStore(store.path)
        await other.start()
        assert not store.changed()

        assert await other.insert_heads([Head("t1", 0, "g")]) == [Outcome.OK]
        assert store.changed()
        assert not store.changed()

        await store.insert_commits([commit("t1")])
        store.changed()  # may tell of the same foreign write once more
        await store.insert_commits([commit("t1", 2)])
        seen = [store.changed()]
        await asyncio.sleep(0.05)
        assert [*seen, store.changed(), store.changed()] == [False] * 3

        # Own and foreign between two looks: seen at the latest by the look after.
        await other.insert_heads([Head("t2", 0, "g")])
        await store.insert_commits([commit("t2")])
        await other.insert_heads([Head("t3", 0, "g")])
        seen = [store.changed()]
        await asyncio.sleep(0.05)
        assert any([*seen, store.changed()])
        await other.stop()

    async def test_two_processes_write_at_once(self, store: SqliteStore) -> None:
        other = SqliteStore(store.path)
        await other.start()
        both = [
            writer.insert_commits([commit(f"t{i}", body=name)])
            for i in range(100)
            for name, writer in (("mine", store), ("theirs", other))
        ]
        outcomes = await asyncio.gather(*both)
        for (mine,), (theirs,) in zip(outcomes[::2], outcomes[1::2], strict=True):
            assert {mine, theirs} == {Outcome.OK, Outcome.DUPLICATE}
        assert len(await other.read_commits([f"t{i}" for i in range(100)])) == 100
        await other.stop()

    async def test_a_file_locked_for_long_is_unknown_and_then_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = SqliteStore(tmp_path / "tasks.db", busy_timeout=0.5)
        await store.start()
        with closing(sqlite3.connect(store.path, isolation_level=None)) as bully:
            bully.execute("BEGIN EXCLUSIVE")
            assert await store.insert_commits([commit("a"), commit("b")]) == [Outcome.UNKNOWN] * 2
            assert "tasks.db: a transaction (writes: 1) failed: OperationalError: database is locked" in caplog.text
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.put_blob("ref", b"data", kind="graph")
            bully.execute("ROLLBACK")
        assert await store.insert_commits([commit("a"), commit("b")]) == [Outcome.OK] * 2
        await store.stop()


class TestErrors:
    async def test_a_full_disk_is_unknown_and_the_writer_lives_on(self, store: SqliteStore) -> None:
        assert store._file._writer is not None
        connection = store._file._writer._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")

        batches = [store.insert_commits([commit(f"t{i}", body="x" * 50_000)]) for i in range(20)]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*batches)]
        assert Outcome.UNKNOWN in outcomes
        kept = {one.task_id for one in await store.read_commits([f"t{i}" for i in range(20)])}
        assert {f"t{i}" for i, outcome in enumerate(outcomes) if outcome is Outcome.OK} <= kept

        connection.execute("PRAGMA max_page_count = 1000000")
        assert await store.insert_commits([commit("after")]) == [Outcome.OK]

    async def test_a_row_that_sqlite_refuses_leaves_the_others_alone(self, store: SqliteStore) -> None:
        # What passes the door and breaks a constraint: a column that may not be null.
        bad = Head("bad", 0, None)  # type: ignore[arg-type]
        batch = [Head("a", 0, "g"), bad, Head("b", 0, "g", labels={"k": "v"})]
        assert await store.insert_heads(batch) == [Outcome.OK, Outcome.UNKNOWN, Outcome.OK]
        assert len(await store.read_heads(["a", "bad", "b"])) == 2

    async def test_a_store_that_is_not_started_says_so(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path / "x.db")
        with pytest.raises(StoreUnavailable, match="not started"):
            await store.read_heads(["t"])
        with pytest.raises(StoreUnavailable, match="not started"):
            await store.insert_commits([commit("t")])

    async def test_a_directory_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match="nowhere"):
            await SqliteStore(tmp_path / "nowhere" / "x.db").start()

    async def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_bytes(b"this is not a database" * 100)
        with pytest.raises(StoreUnavailable, match=r"x\.db"):
            await SqliteStore(tmp_path / "x.db").start()


class TestFile:
    async def test_nobody_else_may_read_it(self, store: SqliteStore) -> None:
        store.acquire_ownership()
        await store.insert_commits([commit("t")])
        for path in store.path.parent.glob("tasks.db*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    async def test_an_acknowledged_write_is_there_after_a_crash(self, tmp_path: Path) -> None:
        script = """
import asyncio, os, signal, sys
from flowkit.adapters.sqlite import SqliteStore
from flowkit.ports import Commit
async def main():
    store = SqliteStore(sys.argv[1])
    await store.start()
    print(await store.insert_commits([Commit("t", 1, "i", "", 1.0, "me", "{}")]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
        path = tmp_path / "x.db"
        command = [sys.executable, "-c", script, str(path)]
        crashed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        assert "OK" in crashed.stdout

        store = SqliteStore(path)
        await store.start()
        assert await store.read_commits(["t"]) == [Commit("t", 1, "i", "", 1.0, "me", "{}")]
        await store.stop()

    async def test_a_newer_file_is_refused(self, store: SqliteStore) -> None:
        with closing(sqlite3.connect(store.path)) as newer:
            newer.execute("INSERT INTO schema_version VALUES (99, 'tomorrow')")
            newer.commit()
        with pytest.raises(ConfigError, match="upgrade"):
            await SqliteStore(store.path).start()

    def test_an_older_file_is_brought_up_to_date(self, tmp_path: Path) -> None:
        migrations = (("CREATE TABLE one (x)",), ("ALTER TABLE one ADD COLUMN y", "CREATE TABLE two (x)"))
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
            assert sqlite_schema.migrate(connection, migrations[:1]) == 1
            assert sqlite_schema.migrate(connection, migrations) == 2
            assert sqlite_schema.migrate(connection, migrations) == 2
            assert connection.execute("SELECT count(*) FROM schema_version").fetchone() == (2,)

    async def test_a_file_of_before_snapshots_is_read_as_it_was(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
            sqlite_schema.migrate(connection, sqlite_schema.MIGRATIONS[:1])
            connection.execute(
                """INSERT INTO heads VALUES
                ('t', 0, 'g', '{}', 'default', 'local', '', '{}', 0, '[]', NULL, '', 1.0, 'running', 5, 4, 1, 9.0, 2.0,
                NULL, NULL, 0.0)"""
            )
        store = SqliteStore(tmp_path / "x.db")
        await store.start()

        assert await store.read_heads(["t"]) == [
            Head("t", 0, "g", created_at=1.0, status="running", seq=5, published_seq=4, next_wake=9.0, updated_at=2.0)
        ]
        assert [one.task_id for one in await store.list_heads(HeadFilter(parent=""), limit=9)] == ["t"]
        await store.stop()

    async def test_the_queries_of_the_hot_path_use_their_indexes(self, store: SqliteStore) -> None:
        with closing(sqlite3.connect(store.path)) as connection:

            def plan(sql: str) -> str:
                return " ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))

            where = "SELECT * FROM heads WHERE part IN (1, 2) AND active = 1"
            assert "heads_due" in plan(f"{where} AND wake <= 5 ORDER BY wake, task_id LIMIT 9")
            active = "SELECT * FROM heads WHERE part = 1 AND active = 1 AND task_id > 'x' ORDER BY task_id"
            assert "heads_active" in plan(active)
            opened = "SELECT * FROM requests WHERE part IN (1, 2) AND applied = 0 ORDER BY task_id, n"
            assert "requests_open" in plan(opened)
            assert "heads_age" in plan("SELECT * FROM heads ORDER BY created_at DESC, task_id DESC LIMIT 9")

            def list_plan(where: HeadFilter, after: tuple[float, str] | None = None) -> str:
                sql, values = sqlite_rows.list_query(where, 9, after)
                rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                return " ".join(str(row[3]) for row in rows)

            for where, index in [
                (HeadFilter("x", parent=""), "heads_family"),
                (HeadFilter("x", parent="t"), "heads_family"),
                (HeadFilter("x", flow="etl"), "heads_flow"),
                (HeadFilter("x", flow="etl@3", parent=None), "heads_flow"),
            ]:
                for after in (None, (5.0, "t")):
                    assert index in list_plan(where, after)
                    assert "TEMP B-TREE" not in list_plan(where, after)

            for after in (None, (5.0, "t")):
                sql, values = sqlite_rows.ended_query([1, 2], "finished", 9.0, 9, after)
                rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)
                assert "heads_ended" in " ".join(str(row[3]) for row in rows)
            due = "SELECT * FROM heads WHERE part IN (1, 2) AND remove_at IS NOT NULL AND remove_at <= 5"
            assert "heads_removable" in plan(f"{due} ORDER BY remove_at, task_id LIMIT 9")
            assert "heads_graph" in plan("SELECT 1 FROM heads WHERE graph_ref = 'g'")
            assert "claims_ref" in plan("SELECT 1 FROM claims WHERE ref = 'r'")
            assert "graphs_put" in plan("SELECT ref FROM graphs WHERE put_at < 5 ORDER BY put_at, ref LIMIT 9")


async def test_waiting_writes_share_one_transaction(store: SqliteStore) -> None:
    assert store._file._writer is not None
    before = store._file._writer.commits_begun
    await asyncio.gather(*(store.insert_commits([commit(f"t{i}")]) for i in range(500)))
    assert store._file._writer.commits_begun - before < 50


async def test_a_stop_writes_what_waits(store: SqliteStore) -> None:
    writes = [asyncio.create_task(store.insert_commits([commit(f"t{i}")])) for i in range(50)]
    await asyncio.sleep(0)
    await store.stop()
    assert await asyncio.gather(*writes) == [[Outcome.OK]] * 50
    assert not os.path.exists(f"{store.path}-wal")


@pytest.mark.parametrize(
    ("content", "advice"),
    [(b"this is a diary\n" * 100, "name a file of FlowKit's"), (None, "is the directory there, writable, and local?")],
)
async def test_a_file_that_cannot_be_opened_is_told_with_what_helps(
    content: bytes | None, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / "flow.db" if content is not None else tmp_path / "nowhere" / "flow.db"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StoreUnavailable) as caught:
        await SqliteStore(path).start()

    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(";") == 1
    assert advice in str(caught.value)


class TestAudit:
    async def test_no_row_of_the_audit_can_be_changed_or_removed_by_whoever_opens_the_file(
        self, store: SqliteStore
    ) -> None:
        await store.secrets.insert_audit([AuditRow("a", 1.0, "t", "ann", "use", "KEY")])
        with closing(sqlite3.connect(store.path)) as connection:
            for change in ("DELETE FROM audit", "UPDATE audit SET name = 'OTHER'"):
                with pytest.raises(sqlite3.IntegrityError, match="audit is append-only"):
                    connection.execute(change)
            other = f"REPLACE INTO audit VALUES (?, 9.0, 't', '', '', 'OTHER', 1, {', '.join(['1'] * 9)}, '')"  # noqa: S608
            connection.execute(other, "a")
            with pytest.raises(sqlite3.IntegrityError, match="audit is append-only"):
                connection.execute(other, "b")  # with the number of the first
            connection.commit()
        assert [row.name for row in await store.secrets.list_audit(AuditFilter("t"), limit=9)] == ["KEY"]

    async def test_secrets_of_a_store_that_is_not_started_are_told(self, tmp_path: Path) -> None:
        secrets = SqliteStore(tmp_path / "x.db").secrets
        with pytest.raises(StoreUnavailable, match="not started"):
            await secrets.newest_secrets("t", limit=1)
