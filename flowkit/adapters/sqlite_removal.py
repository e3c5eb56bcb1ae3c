"""What a FlowKit file is rid of, in transactions so small that other writers get their turn."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flowkit.adapters.sqlite_rows import marks
from flowkit.ports import Head, Outcome, Removal

AT_ONCE = 500

SCHEDULE = "UPDATE heads SET remove_at = ?, life = ? WHERE task_id = ? AND remove_at IS ? AND life = ?"
DELETE_HEAD = "DELETE FROM heads WHERE task_id = ? AND remove_at IS ? AND life = ?"
DELETE_SNAPSHOTS = "DELETE FROM blobs WHERE kind = 'snapshot' AND ref > ? AND ref < ? AND ref != ?"
DELETE_ARTIFACT = """DELETE FROM blobs WHERE kind = 'artifact' AND ref = ?1
    AND NOT EXISTS (SELECT 1 FROM claims WHERE ref = ?1)"""
STILL_USED = """UPDATE graphs SET put_at = ?1 WHERE ref = ?2 AND put_at < ?3
    AND (EXISTS (SELECT 1 FROM heads WHERE graph_ref = ?2) OR EXISTS (SELECT 1 FROM flows WHERE graph_ref = ?2)
    OR EXISTS (SELECT 1 FROM claims WHERE ref = ?2))"""
DELETE_GRAPH = "DELETE FROM graphs WHERE ref = ? AND put_at < ?"


def schedule(connection: sqlite3.Connection, removal: Removal) -> list[Outcome]:
    was = removal.head
    row = (removal.remove_at, removal.life, was.task_id, was.remove_at, was.life)
    return [Outcome.OK if connection.execute(SCHEDULE, row).rowcount else Outcome.NO_MATCH]


def delete_rows(connection: sqlite3.Connection, table: str, task_ids: Sequence[str]) -> list[Outcome]:
    """Delete some rows of these tasks; NO_MATCH where there were none."""
    some = f"SELECT rowid FROM {table} WHERE task_id IN ({marks(len(task_ids))}) LIMIT {AT_ONCE}"  # noqa: S608
    deleted = connection.execute(f"DELETE FROM {table} WHERE rowid IN ({some})", task_ids).rowcount  # noqa: S608
    return [Outcome.OK if deleted else Outcome.NO_MATCH]


def delete_snapshots(connection: sqlite3.Connection, task_ids: Sequence[str], but: str = "") -> list[Outcome]:
    # Everything that begins with the task's id and a dot: "/" is the character after it.
    connection.executemany(DELETE_SNAPSHOTS, [(f"{task_id}.", f"{task_id}/", but) for task_id in task_ids])
    return [Outcome.OK]


def collect_artifacts(connection: sqlite3.Connection, task_ids: Sequence[str]) -> list[Outcome]:
    """Give up some claims of these tasks, and what nobody claims any more; NO_MATCH where there were none."""
    some = f"SELECT task_id, ref FROM claims WHERE task_id IN ({marks(len(task_ids))}) LIMIT 100"  # noqa: S608
    claims = connection.execute(some, task_ids).fetchall()
    connection.executemany("DELETE FROM claims WHERE task_id = ? AND ref = ?", claims)
    connection.executemany(DELETE_ARTIFACT, {(ref,) for _, ref in claims})
    return [Outcome.OK if claims else Outcome.NO_MATCH]


def delete_heads(connection: sqlite3.Connection, heads: Sequence[Head]) -> list[Outcome]:
    for head in heads:
        if connection.execute(DELETE_HEAD, (head.task_id, head.remove_at, head.life)).rowcount:
            labels = [(key, value, head.task_id) for key, value in head.labels.items()]
            connection.executemany("DELETE FROM labels WHERE key = ? AND value = ? AND task_id = ?", labels)
    return [Outcome.OK]


def collect_graphs(connection: sqlite3.Connection, refs: Sequence[str], before: float, at: float) -> list[Outcome]:
    for ref in refs:
        if connection.execute(STILL_USED, (at, ref, before)).rowcount:
            continue
        if connection.execute(DELETE_GRAPH, (ref, before)).rowcount:
            connection.execute("DELETE FROM blobs WHERE kind = 'graph' AND ref = ?", (ref,))
    return [Outcome.OK]
