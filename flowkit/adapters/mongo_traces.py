"""Keeps the index of ended attempts in MongoDB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowkit.adapters import missing
from flowkit.monitor_ports import AttemptQuery, AttemptRecord, HistogramRow, bin_of
from flowkit.ports import Outcome

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
    from pymongo.errors import OperationFailure
except ImportError as error:
    raise missing("pymongo", "mongo") from error

DAY_SEC = 86_400
IDS_PER_READ = 500
SLOWEST = [("run_sec", DESCENDING), ("task", ASCENDING), ("node", ASCENDING), ("attempt", ASCENDING)]
TRACE_INDEXES = {
    "attempts": [
        IndexModel([(name, ASCENDING) for name in ("tenant", "flow", "base", "ended_at", "mark")], name="history"),
        IndexModel([("tenant", ASCENDING), ("day", ASCENDING), *SLOWEST], name="slow"),
        IndexModel([("tenant", ASCENDING), ("flow", ASCENDING), ("day", ASCENDING), *SLOWEST], name="slow_flow"),
        IndexModel([("task", ASCENDING)], name="task"),
        IndexModel([("ended_at", ASCENDING)], name="age"),
    ]
}


TOO_LARGE = (146, 10334, 17419)
"""What MongoDB says of a group that fits into no document, or not into memory."""


class _TooLarge(Exception):
    pass


class MongoTraces:
    """A `TraceStore` by the handle of a `MongoStore`: these are its ways to insert, to read, to write and to a
    collection."""

    def __init__(self, insert: Any, reading: Any, write: Any, collection: Callable[[str], Any]) -> None:
        self._insert = insert
        self._reading = reading
        self._write = write
        self._collection = collection

    async def insert_attempts(self, records: Sequence[AttemptRecord]) -> list[Outcome]:
        outcomes: list[Outcome] = await self._insert("attempts", records, _doc)
        return outcomes

    async def indexed(self, task_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(task_ids), IDS_PER_READ):
            query = {"_id": {"$in": list(task_ids[start : start + IDS_PER_READ])}}
            docs = await self._docs("indexed", query)
            found |= {doc["_id"]: doc["seq"] for doc in docs}
        return found

    async def mark_indexed(self, seqs: Mapping[str, int]) -> Outcome:
        if not seqs:
            return Outcome.OK
        marks = [UpdateOne({"_id": task_id}, {"$max": {"seq": seq}}, upsert=True) for task_id, seq in seqs.items()]
        outcome: Outcome = await self._write(lambda: self._collection("indexed").bulk_write(marks, ordered=False))
        return outcome

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int) -> list[AttemptRecord]:
        # The day is in the index before the time: of each day they come in their order, and the days are merged.
        days = list(range(int(query.since // DAY_SEC), int(query.until // DAY_SEC) + 1))
        wanted = {**_conditions(query), "day": {"$in": days}}
        docs = await self._docs("attempts", wanted, sort=SLOWEST, limit=limit)
        return [_record(doc) for doc in docs]

    async def histogram(self, query: AttemptQuery, *, bucket_sec: float) -> list[HistogramRow]:
        key: Any = {"$floor": {"$divide": ["$ended_at", bucket_sec]}}
        if query.flow is None or query.base is None:
            key = {"flow": "$flow", "base": "$base", "bucket": key}
        # A list of all marks is three times as fast as a count of each; but a document holds only so many.
        try:
            groups = await self._grouped(query, {"_id": key, "marks": {"$push": "$mark"}})
            counts = [(group["_id"], Counter(group["marks"])) for group in groups]
        except _TooLarge:
            groups = await self._grouped(query, {"_id": {"of": key, "mark": "$mark"}, "count": {"$sum": 1}})
            counts = [(group["_id"]["of"], Counter({group["_id"]["mark"]: group["count"]})) for group in groups]
        rows: list[HistogramRow] = []
        for of, marks in counts:
            flow, base, bucket = (of["flow"], of["base"], of["bucket"]) if isinstance(of, dict) else (
                query.flow or "", query.base or "", of
            )  # fmt: skip
            rows += [
                HistogramRow(flow, base, bucket * bucket_sec, max(mark, -1 - mark), mark < 0, count)
                for mark, count in marks.items()
            ]
        return sorted(rows, key=lambda row: (row.flow, row.base, row.start, row.bin, row.bad))

    async def _grouped(self, query: AttemptQuery, group: dict[str, Any]) -> list[Mapping[str, Any]]:
        async def ask() -> list[Mapping[str, Any]]:
            try:
                cursor = self._collection("attempts").aggregate(
                    [{"$match": _conditions(query)}, {"$group": group}], hint="history"
                )
                if not hasattr(cursor, "to_list"):  # a Motor database gives the cursor, PyMongo's one must be awaited
                    cursor = await cursor
                docs: list[Mapping[str, Any]] = await cursor.to_list(None)
            except OperationFailure as error:
                if error.code in TOO_LARGE:
                    raise _TooLarge from error
                raise
            return docs

        groups: list[Mapping[str, Any]] = await self._reading(ask)
        return groups

    async def expire_attempts(self, before: float, *, limit: int) -> int:
        docs = await self._docs("attempts", {"ended_at": {"$lt": before}}, limit=limit, fields=["_id"])
        if docs:
            gone = {"_id": {"$in": [doc["_id"] for doc in docs]}}
            await self._reading(lambda: self._collection("attempts").delete_many(gone))
        return len(docs)

    async def _docs(self, name: str, query: dict[str, Any], *, sort: Any = None, limit: int = 0,
                    fields: Sequence[str] | None = None) -> list[Mapping[str, Any]]:  # fmt: skip
        docs: list[Mapping[str, Any]] = await self._reading(
            lambda: self._collection(name).find(query, fields, sort=sort, limit=limit).to_list(None)
        )
        return docs


def _doc(record: AttemptRecord) -> dict[str, Any]:
    return {
        # A task's id holds no slash, and the node comes last: no two can mean the same.
        "_id": f"{record.task_id}/{record.attempt}/{record.node}",
        "task": record.task_id,
        "tenant": record.tenant,
        "flow": record.flow,
        "node": record.node,
        "base": record.base,
        "role": record.role,
        "attempt": record.attempt,
        "generation": record.generation,
        "outcome": record.outcome,
        "code": record.code,
        "worker": record.worker,
        "ready_at": record.ready_at,
        "leased_at": record.leased_at,
        "ended_at": record.ended_at,
        "run_sec": record.run_sec,
        "seq": record.seq,
        "day": int(record.ended_at // DAY_SEC),
        "mark": -1 - bin_of(record.run_sec) if record.bad else bin_of(record.run_sec),
    }


def _record(doc: Mapping[str, Any]) -> AttemptRecord:
    return AttemptRecord(
        *(doc["task"], doc["tenant"], doc["flow"], doc["node"], doc["base"], doc["role"], doc["attempt"]),
        *(doc["generation"], doc["outcome"], doc["code"], doc["worker"], doc["ready_at"], doc["leased_at"]),
        *(doc["ended_at"], doc["run_sec"], doc["seq"]),
    )


def _conditions(query: AttemptQuery) -> dict[str, Any]:
    wanted: dict[str, Any] = {"tenant": query.tenant, "ended_at": {"$gte": query.since, "$lt": query.until}}
    if query.flow is not None:
        wanted["flow"] = query.flow
    if query.base is not None:
        wanted["base"] = query.base
    return wanted
