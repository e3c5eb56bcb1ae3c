"""How documents become rows of a FlowKit file and back, and the statements that write and read them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from flowkit.adapters.limits import unpublished_or_wake
from flowkit.ports import (
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadFilter,
    HeadUpdate,
    LimitSwap,
    Outcome,
    Renewal,
    Request,
    StreamId,
    flow_name,
)

HEAD = (
    "task_id, part, graph_ref, params, tenant, principal, name, labels, priority, targets, timeout_sec, "
    "fingerprint, created_at, flow, parent, parent_node, parent_attempt, depth, status, seq, published_seq, active, "
    "next_wake, updated_at, ended_at, error, snapshot, remove_at, life, deadline, traceparent"
)
COMMIT = "task_id, seq, id, prev, at, by, body"
LIMIT = "limit_id, part, stamp, body"
REQUEST = "task_id, n, id, kind, args, part, tenant, principal, at, applied"
BLOCK = "task_id, generation, node, seq, attempt, count, body"
FLOW = "tenant, name, version, graph_ref, created_at, principal, note"
TAG = "tenant, name, tag, version, revision, at, principal"


def _insert(table: str, columns: str, key: str) -> str:
    # Only the key's conflict means "it is there already"; any other broken constraint has to be an error.
    marks = ", ".join("?" * len(columns.split(",")))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING"  # noqa: S608


INSERT_HEAD = _insert("heads", f"{HEAD}, wake, flow_name", "task_id")
INSERT_LABEL = _insert("labels", "key, value, task_id", "key, value, task_id")
INSERT_COMMIT = _insert("commits", COMMIT, "task_id, seq")
INSERT_REQUEST = _insert("requests", REQUEST, "task_id, n")
INSERT_BLOCK = _insert("blocks", BLOCK, "task_id, generation, node, seq")
OF_STREAM = f"SELECT {BLOCK} FROM blocks WHERE task_id = ? AND generation = ? AND node = ?"  # noqa: S608
INSERT_FLOW = _insert("flows", FLOW, "tenant, name, version")
INSERT_TAG = _insert("flow_tags", TAG, "tenant, name, tag")
MOVE_TAG = (
    "UPDATE flow_tags SET version = ?, revision = ?, at = ?, principal = ? "
    "WHERE tenant = ? AND name = ? AND tag = ? AND revision = ?"
)
INSERT_LIMIT = _insert("limits", LIMIT, "limit_id")
REPLACE_LIMIT = "UPDATE limits SET stamp = ?, body = ? WHERE limit_id = ? AND stamp = ?"
DELETE_LIMIT = "DELETE FROM limits WHERE limit_id = ? AND stamp = ?"
INSERT_CHUNK = _insert("blobs", "kind, ref, i, of, data", "kind, ref, i")
UPDATE_HEAD = (
    "UPDATE heads SET status = ?, seq = ?, published_seq = ?, active = ?, next_wake = ?, updated_at = ?, "
    "ended_at = ?, error = ?, snapshot = ?, remove_at = ?, wake = ? "
    "WHERE task_id = ? AND (seq < ? OR (seq = ? AND published_seq < ?))"
)
CLAIM = _insert("claims", "task_id, ref", "task_id, ref")
PUT_GRAPH = (
    "INSERT INTO graphs (ref, put_at) VALUES (?, ?) ON CONFLICT (ref) "
    "DO UPDATE SET put_at = excluded.put_at WHERE excluded.put_at > put_at"
)
MARK_APPLIED = "UPDATE requests SET applied = 1 WHERE task_id = ? AND n = ?"
KEEP = (
    "INSERT INTO kept (key, body, until) VALUES (?, ?, ?) ON CONFLICT (key) "
    "DO UPDATE SET body = excluded.body, until = excluded.until"
)
# A few with each that comes: what is past its time never piles up.
FORGET_KEPT = (
    "DELETE FROM kept WHERE key IN (SELECT key FROM kept WHERE until < CAST(strftime('%s', 'now') AS REAL) LIMIT 10)"
)
RENEW = (
    "INSERT INTO workers (worker, incarnation, count, tokens) VALUES (?, ?, ?, ?) ON CONFLICT (worker) "
    "DO UPDATE SET incarnation = excluded.incarnation, count = excluded.count, tokens = excluded.tokens"
)

Row = tuple[Any, ...]


def marks(count: int) -> str:
    return ", ".join("?" * count)


def head_row(head: Head) -> Row:
    # Most have neither, and there are thousands a second.
    labels = json.dumps(dict(head.labels)) if head.labels else "{}"
    targets = json.dumps(head.targets) if head.targets else "[]"
    return (
        *(head.task_id, head.partition, head.graph_ref, head.params, head.tenant, head.principal, head.name),
        *(labels, head.priority, targets, head.timeout_sec),
        *(head.fingerprint, head.created_at, head.flow, head.parent, head.parent_node, head.parent_attempt),
        *(head.depth, head.status, head.seq, head.published_seq, head.active, head.next_wake, head.updated_at),
        *(head.ended_at, head.error, head.snapshot, head.remove_at, head.life, head.deadline),
        head.traceparent,
        *(unpublished_or_wake(head), flow_name(head.flow)),
    )


def row_head(row: Row) -> Head:
    values = list(row)
    values[7] = json.loads(row[7]) if row[7] != "{}" else {}
    values[9] = tuple(json.loads(row[9])) if row[9] != "[]" else ()
    values[21] = bool(row[21])
    return Head(*values)


def update_row(update: HeadUpdate) -> Row:
    return (
        *(update.status, update.seq, update.published_seq, update.active, update.next_wake),
        *(update.updated_at, update.ended_at, update.error, update.snapshot, update.remove_at),
        unpublished_or_wake(update),
        *(update.task_id, update.seq, update.seq, update.published_seq),
    )


def commit_row(commit: Commit) -> Row:
    return (commit.task_id, commit.seq, commit.id, commit.prev, commit.at, commit.by, commit.body)


def request_row(request: Request) -> Row:
    return (
        *(request.task_id, request.n, request.id, request.kind, request.args, request.partition),
        *(request.tenant, request.principal, request.at, request.applied),
    )


def row_request(row: Row) -> Request:
    values = list(row)
    values[9] = bool(row[9])
    return Request(*values)


def stream_key(stream: StreamId) -> Row:
    return (stream.task_id, stream.generation, stream.node)


def block_row(block: Block) -> Row:
    return (*stream_key(block.stream), block.seq, block.attempt, block.count, block.body)


def row_block(row: Row) -> Block:
    return Block(StreamId(*row[:3]), *row[3:])


def swap_limit(connection: sqlite3.Connection, swap: LimitSwap) -> Outcome:
    """Do it, or find out why not."""
    if not swap.before and swap.body:
        change = connection.execute(INSERT_LIMIT, (swap.limit_id, swap.partition, swap.stamp, swap.body))
    elif swap.body:
        change = connection.execute(REPLACE_LIMIT, (swap.stamp, swap.body, swap.limit_id, swap.before))
    else:
        change = connection.execute(DELETE_LIMIT, (swap.limit_id, swap.before))
    if change.rowcount == 1:
        return Outcome.OK
    row = connection.execute("SELECT stamp FROM limits WHERE limit_id = ?", (swap.limit_id,)).fetchone()
    return Outcome.OK if (row[0] if row else "") == (swap.stamp if swap.body else "") else Outcome.NO_MATCH


def flow_row(flow: FlowVersion) -> Row:
    return (flow.tenant, flow.name, flow.version, flow.graph_ref, flow.created_at, flow.principal, flow.note)


def tag_row(tag: FlowTag) -> Row:
    return (tag.tenant, tag.name, tag.tag, tag.version, tag.revision, tag.at, tag.principal)


def move_row(tag: FlowTag) -> Row:
    return (tag.version, tag.revision, tag.at, tag.principal, tag.tenant, tag.name, tag.tag, tag.revision - 1)


def renewal_row(renewal: Renewal) -> Row:
    return (renewal.worker, renewal.incarnation, renewal.count, json.dumps(renewal.tokens))


def row_renewal(row: Row) -> Renewal:
    return Renewal(row[0], row[1], row[2], tuple(json.loads(row[3])))


def list_query(where: HeadFilter, limit: int, after: tuple[float, str] | None) -> tuple[str, list[Any]]:
    terms: list[tuple[str, list[Any]]] = [("remove_at IS NULL", [])]
    if where.tenant is not None:
        terms.append(("tenant = ?", [where.tenant]))
    if where.status:
        terms.append((f"status IN ({marks(len(where.status))})", list(where.status)))
    if where.name is not None:
        terms.append(("name = ?", [where.name]))
    if where.since is not None:
        terms.append(("created_at >= ?", [where.since]))
    if where.until is not None:
        terms.append(("created_at < ?", [where.until]))
    if where.flow is not None:
        # The condition of the index, literally: a value to come proves nothing to the planner.
        some = "flow_name != '' AND " if where.flow else ""
        terms.append((f"{some}flow_name = ?", [flow_name(where.flow)]))
        if "@" in where.flow:
            terms.append(("flow = ?", [where.flow]))
    if where.parent is not None:
        terms.append(("parent = ?", [where.parent]))
    if after is not None:
        terms.append(("(created_at, task_id) < (?, ?)", list(after)))
    for label in where.labels.items():
        labelled = "SELECT task_id FROM labels WHERE key = ? AND value = ?"
        terms.append((f"task_id IN ({labelled})", list(label)))

    condition = " AND ".join(term for term, _ in terms)
    sql = f"SELECT {HEAD} FROM heads WHERE {condition} ORDER BY created_at DESC, task_id DESC LIMIT ?"  # noqa: S608
    return sql, [*(value for _, values in terms for value in values), limit]


def ended_query(partitions: Sequence[int], status: str, before: float, limit: int,
                after: tuple[float, str] | None) -> tuple[str, list[Any]]:  # fmt: skip
    # The condition of the index, literally: a value to come proves nothing to the planner.
    condition = f"part IN ({marks(len(partitions))}) AND active = 0 AND parent = '' AND status = ? AND ended_at < ?"
    values = [*partitions, status, before]
    if after is not None:
        condition += " AND (ended_at, task_id) > (?, ?)"
        values += after
    sql = f"SELECT {HEAD} FROM heads WHERE {condition} ORDER BY ended_at, task_id LIMIT ?"  # noqa: S608
    return sql, [*values, limit]
