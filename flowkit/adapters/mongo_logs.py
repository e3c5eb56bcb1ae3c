"""Keeps what attempts say in MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowkit.adapters import missing
from flowkit.monitor_ports import LogBlock, LogQuery, Place
from flowkit.ports import Outcome

try:
    from pymongo import ASCENDING, IndexModel
except ImportError as error:
    raise missing("pymongo", "mongo") from error

IN_PLACE = [("place", ASCENDING), ("node", ASCENDING), ("attempt", ASCENDING), ("first", ASCENDING)]
LOG_INDEXES = {
    "logs": [
        IndexModel([("task", ASCENDING), *IN_PLACE], name="place"),
        IndexModel([("until", ASCENDING)], name="age"),
    ]
}


class MongoLogs:
    """A `LogStore` by the handle of a `MongoStore`: these are its ways to insert, to read and to a collection."""

    def __init__(self, insert: Any, reading: Any, collection: Callable[[str], Any]) -> None:
        self._insert = insert
        self._reading = reading
        self._collection = collection

    async def insert_logs(self, blocks: Sequence[LogBlock]) -> list[Outcome]:
        outcomes: list[Outcome] = await self._insert("logs", blocks, _doc)
        return outcomes

    async def read_logs(self, query: LogQuery, *, limit: int) -> list[LogBlock]:
        wanted = _query(query)
        docs = await self._reading(
            lambda: self._collection("logs").find(wanted, sort=IN_PLACE, limit=limit).to_list(None)
        )
        return [_block(doc) for doc in docs]

    async def expire_logs(self, before: float, *, limit: int) -> int:
        old = {"until": {"$lt": before}}
        docs = await self._reading(lambda: self._collection("logs").find(old, ["_id"], limit=limit).to_list(None))
        if docs:
            gone = {"_id": {"$in": [doc["_id"] for doc in docs]}}
            await self._reading(lambda: self._collection("logs").delete_many(gone))
        return len(docs)


def _doc(block: LogBlock) -> dict[str, Any]:
    return {
        # A task's id holds no slash, and the node comes last: no two can mean the same.
        "_id": f"{block.task_id}/{block.attempt}/{block.first}/{block.node}",
        "task": block.task_id,
        "tenant": block.tenant,
        "node": block.node,
        "base": block.base,
        "attempt": block.attempt,
        "first": block.first,
        "count": block.count,
        "level": block.level,
        "until": block.until,
        "place": block.place,
        "body": block.body,
    }


def _block(doc: Mapping[str, Any]) -> LogBlock:
    return LogBlock(
        *(doc["task"], doc["tenant"], doc["node"], doc["base"], doc["attempt"], doc["first"], doc["count"]),
        *(doc["level"], doc["until"], doc["place"], doc["body"]),
    )


def _query(query: LogQuery) -> dict[str, Any]:
    terms: list[dict[str, Any]] = [{"task": query.task_id}]
    if query.node is not None:
        terms.append({"$or": [{"node": query.node}, {"base": query.node}]})
    if query.attempt is not None:
        terms.append({"attempt": query.attempt})
    if query.level:
        terms.append({"level": {"$gte": query.level}})
    if query.since is not None:
        terms.append({"until": {"$gte": query.since}})
    if query.start is not None:
        terms.append(_from(query.start))
    return {"$and": terms}


def _from(start: Place) -> dict[str, Any]:
    place, node, attempt, first = start
    ties = [
        {"place": {"$gt": place}},
        {"place": place, "node": {"$gt": node}},
        {"place": place, "node": node, "attempt": {"$gt": attempt}},
        {"place": place, "node": node, "attempt": attempt, "first": {"$gte": first}},
    ]
    return {"place": {"$gte": place}, "$or": ties}
