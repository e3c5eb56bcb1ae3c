"""Keeps what is too large for a document in MongoDB: graphs, artifacts and snapshots, in chunks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from flowkit.adapters import mongo_documents as documents
from flowkit.adapters.limits import chunks
from flowkit.adapters.mongo_database import MongoDatabase
from flowkit.errors import StoreUnavailable
from flowkit.ports import Outcome

CHUNKS_PER_WRITE = 16
PUT_TRIES = 3


class MongoBlobs:
    """The blobs of a `Store`, in a collection for each kind, and the claims of the tasks that they were put for."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def put(self, ref: str, data: bytes, *, kind: str, for_task: str, at: float) -> None:
        if kind == "artifact" or for_task:
            await self._claim(ref, for_task)
        stamp = os.urandom(9).hex()
        moving = {"put_at": at} if kind == "graph" else {}
        pieces = chunks(data)
        docs = [
            {"_id": f"{ref}:{i:06d}", "ref": ref, "i": i, "of": len(pieces), "data": piece, "stamp": stamp, **moving}
            for i, piece in enumerate(pieces)
        ]
        for _ in range(PUT_TRIES):
            if await self._insert(kind, docs) or await self._stamped(ref, kind, stamp, moving) == len(docs):
                return
        raise StoreUnavailable(f"{self._database.address}: {kind} {ref!r} was not written clearly; try again")

    async def _claim(self, ref: str, task_id: str) -> None:
        query, claim = {"_id": documents.artifact_claim(task_id, ref)}, {"$set": {"task": task_id, "ref": ref}}
        outcome = await self._database.write(
            lambda: self._database.collection("claims").update_one(query, claim, upsert=True)
        )
        if outcome is not Outcome.OK:
            raise StoreUnavailable(f"{self._database.address}: artifact {ref!r} was not written clearly; try again")

    async def _insert(self, kind: str, docs: Sequence[dict[str, Any]]) -> bool:
        """Whether all were written, clearly and by this."""
        outcomes: list[Outcome] = []
        for start in range(0, len(docs), CHUNKS_PER_WRITE):
            outcomes += await self._database.insert_docs(f"{kind}s", docs[start : start + CHUNKS_PER_WRITE])
        return all(outcome is Outcome.OK for outcome in outcomes)

    async def _stamped(self, ref: str, kind: str, stamp: str, moving: dict[str, Any]) -> int:
        """Stamp the chunks that there are, and count them. "It is there" may be said of one that a fail-over will take
        back, or that is being collected: one that was stamped is held by a majority, and will stay."""
        query = {"_id": documents.of_one(ref), "ref": ref}
        change = {"$set": {"stamp": stamp}, **({"$max": moving} if moving else {})}
        result = await self._database.reading(lambda: self._database.collection(f"{kind}s").update_many(query, change))
        return int(result.matched_count)

    async def get(self, ref: str, *, kind: str) -> bytes:
        query = {"_id": documents.of_one(ref), "ref": ref}
        found = await self._database.find(f"{kind}s", query, lambda doc: doc, sort=[("_id", 1)])
        if not found or len(found) != found[0]["of"]:
            raise KeyError(ref)
        return b"".join(doc["data"] for doc in found)

    async def delete(self, ref: str, *, kind: str) -> Outcome:
        query = {"_id": documents.of_one(ref), "ref": ref}
        return await self._database.write(lambda: self._database.collection(f"{kind}s").delete_many(query))
