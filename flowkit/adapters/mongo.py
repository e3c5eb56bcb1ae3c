"""Keeps the engine's documents in MongoDB, by single-document operations only."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from flowkit.adapters import missing
from flowkit.adapters import mongo_documents as documents
from flowkit.adapters.limits import storable
from flowkit.adapters.mongo_blobs import MongoBlobs
from flowkit.adapters.mongo_database import DUPLICATE_KEY, FAILURES, IDS_PER_READ, MongoDatabase
from flowkit.adapters.mongo_indexes import INDEXES
from flowkit.adapters.mongo_logs import LOG_INDEXES, MongoLogs
from flowkit.adapters.mongo_removal import MongoRemoval
from flowkit.adapters.mongo_secrets import MongoSecrets
from flowkit.adapters.mongo_traces import TRACE_INDEXES, MongoTraces
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

try:
    import pymongo
    from pymongo.errors import BulkWriteError
except ImportError as error:
    raise missing("pymongo", "mongo") from error


UPDATES_AT_ONCE = 500
"""Heads that one command brings up to date: it must stay far below the 16 MB of a command."""


class MongoStore:
    """A `Store` in a database of MongoDB: a replica set, or a standalone server for trials.

    `database` is a PyMongo `AsyncDatabase`, a Motor `AsyncIOMotorDatabase`, or a URL such as
    `mongodb://127.0.0.1/flowkit`. A client that was handed over stays open. `timeout` bounds each operation; `options`
    are PyMongo's, for the client of a URL: `MongoSecurity` makes them of the settings.
    """

    def __init__(self, database: object, *, timeout: float = 5.0, start_timeout: float = 10.0,
                 options: Mapping[str, Any] | None = None) -> None:  # fmt: skip
        own = self._database = MongoDatabase(database, options, timeout=timeout, start_timeout=start_timeout)
        self._removal = MongoRemoval(own)
        self._blobs = MongoBlobs(own)
        self.logs = MongoLogs(own.insert, own.reading, own.collection)
        self.traces = MongoTraces(own.insert, own.insert_docs, own.reading, own.collection)
        self.secrets = MongoSecrets(own.reading, own.bounded, own.collection)

    # life

    async def start(self) -> None:
        await self._database.start({**INDEXES, **LOG_INDEXES, **TRACE_INDEXES})

    async def stop(self) -> None:
        await self._database.stop()

    # heads

    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        return await self._database.insert("tasks", heads, documents.head_doc)

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        outcomes = [Outcome.UNKNOWN] * len(updates)
        waiting = [index for index, update in enumerate(updates) if storable(update)]

        # A stamp can tell of one update per head only: those of one head go out one after another.
        while waiting:
            now: dict[str, int] = {}
            for index in waiting:
                now.setdefault(updates[index].task_id, index)
            round_ = sorted(now.values())[:UPDATES_AT_ONCE]
            answers = await self._update_round([updates[index] for index in round_])
            for index, outcome in zip(round_, answers, strict=True):
                outcomes[index] = outcome
            done = set(round_)
            waiting = [index for index in waiting if index not in done]
        return outcomes

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        return await self._database.find_ids("tasks", task_ids, documents.doc_head)

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        newest_first = [("created_at", -1), ("_id", -1)]
        query = documents.list_query(where, after)
        return await self._database.find("tasks", query, documents.doc_head, sort=newest_first, limit=limit)

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        query = {"partition": partition, "active": True, "_id": {"$gt": after}}
        return await self._database.find("tasks", query, documents.doc_head, sort=[("_id", 1)], limit=limit)

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int,
                        after: float | None = None) -> list[Head]:  # fmt: skip
        if not partitions:
            return []
        wake = {"$lte": now} if after is None else {"$lte": now, "$gt": after}
        query = {"partition": {"$in": sorted(set(partitions))}, "active": True, "wake": wake}
        longest_due = [("wake", 1), ("_id", 1)]
        return await self._database.find("tasks", query, documents.doc_head, sort=longest_due, limit=limit)

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        if not partitions:
            return []
        query = documents.ended_query(sorted(set(partitions)), status, before, after)
        longest_ago = [("ended_at", 1), ("_id", 1)]
        return await self._database.find("tasks", query, documents.doc_head, sort=longest_ago, limit=limit)

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(task_ids), IDS_PER_READ):
            query = {"parent": {"$in": list(task_ids[start : start + IDS_PER_READ])}}
            found.update(
                await self._database.reading(partial(self._database.collection("tasks").distinct, "parent", query))
            )
        return found

    # deleting

    async def schedule_removal(self, removal: Removal) -> Outcome:
        query, change = documents.as_it_was(removal.head), {"remove_at": removal.remove_at, "life": removal.life}
        return await self._database.change(
            lambda: self._database.collection("tasks").update_one(query, {"$set": change})
        )

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        if not partitions:
            return []
        query = {"partition": {"$in": sorted(set(partitions))}, "remove_at": {"$gt": 0, "$lte": now}}
        longest_due = [("remove_at", 1), ("_id", 1)]
        return await self._database.find("tasks", query, documents.doc_head, sort=longest_due, limit=limit)

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        return await _done(self._removal.history(task_ids))

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        return await _done(self._removal.artifacts(task_ids))

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        return await _done(self._removal.heads(heads))

    # commits

    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        return await self._database.insert("commits", commits, documents.commit_doc)

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        ids = sorted(set(task_ids))
        found: list[Commit] = []
        for start in range(0, len(ids), IDS_PER_READ):
            query = documents.commits_query(ids[start : start + IDS_PER_READ], after)
            found += await self._database.find("commits", query, documents.doc_commit)
        return sorted(found, key=lambda commit: (commit.task_id, commit.seq))

    # requests

    async def insert_request(self, request: Request) -> Outcome:
        return (await self._database.insert("requests", [request], documents.request_doc))[0]

    async def read_requests(self, task_id: str) -> list[Request]:
        query = {"_id": documents.of_one(task_id), "task": task_id}
        return await self._database.find("requests", query, documents.doc_request, sort=[("n", 1)])

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        if not partitions:
            return []
        query = {"partition": {"$in": sorted(set(partitions))}, "applied": False}
        in_order = [("task", 1), ("n", 1)]
        return await self._database.find("requests", query, documents.doc_request, sort=in_order, limit=limit)

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        if not keys:
            return Outcome.OK
        query = {"_id": {"$in": [documents.request_key(*key) for key in keys]}}
        marked = {"$set": {"applied": True}}
        return await self._database.write(lambda: self._database.collection("requests").update_many(query, marked))

    # streams

    async def insert_block(self, block: Block) -> Outcome:
        return (await self._database.insert("streams", [block], documents.block_doc))[0]

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        query = documents.blocks_query(stream, after)
        return await self._database.find("streams", query, documents.doc_block, sort=[("_id", 1)], limit=limit)

    async def last_block(self, stream: StreamId) -> Block | None:
        query = documents.blocks_query(stream, 0)
        found = await self._database.find("streams", query, documents.doc_block, sort=[("_id", -1)], limit=1)
        return found[0] if found else None

    async def delete_blocks(self, task_id: str) -> Outcome:
        query = documents.blocks_of_task(task_id)
        return await self._database.write(lambda: self._database.collection("streams").delete_many(query))

    # limits

    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        return await self._database.find_ids("limits", limit_ids, documents.doc_limit)

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        query = {"partition": partition, "_id": {"$gt": after}}
        return await self._database.find("limits", query, documents.doc_limit, sort=[("_id", 1)], limit=limit)

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        good = [swap for swap in swaps if storable(swap)]
        if not good:
            return [Outcome.UNKNOWN] * len(swaps)
        answers = iter(await self._swap(good))
        return [next(answers) if storable(swap) else Outcome.UNKNOWN for swap in swaps]

    # graphs, artifacts and snapshots

    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        await self._blobs.put(ref, data, kind=kind, for_task=for_task, at=at)

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        return await self._blobs.get(ref, kind=kind)

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        return await self._blobs.delete(ref, kind=kind)

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        return await _done(self._removal.snapshots(task_id, but=but))

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        query = {"i": 0, "put_at": {"$lt": before}}
        return await self._database.find(
            "graphs", query, lambda doc: str(doc["ref"]), sort=[("put_at", 1)], limit=limit, fields=["ref"]
        )

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        return await _done(self._removal.graphs(refs, before, at))

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        return (await self._database.insert("flows", [version], documents.flow_doc))[0]

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        query = {"tenant": tenant, "name": name} | ({} if before is None else {"version": {"$lt": before}})
        return await self._database.find("flows", query, documents.doc_flow, sort=[("version", -1)], limit=limit)

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        # Each flow has a first version; the index is left from one to the next, however many there are in between.
        first = {"tenant": tenant, "version": 1, "name": {"$gt": after}}
        names = await self._database.find("flows", first, lambda doc: str(doc["name"]), sort=[("name", 1)], limit=limit)
        if not names:
            return []
        newest = await self._database.aggregate("flows", documents.newest_pipeline(tenant, names))
        return [documents.doc_flow(doc) for doc in newest]

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        if tag.revision == 1:
            (outcome,) = await self._database.insert("flow_tags", [tag], documents.tag_doc)
            return Outcome.NO_MATCH if outcome is Outcome.DUPLICATE else outcome
        if not storable(tag):
            return Outcome.UNKNOWN
        doc = documents.tag_doc(tag)
        before = {"_id": doc["_id"], "revision": tag.revision - 1}
        return await self._database.change(lambda: self._database.collection("flow_tags").replace_one(before, doc))

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        query = {"tenant": tenant, "name": {"$in": sorted(set(names))}}
        return await self._database.find("flow_tags", query, documents.doc_tag, sort=[("name", 1), ("tag", 1)])

    # outputs that are kept

    async def keep(self, kept: Kept) -> Outcome:
        query, doc = {"_id": kept.key}, documents.kept_doc(kept)
        return await self._database.write(
            lambda: self._database.collection("kept").replace_one(query, doc, upsert=True)
        )

    async def find_kept(self, key: str, now: float) -> Kept | None:
        found = await self._database.find("kept", {"_id": key, "until": {"$gt": now}}, documents.doc_kept)
        return found[0] if found else None

    # workers

    async def renew(self, renewal: Renewal) -> Outcome:
        query, doc = {"_id": renewal.worker}, documents.renewal_doc(renewal)
        return await self._database.write(
            lambda: self._database.collection("workers").replace_one(query, doc, upsert=True)
        )

    async def read_renewal(self, worker: str) -> Renewal | None:
        found = await self._database.find("workers", {"_id": worker}, documents.doc_renewal)
        return found[0] if found else None

    # for the operator

    async def describe(self) -> Mapping[str, Any]:
        handle = self._database.started()

        async def ask() -> Mapping[str, Any]:
            build = await handle.database.command("buildInfo")
            hello = await handle.database.command("hello")
            return {
                "kind": "mongo",
                "address": handle.address,
                "version": build["version"],
                "driver": f"{handle.driver} (pymongo {pymongo.version})",
                "replica_set": hello.get("setName"),
                "tasks": await handle.collection("tasks").estimated_document_count(),
                "commits": await handle.collection("commits").estimated_document_count(),
                "deleted": await handle.collection("tasks").count_documents({"remove_at": {"$gt": 0}}),
            }

        return await self._database.reading(ask)

    # how

    async def _update_round(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        stamp = os.urandom(9).hex()
        query, change = documents.overtaken(updates, stamp)
        try:
            result = await self._database.bounded(lambda: self._database.collection("tasks").update_many(query, change))
        except FAILURES:
            return [Outcome.UNKNOWN] * len(updates)
        if result.modified_count == len(updates):
            return [Outcome.OK] * len(updates)

        # The result counts those that were changed and does not name them; the stamp does.
        query = {"_id": {"$in": [update.task_id for update in updates]}, "stamp": stamp}
        try:
            stamped = set(await self._database.find("tasks", query, lambda doc: str(doc["_id"]), fields=["_id"]))
        except StoreUnavailable:
            return [Outcome.UNKNOWN] * len(updates)
        return [Outcome.OK if update.task_id in stamped else Outcome.NO_MATCH for update in updates]

    async def _swap(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        operations = [documents.swapped(swap) for swap in swaps]
        try:
            result = await self._database.bounded(
                lambda: self._database.collection("limits").bulk_write(operations, ordered=False)
            )
            if result.inserted_count + result.matched_count + result.deleted_count == len(swaps):
                return [Outcome.OK] * len(swaps)
        except BulkWriteError as error:
            codes = {entry["code"] for entry in error.details["writeErrors"]}
            if error.details["writeConcernErrors"] or codes != {DUPLICATE_KEY}:
                return [Outcome.UNKNOWN] * len(swaps)
        except FAILURES:
            return [Outcome.UNKNOWN] * len(swaps)

        # Some matched and some did not: a majority's stamps tell which.
        try:
            there = {record.limit_id: record.stamp for record in await self.read_limits([s.limit_id for s in swaps])}
        except StoreUnavailable:
            return [Outcome.UNKNOWN] * len(swaps)
        wanted = [(swap.limit_id, swap.stamp if swap.body else "") for swap in swaps]
        return [Outcome.OK if there.get(name, "") == stamp else Outcome.NO_MATCH for name, stamp in wanted]


async def _done(work: Awaitable[None]) -> Outcome:
    try:
        await work
    except StoreUnavailable:
        return Outcome.UNKNOWN
    return Outcome.OK
