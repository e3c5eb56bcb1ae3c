"""What a MongoDB is rid of, by operations that are each short: others get their turn in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from flowkit.adapters import missing
from flowkit.adapters import mongo_documents as documents
from flowkit.adapters.mongo_database import IDS_PER_READ, MongoDatabase
from flowkit.ports import Head

try:
    from pymongo import DeleteOne
except ImportError as error:
    raise missing("pymongo", "mongo") from error

DOCUMENTS_AT_ONCE = 1000
CLAIMS_AT_ONCE = 50

Result = TypeVar("Result")


class MongoRemoval:
    """Every method raises `StoreUnavailable`, having done some of its work, and can be called again."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._collection = database.collection

    async def history(self, task_ids: Sequence[str]) -> None:
        for part in _parts(task_ids, IDS_PER_READ):
            await self._delete_all("streams", {"$or": [documents.blocks_of_task(task_id) for task_id in part]})
            for name in ("logs", "attempts"):
                await self._delete_all(name, {"task": {"$in": list(part)}})
            await self._delete("indexed", {"_id": {"$in": list(part)}})
            for name in ("requests", "commits"):
                await self._delete_all(
                    name, {"$or": [{"_id": documents.of_one(task_id), "task": task_id} for task_id in part]}
                )
            await self._delete_all("snapshots", {"$or": [{"_id": documents.snapshots_of(task_id)} for task_id in part]})

    async def snapshots(self, task_id: str, *, but: str) -> None:
        await self._delete_all("snapshots", {"_id": documents.snapshots_of(task_id), "ref": {"$ne": but}})

    async def heads(self, heads: Sequence[Head]) -> None:
        for part in _parts(heads, IDS_PER_READ):
            await self._delete_each("tasks", [documents.as_it_was(head) for head in part])

    async def artifacts(self, task_ids: Sequence[str]) -> None:
        for part in _parts(task_ids, IDS_PER_READ):
            query = {"$or": [{"_id": documents.of_one(task_id), "task": task_id} for task_id in part]}
            while claims := await self._find("claims", query, ["ref"], CLAIMS_AT_ONCE):
                await self._give_up(claims)

    async def _give_up(self, claims: Sequence[Mapping[str, Any]]) -> None:
        """Mark these claims as over, remove what no other claims, and only then the claims: who dies in between finds
        them again, and of two who give the same artifact up at once the one who looks later sees both marks.

        The stamps are read before the claims. Who puts an artifact first claims it and then stamps it anew: if their
        claim was not seen here, it is their stamp that will not be found.
        """
        ids = [claim["_id"] for claim in claims]
        refs = sorted({claim["ref"] for claim in claims})
        await self._update("claims", {"_id": {"$in": ids}}, {"$set": {"over": True}})
        chunks = await self._find(
            "artifacts", {"$or": [{"_id": documents.of_one(ref)} for ref in refs]}, ["ref", "stamp"]
        )
        others = await self._find("claims", {"ref": {"$in": refs}, "over": {"$ne": True}}, ["ref"])
        unclaimed = set(refs) - {claim["ref"] for claim in others}
        gone = [chunk for chunk in chunks if chunk["ref"] in unclaimed]
        stamps = list({chunk.get("stamp") for chunk in gone})
        for part in _parts(gone, DOCUMENTS_AT_ONCE):
            await self._delete("artifacts", {"_id": {"$in": [c["_id"] for c in part]}, "stamp": {"$in": stamps}})
        await self._delete("claims", {"_id": {"$in": ids}})

    async def graphs(self, refs: Sequence[str], before: float, at: float) -> None:
        names = {"$in": list(refs)}
        queries: dict[str, tuple[str, dict[str, Any]]] = {
            "tasks": ("graph", {"graph": names}),
            "flows": ("graph", {"graph": names}),
            "claims": ("ref", {"ref": names, "over": {"$ne": True}}),
        }
        used: set[str] = set()
        for collection, (field, query) in queries.items():
            used.update(await self._database.reading(partial(self._collection(collection).distinct, field, query)))
        for ref in refs:
            idle = {"_id": documents.of_one(ref), "ref": ref, "put_at": {"$lt": before}}
            if ref in used:
                await self._update("graphs", idle, {"$set": {"put_at": at}})
            else:
                await self._delete("graphs", idle)

    # how

    async def _delete_all(self, name: str, query: dict[str, Any]) -> None:
        while found := await self._find(name, query, ["_id"], DOCUMENTS_AT_ONCE):
            await self._delete(name, {"_id": {"$in": [doc["_id"] for doc in found]}})
            if len(found) < DOCUMENTS_AT_ONCE:
                return

    async def _find(
        self, name: str, query: dict[str, Any], fields: Sequence[str], limit: int = 0
    ) -> list[Mapping[str, Any]]:
        return await self._database.find(name, query, lambda doc: doc, fields=fields, limit=limit)

    async def _delete(self, name: str, query: dict[str, Any]) -> None:
        await self._database.reading(lambda: self._collection(name).delete_many(query))

    async def _delete_each(self, name: str, queries: Sequence[Mapping[str, Any]]) -> None:
        deletions = [DeleteOne(query) for query in queries]
        await self._database.reading(lambda: self._collection(name).bulk_write(deletions, ordered=False))

    async def _update(self, name: str, query: dict[str, Any], change: dict[str, Any]) -> None:
        await self._database.reading(lambda: self._collection(name).update_many(query, change))


def _parts(items: Sequence[Result], size: int) -> Iterator[Sequence[Result]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
