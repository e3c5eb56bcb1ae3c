"""Keeps the index of ended attempts in MongoDB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowkit.adapters import missing
from flowkit.adapters.mongo_rollups import ROLLUP_INDEXES, MongoRollups
from flowkit.monitor_ports import (
    DAY_SEC,
    OUTCOMES,
    RUN,
    AttemptQuery,
    AttemptRecord,
    Bins,
    Histogram,
    Rollup,
    bin_of,
)  # fmt: skip
from flowkit.ports import Outcome

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel
    from pymongo.errors import OperationFailure
except ImportError as error:
    raise missing("pymongo", "mongo") from error

MEASURE = {RUN: "run_sec", "cpu": "cpu", "memory": "memory"}


def _most(by: str) -> list[tuple[str, int]]:
    return [(MEASURE[by], DESCENDING), ("task", ASCENDING), ("node", ASCENDING), ("attempt", ASCENDING)]


TRACE_INDEXES = {
    "attempts": [
        IndexModel([(name, ASCENDING) for name in ("tenant", "flow", "base", "ended_at", "mark")], name="history"),
        IndexModel([("tenant", ASCENDING), ("day", ASCENDING), *_most(RUN)], name="slow"),
        IndexModel([("tenant", ASCENDING), ("flow", ASCENDING), ("day", ASCENDING), *_most(RUN)], name="slow_flow"),
        *(
            # Most attempts run no program: they are not in these.
            IndexModel(
                [("tenant", ASCENDING), ("day", ASCENDING), *_most(by)],
                name=by,
                partialFilterExpression={MEASURE[by]: {"$exists": True}},
            )
            for by in ("cpu", "memory")
        ),
        IndexModel([("task", ASCENDING)], name="task"),
        IndexModel([("ended_at", ASCENDING)], name="age"),
    ],
    **ROLLUP_INDEXES,
}


TOO_LARGE = (146, 10334, 17419)
"""What MongoDB says of a group that fits into no document, or not into memory."""


class _TooLarge(Exception):
    pass


class MongoTraces:
    """A `TraceStore` by the handle of a `MongoStore`: these are its ways to insert, to read, to write and to a
    collection."""

    def __init__(self, insert: Any, insert_docs: Any, reading: Any, collection: Callable[[str], Any]) -> None:
        self._insert = insert
        self._reading = reading
        self._collection = collection
        self._rollups = MongoRollups(insert_docs, reading, collection)

    async def insert_attempts(self, records: Sequence[AttemptRecord]) -> list[Outcome]:
        outcomes: list[Outcome] = await self._insert("attempts", records, _doc)
        return outcomes

    async def indexed(self, task_ids: Sequence[str]) -> dict[str, int]:
        return await self._rollups.marks(task_ids)

    async def count_attempts(self, marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        return await self._rollups.count(marks, records)

    async def rollups(self, query: AttemptQuery, *, span: int) -> list[Rollup]:
        return await self._rollups.read(query, span)

    async def expire_rollups(self, before: float, *, limit: int) -> int:
        return await self._rollups.expire(before, limit)

    async def slowest_attempts(self, query: AttemptQuery, *, limit: int, by: str = RUN) -> list[AttemptRecord]:
        # The day is in the index before the time: of each day they come in their order, and the days are merged.
        days = list(range(int(query.since // DAY_SEC), int(query.until // DAY_SEC) + 1))
        wanted = {**_conditions(query), "day": {"$in": days}}
        if by != RUN:
            wanted[MEASURE[by]] = {"$exists": True}
        docs = await self._docs("attempts", wanted, sort=_most(by), limit=limit)
        return [_record(doc) for doc in docs]

    async def histograms(self, query: AttemptQuery, *, bucket_sec: float) -> list[Histogram]:
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
        found: dict[tuple[str, str, float], dict[str, Bins]] = {}
        for of, marks in counts:
            flow, base, bucket = (of["flow"], of["base"], of["bucket"]) if isinstance(of, dict) else (
                query.flow or "", query.base or "", of
            )  # fmt: skip
            outcomes = found.setdefault((flow, base, bucket * bucket_sec), {})
            for mark, count in marks.items():
                number, outcome = divmod(mark, len(OUTCOMES))
                outcomes.setdefault(OUTCOMES[outcome], {})[number] = count
        return [Histogram(*key, found[key]) for key in sorted(found)]

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
    used = {"usage": record.usage, "cpu": record.cpu_sec, "memory": record.memory_bytes}
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
        "mark": bin_of(record.run_sec) * len(OUTCOMES) + OUTCOMES.index(record.outcome),
        **{name: value for name, value in used.items() if value is not None},
    }


def _record(doc: Mapping[str, Any]) -> AttemptRecord:
    return AttemptRecord(
        *(doc["task"], doc["tenant"], doc["flow"], doc["node"], doc["base"], doc["role"], doc["attempt"]),
        *(doc["generation"], doc["outcome"], doc["code"], doc["worker"], doc["ready_at"], doc["leased_at"]),
        *(doc["ended_at"], doc["run_sec"], doc["seq"], doc.get("usage")),
    )


def _conditions(query: AttemptQuery) -> dict[str, Any]:
    wanted: dict[str, Any] = {"tenant": query.tenant, "ended_at": {"$gte": query.since, "$lt": query.until}}
    if query.flow is not None:
        wanted["flow"] = query.flow
    if query.base is not None:
        wanted["base"] = query.base
    return wanted
