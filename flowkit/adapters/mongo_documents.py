"""How the engine's documents look in MongoDB, and how they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flowkit.adapters import missing
from flowkit.adapters.limits import unpublished_or_wake
from flowkit.ports import (
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
    Renewal,
    Request,
    StreamId,
    flow_name,
)

try:
    from pymongo import DeleteOne, InsertOne, UpdateOne
except ImportError as error:
    raise missing("pymongo", "mongo") from error

Doc = Mapping[str, Any]

LATEST = 253_402_300_799.0
"""The last second that a date can say (epoch seconds)."""


def head_doc(head: Head) -> dict[str, Any]:
    return {
        "_id": head.task_id,
        "id": head.task_id,  # where older code looks for it
        "partition": head.partition,
        "graph": head.graph_ref,
        "params": head.params,
        "tenant": head.tenant,
        "principal": head.principal,
        "name": head.name,
        # Not a sub-document: a label may be called "$set" or "a.b".
        "labels": [{"k": key, "v": value} for key, value in head.labels.items()],
        "priority": head.priority,
        "targets": list(head.targets),
        "timeout_sec": head.timeout_sec,
        "fingerprint": head.fingerprint,
        "created_at": head.created_at,
        **_rare_fields(head),
        **_owners_fields(head),
    }


def _rare_fields(head: Head) -> dict[str, Any]:
    # Most heads have none of these, and heads of before never had: an index takes what is missing for null.
    said = {
        "flow": head.flow,
        "flow_name": flow_name(head.flow),
        "parent": head.parent,
        "parent_node": head.parent_node,
        "parent_attempt": head.parent_attempt,
        "depth": head.depth,
        "life": head.life,
        "deadline": head.deadline,
        "traceparent": head.traceparent,
    }
    return {name: value for name, value in said.items() if value}


def doc_head(doc: Doc) -> Head:
    return Head(
        task_id=doc["_id"],
        partition=doc["partition"],
        graph_ref=doc["graph"],
        params=doc["params"],
        tenant=doc["tenant"],
        principal=doc["principal"],
        name=doc["name"],
        labels={label["k"]: label["v"] for label in doc["labels"]},
        priority=doc["priority"],
        targets=tuple(doc["targets"]),
        timeout_sec=doc["timeout_sec"],
        fingerprint=doc["fingerprint"],
        created_at=doc["created_at"],
        flow=doc.get("flow", ""),
        parent=doc.get("parent", ""),
        parent_node=doc.get("parent_node", ""),
        parent_attempt=doc.get("parent_attempt", 0),
        depth=doc.get("depth", 0),
        status=doc["status"],
        seq=doc["seq"],
        published_seq=doc["published_seq"],
        active=doc["active"],
        next_wake=doc["next_wake"],
        updated_at=doc["updated_at"],
        ended_at=doc["ended_at"],
        error=doc["error"],
        snapshot=doc.get("snapshot", ""),  # heads of before there were any do not say
        remove_at=doc.get("remove_at"),
        life=doc.get("life", 0),
        deadline=doc.get("deadline"),
        traceparent=doc.get("traceparent", ""),
    )


def _owners_fields(document: Head | HeadUpdate) -> dict[str, Any]:
    return {
        "status": document.status,
        "seq": document.seq,
        "published_seq": document.published_seq,
        "active": document.active,
        "next_wake": document.next_wake,
        "updated_at": document.updated_at,
        "ended_at": document.ended_at,
        "error": document.error,
        "snapshot": document.snapshot,
        "remove_at": document.remove_at,
        "wake": unpublished_or_wake(document),
    }


def overtaken(updates: Sequence[HeadUpdate], stamp: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The query and the change that bring heads up to date in one go, each under its guard; the updates are of
    different heads. `stamp` tells afterwards which of them were changed.

    As many updates of one head each cost a server more than twice as much. It finds an id among the constants by its
    hash (`$indexOfArray`).
    """
    ids = [update.task_id for update in updates]
    rows = [{**_owners_fields(update), "stamp": stamp} for update in updates]
    row = {"$arrayElemAt": [{"$literal": rows}, {"$indexOfArray": [{"$literal": ids}, "$_id"]}]}
    older = {"$lt": ["$seq", "$$row.seq"]}
    unpublished = {
        "$and": [{"$eq": ["$seq", "$$row.seq"]}, {"$lt": ["$published_seq", "$$row.published_seq"]}],
    }
    changed = {"$mergeObjects": ["$$ROOT", "$$row"]}
    either = {"$cond": [{"$or": [older, unpublished]}, changed, "$$ROOT"]}
    return {"_id": {"$in": ids}}, [{"$replaceWith": {"$let": {"vars": {"row": row}, "in": either}}}]


def list_query(where: HeadFilter, after: tuple[float, str] | None) -> dict[str, Any]:
    terms: list[dict[str, Any]] = [{"remove_at": None}]
    if where.tenant is not None:
        terms.append({"tenant": where.tenant})
    if where.status:
        terms.append({"status": {"$in": list(where.status)}})
    if where.name is not None:
        terms.append({"name": where.name})
    if where.since is not None:
        terms.append({"created_at": {"$gte": where.since}})
    if where.until is not None:
        terms.append({"created_at": {"$lt": where.until}})
    if where.flow is not None:
        terms.append({"flow_name": flow_name(where.flow) or None})
        if "@" in where.flow:
            terms.append({"flow": where.flow})
    if where.parent is not None:
        terms.append({"parent": where.parent or None})
    if after is not None:
        age, task_id = after
        terms.append({"$or": [{"created_at": {"$lt": age}}, {"created_at": age, "_id": {"$lt": task_id}}]})
    terms += [{"labels": {"$elemMatch": {"k": key, "v": value}}} for key, value in where.labels.items()]
    return {"$and": terms}


def ended_query(
    partitions: Sequence[int], status: str, before: float, after: tuple[float, str] | None
) -> dict[str, Any]:
    query: dict[str, Any] = {
        "partition": {"$in": partitions},
        "status": status,
        "parent": None,
        "active": False,
        "ended_at": {"$lt": before},
    }
    if after is not None:
        ended_at, task_id = after
        query["ended_at"] = {"$gte": ended_at, "$lt": before}
        query["$or"] = [{"ended_at": {"$gt": ended_at}}, {"_id": {"$gt": task_id}}]
    return query


def as_it_was(head: Head) -> dict[str, Any]:
    """The head if nobody has changed when it is removed. Heads of before that do not say have no life but the first."""
    life = {"$in": [0, None]} if head.life == 0 else head.life
    return {"_id": head.task_id, "remove_at": head.remove_at, "life": life}


def artifact_claim(task_id: str, ref: str) -> str:
    return f"{task_id}:{ref}"


def snapshots_of(task_id: str) -> dict[str, Any]:
    """The ids of the snapshots of a task, as a range of _id: "/" is the character after the dot."""
    return {"$gt": f"{task_id}.", "$lt": f"{task_id}/"}


def commit_doc(commit: Commit) -> dict[str, Any]:
    return {
        "_id": f"{commit.task_id}:{commit.seq:010d}",
        "task": commit.task_id,
        "seq": commit.seq,
        "id": commit.id,
        "prev": commit.prev,
        "at": commit.at,
        "by": commit.by,
        "body": commit.body,
    }


def doc_commit(doc: Doc) -> Commit:
    return Commit(doc["task"], doc["seq"], doc["id"], doc["prev"], doc["at"], doc["by"], doc["body"])


def commits_query(task_ids: Sequence[str], after: int) -> dict[str, Any]:
    # A range of _id needs no further index; "task" too, for a task "a" must not give those of "a:b".
    return {
        "$or": [
            {"_id": {"$gt": f"{task_id}:{after:010d}", "$lt": f"{task_id};"}, "task": task_id} for task_id in task_ids
        ]
    }


def request_key(task_id: str, n: int) -> str:
    return f"{task_id}:{n:06d}"


def request_doc(request: Request) -> dict[str, Any]:
    return {
        "_id": request_key(request.task_id, request.n),
        "task": request.task_id,
        "n": request.n,
        "id": request.id,
        "kind": request.kind,
        "args": request.args,
        "partition": request.partition,
        "tenant": request.tenant,
        "principal": request.principal,
        "at": request.at,
        "applied": request.applied,
    }


def doc_request(doc: Doc) -> Request:
    return Request(
        task_id=doc["task"],
        n=doc["n"],
        id=doc["id"],
        kind=doc["kind"],
        args=doc["args"],
        partition=doc["partition"],
        tenant=doc["tenant"],
        principal=doc["principal"],
        at=doc["at"],
        applied=doc["applied"],
    )


def stream_key(stream: StreamId) -> str:
    return f"{stream.task_id}/{stream.generation}/{stream.node}"


def block_doc(block: Block) -> dict[str, Any]:
    key = stream_key(block.stream)
    return {
        "_id": f"{key}/{block.seq:010d}",
        "stream": key,
        "task": block.stream.task_id,
        "generation": block.stream.generation,
        "node": block.stream.node,
        "seq": block.seq,
        "attempt": block.attempt,
        "count": block.count,
        "body": block.body,
    }


def doc_block(doc: Doc) -> Block:
    stream = StreamId(doc["task"], doc["generation"], doc["node"])
    return Block(stream, doc["seq"], doc["attempt"], doc["count"], doc["body"])


def blocks_query(stream: StreamId, after: int) -> dict[str, Any]:
    # A range of _id; "stream" too, for an id of the engine's own may hold a slash.
    key = stream_key(stream)
    return {"_id": {"$gt": f"{key}/{after:010d}", "$lt": f"{key}0"}, "stream": key}


def blocks_of_task(task_id: str) -> dict[str, Any]:
    return {"_id": {"$gt": f"{task_id}/", "$lt": f"{task_id}0"}, "task": task_id}


def _of_flow(tenant: str, name: str, which: str) -> str:
    # A flow's name holds neither a slash nor an @, so no two can mean the same.
    return f"{tenant}/{name}@{which}"


def flow_doc(flow: FlowVersion) -> dict[str, Any]:
    return {
        "_id": _of_flow(flow.tenant, flow.name, f"{flow.version}"),
        "tenant": flow.tenant,
        "name": flow.name,
        "version": flow.version,
        "graph": flow.graph_ref,
        "created_at": flow.created_at,
        "principal": flow.principal,
        "note": flow.note,
    }


def doc_flow(doc: Doc) -> FlowVersion:
    return FlowVersion(
        tenant=doc["tenant"],
        name=doc["name"],
        version=doc["version"],
        graph_ref=doc["graph"],
        created_at=doc["created_at"],
        principal=doc["principal"],
        note=doc["note"],
    )


def newest_pipeline(tenant: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The newest version of each of these flows, in order of names."""
    return [
        {"$match": {"tenant": tenant, "name": {"$in": list(names)}}},
        {"$sort": {"tenant": 1, "name": 1, "version": -1}},
        {"$group": {"_id": "$name", "newest": {"$first": "$$ROOT"}}},
        {"$replaceRoot": {"newRoot": "$newest"}},
        {"$sort": {"name": 1}},
    ]


def tag_doc(tag: FlowTag) -> dict[str, Any]:
    return {
        "_id": _of_flow(tag.tenant, tag.name, tag.tag),
        "tenant": tag.tenant,
        "name": tag.name,
        "tag": tag.tag,
        "version": tag.version,
        "revision": tag.revision,
        "at": tag.at,
        "principal": tag.principal,
    }


def doc_tag(doc: Doc) -> FlowTag:
    return FlowTag(
        tenant=doc["tenant"],
        name=doc["name"],
        tag=doc["tag"],
        version=doc["version"],
        revision=doc["revision"],
        at=doc["at"],
        principal=doc["principal"],
    )


def of_one(owner: str) -> dict[str, Any]:
    """The ids "owner:..." as a range of _id."""
    return {"$gt": f"{owner}:", "$lt": f"{owner};"}


def doc_limit(doc: Doc) -> LimitRecord:
    return LimitRecord(doc["_id"], doc["partition"], doc["stamp"], doc["body"])


def swapped(swap: LimitSwap) -> InsertOne[dict[str, Any]] | UpdateOne | DeleteOne:
    """The swap under its guard."""
    guard = {"_id": swap.limit_id, "stamp": swap.before}
    if not swap.body:
        return DeleteOne(guard)
    changed = {"stamp": swap.stamp, "body": swap.body}
    if not swap.before:
        return InsertOne({"_id": swap.limit_id, "partition": swap.partition, **changed})
    return UpdateOne(guard, {"$set": changed})


def kept_doc(kept: Kept) -> dict[str, Any]:
    over = datetime.fromtimestamp(min(kept.until, LATEST), UTC)
    return {"_id": kept.key, "body": kept.body, "until": kept.until, "over": over}


def doc_kept(doc: Doc) -> Kept:
    return Kept(doc["_id"], doc["body"], doc["until"])


def renewal_doc(renewal: Renewal) -> dict[str, Any]:
    return {
        "_id": renewal.worker,
        "incarnation": renewal.incarnation,
        "count": renewal.count,
        "tokens": list(renewal.tokens),
    }


def doc_renewal(doc: Doc) -> Renewal:
    return Renewal(doc["_id"], doc["incarnation"], doc["count"], tuple(doc["tokens"]))
