"""What a FlowKit file is made of, version by version. Plain SQL, as of SQLite 3.37."""

from __future__ import annotations

import sqlite3

from flowkit.errors import ConfigError

# Each entry brings a file from the version before to its own. Never change one that was released: append.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE heads (
            task_id TEXT PRIMARY KEY NOT NULL, part INTEGER NOT NULL, graph_ref TEXT NOT NULL,
            params TEXT NOT NULL, tenant TEXT NOT NULL, principal TEXT NOT NULL, name TEXT NOT NULL,
            labels TEXT NOT NULL, priority INTEGER NOT NULL, targets TEXT NOT NULL, timeout_sec REAL,
            fingerprint TEXT NOT NULL, created_at REAL NOT NULL, status TEXT NOT NULL, seq INTEGER NOT NULL,
            published_seq INTEGER NOT NULL, active INTEGER NOT NULL, next_wake REAL,
            updated_at REAL NOT NULL, ended_at REAL, error TEXT, wake REAL)""",
        "CREATE INDEX heads_due ON heads (part, wake, task_id) WHERE active = 1",
        "CREATE INDEX heads_active ON heads (part, task_id) WHERE active = 1",
        "CREATE INDEX heads_age ON heads (created_at, task_id)",
        """CREATE TABLE labels (
            key TEXT NOT NULL, value TEXT NOT NULL, task_id TEXT NOT NULL,
            PRIMARY KEY (key, value, task_id)) WITHOUT ROWID""",
        """CREATE TABLE commits (
            task_id TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, prev TEXT NOT NULL,
            at REAL NOT NULL, by TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (task_id, seq))""",
        """CREATE TABLE requests (
            task_id TEXT NOT NULL, n INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
            args TEXT NOT NULL, part INTEGER NOT NULL, tenant TEXT NOT NULL, principal TEXT NOT NULL,
            at REAL NOT NULL, applied INTEGER NOT NULL, PRIMARY KEY (task_id, n))""",
        "CREATE INDEX requests_open ON requests (part, task_id, n) WHERE applied = 0",
        """CREATE TABLE blobs (
            kind TEXT NOT NULL, ref TEXT NOT NULL, i INTEGER NOT NULL, of INTEGER NOT NULL,
            data BLOB NOT NULL, PRIMARY KEY (kind, ref, i))""",
        """CREATE TABLE workers (
            worker TEXT PRIMARY KEY NOT NULL, incarnation TEXT NOT NULL, count INTEGER NOT NULL,
            tokens TEXT NOT NULL)""",
    ),
    ("ALTER TABLE heads ADD COLUMN snapshot TEXT NOT NULL DEFAULT ''",),
    (
        "ALTER TABLE heads ADD COLUMN flow TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE heads ADD COLUMN flow_name TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE heads ADD COLUMN parent TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE heads ADD COLUMN parent_node TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE heads ADD COLUMN parent_attempt INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE heads ADD COLUMN depth INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX heads_family ON heads (parent, tenant, created_at, task_id)",
        "CREATE INDEX heads_flow ON heads (tenant, flow_name, created_at, task_id) WHERE flow_name != ''",
    ),
    (
        """CREATE TABLE flows (
            tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, graph_ref TEXT NOT NULL,
            created_at REAL NOT NULL, principal TEXT NOT NULL, note TEXT NOT NULL,
            PRIMARY KEY (tenant, name, version)) WITHOUT ROWID""",
        """CREATE TABLE flow_tags (
            tenant TEXT NOT NULL, name TEXT NOT NULL, tag TEXT NOT NULL, version INTEGER NOT NULL,
            revision INTEGER NOT NULL, at REAL NOT NULL, principal TEXT NOT NULL,
            PRIMARY KEY (tenant, name, tag)) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE limits (
            limit_id TEXT PRIMARY KEY NOT NULL, part INTEGER NOT NULL, stamp TEXT NOT NULL, body TEXT NOT NULL)""",
        "CREATE INDEX limits_part ON limits (part, limit_id)",
    ),
    (
        "ALTER TABLE heads ADD COLUMN remove_at REAL",
        "ALTER TABLE heads ADD COLUMN life INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX heads_ended ON heads (part, status, ended_at, task_id) WHERE active = 0 AND parent = ''",
        "CREATE INDEX heads_removable ON heads (part, remove_at, task_id) WHERE remove_at IS NOT NULL",
        "CREATE INDEX heads_graph ON heads (graph_ref)",
        "CREATE INDEX flows_graph ON flows (graph_ref)",
        """CREATE TABLE claims (
            task_id TEXT NOT NULL, ref TEXT NOT NULL, PRIMARY KEY (task_id, ref)) WITHOUT ROWID""",
        "CREATE INDEX claims_ref ON claims (ref)",
        # Nobody knows who put what is there: it is kept.
        "INSERT INTO claims (task_id, ref) SELECT DISTINCT '', ref FROM blobs WHERE kind = 'artifact'",
        "CREATE TABLE graphs (ref TEXT PRIMARY KEY NOT NULL, put_at REAL NOT NULL)",
        "CREATE INDEX graphs_put ON graphs (put_at, ref)",
        """INSERT INTO graphs (ref, put_at)
            SELECT DISTINCT ref, CAST(strftime('%s', 'now') AS REAL) FROM blobs WHERE kind = 'graph'""",
    ),
    (
        "CREATE TABLE kept (key TEXT PRIMARY KEY NOT NULL, body TEXT NOT NULL, until REAL NOT NULL)",
        "CREATE INDEX kept_until ON kept (until)",
    ),
    (
        """CREATE TABLE blocks (
            task_id TEXT NOT NULL, generation INTEGER NOT NULL, node TEXT NOT NULL, seq INTEGER NOT NULL,
            attempt INTEGER NOT NULL, count INTEGER NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (task_id, generation, node, seq))""",
    ),
    ("ALTER TABLE heads ADD COLUMN deadline REAL",),
    (
        """CREATE TABLE secrets (
            tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, key_id TEXT NOT NULL,
            wrapped BLOB NOT NULL, sealed BLOB NOT NULL, allow TEXT NOT NULL, created_at REAL NOT NULL,
            principal TEXT NOT NULL, PRIMARY KEY (tenant, name, version))""",
        """CREATE TABLE audit (
            id TEXT PRIMARY KEY NOT NULL, at REAL NOT NULL, tenant TEXT NOT NULL, principal TEXT NOT NULL,
            action TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, outcome TEXT NOT NULL,
            flow TEXT NOT NULL, task_id TEXT NOT NULL, node TEXT NOT NULL, attempt INTEGER NOT NULL,
            worker TEXT NOT NULL, note TEXT NOT NULL)""",
        "CREATE INDEX audit_age ON audit (tenant, at, id)",
        "CREATE INDEX audit_name ON audit (tenant, name, at, id)",
        "CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
        """CREATE TRIGGER audit_is_there BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
            BEGIN SELECT RAISE(IGNORE); END""",
        "CREATE TRIGGER audit_is_final BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    ),
    (
        """CREATE TABLE logs (
            task_id TEXT NOT NULL, tenant TEXT NOT NULL, node TEXT NOT NULL, base TEXT NOT NULL,
            attempt INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL, level INTEGER NOT NULL,
            until REAL NOT NULL, place INTEGER NOT NULL, body TEXT NOT NULL,
            PRIMARY KEY (task_id, node, attempt, first))""",
        "CREATE INDEX logs_place ON logs (task_id, place, node, attempt, first)",
        "CREATE INDEX logs_age ON logs (until)",
    ),
    (
        """CREATE TABLE attempts (
            task_id TEXT NOT NULL, tenant TEXT NOT NULL, flow TEXT NOT NULL, node TEXT NOT NULL, base TEXT NOT NULL,
            role TEXT NOT NULL, attempt INTEGER NOT NULL, generation INTEGER NOT NULL, outcome TEXT NOT NULL,
            code TEXT NOT NULL, worker TEXT NOT NULL, ready_at REAL NOT NULL, leased_at REAL NOT NULL,
            ended_at REAL NOT NULL, run_sec REAL NOT NULL, seq INTEGER NOT NULL, day INTEGER NOT NULL,
            bin INTEGER NOT NULL, bad INTEGER NOT NULL, PRIMARY KEY (task_id, node, attempt))""",
        "CREATE INDEX attempts_history ON attempts (tenant, flow, base, ended_at, bin, bad)",
        "CREATE INDEX attempts_slow ON attempts (tenant, day, run_sec DESC, task_id, node, attempt)",
        "CREATE INDEX attempts_slow_flow ON attempts (tenant, flow, day, run_sec DESC, task_id, node, attempt)",
        "CREATE INDEX attempts_age ON attempts (ended_at)",
        "CREATE TABLE indexed (task_id TEXT PRIMARY KEY NOT NULL, seq INTEGER NOT NULL)",
    ),
    (
        "ALTER TABLE attempts ADD COLUMN usage TEXT",
        "ALTER TABLE attempts ADD COLUMN cpu REAL",
        "ALTER TABLE attempts ADD COLUMN memory INTEGER",
        "DROP INDEX attempts_history",
        "CREATE INDEX attempts_history ON attempts (tenant, flow, base, ended_at, outcome, bin)",
        "ALTER TABLE attempts DROP COLUMN bad",
        """CREATE INDEX attempts_cpu ON attempts (tenant, day, cpu DESC, task_id, node, attempt)
            WHERE cpu IS NOT NULL""",
        """CREATE INDEX attempts_memory ON attempts (tenant, day, memory DESC, task_id, node, attempt)
            WHERE memory IS NOT NULL""",
        """CREATE TABLE rollups (
            tenant TEXT NOT NULL, flow TEXT NOT NULL, span INTEGER NOT NULL, start INTEGER NOT NULL,
            part INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (tenant, flow, span, start, part))""",
        "CREATE INDEX rollups_time ON rollups (tenant, span, start)",
        "CREATE INDEX rollups_age ON rollups (start)",
        "DELETE FROM indexed",  # so that all ended tasks are counted, too; their records are there already
    ),
    (
        "ALTER TABLE audit ADD COLUMN seq INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE audit ADD COLUMN previous TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE audit ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
        "CREATE UNIQUE INDEX audit_chain ON audit (tenant, seq) WHERE seq > 0",
        # REPLACE would take the row that is there away, and ask no trigger of deletions.
        """CREATE TRIGGER audit_is_chained BEFORE INSERT ON audit
            WHEN NEW.seq > 0 AND EXISTS (SELECT 1 FROM audit WHERE tenant = NEW.tenant AND seq = NEW.seq)
                AND NOT EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
            BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END""",
    ),
    ("ALTER TABLE heads ADD COLUMN traceparent TEXT NOT NULL DEFAULT ''",),
)


def migrate(connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """Bring the file to this version, in one transaction. Raises ConfigError for a newer one's file."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, at TEXT NOT NULL)")
        (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        if version > len(migrations):
            raise ConfigError(
                f"the file is of version {version}, this FlowKit knows up to {len(migrations)}: "
                f"upgrade flowkit-engine, or use another file"
            )
        for number, statements in enumerate(migrations[version:], start=version + 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?, datetime('now'))", (number,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return len(migrations)
