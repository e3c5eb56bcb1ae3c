"""Keeps sealed secrets and the record of their use in MongoDB, in the collections `secrets` and `audit`."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from flowkit.adapters import missing
from flowkit.adapters.limits import storable
from flowkit.adapters.mongo_database import DUPLICATE_KEY, FAILURES
from flowkit.errors import StoreUnavailable
from flowkit.ports import AuditFilter, AuditRow, Outcome, Rewrap, SealedSecret
from flowkit.wire.audit import Mark, chained, mark_of

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel
    from pymongo.errors import BulkWriteError
except ImportError as error:
    raise missing("pymongo", "mongo") from error

CHAIN_TRIES = 30
CHAIN_PAUSE_SEC = 0.02
REMEMBERED = 10_000
INDEXES = {
    "secrets": [
        IndexModel([("tenant", ASCENDING), ("name", ASCENDING), ("version", DESCENDING)], name="newest"),
        IndexModel([("order", ASCENDING)], name="order"),
    ],
    "audit": [
        IndexModel([("tenant", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="age"),
        IndexModel([("tenant", ASCENDING), ("name", ASCENDING), ("at", DESCENDING), ("_id", DESCENDING)], name="name"),
        IndexModel(
            [("tenant", ASCENDING), ("seq", ASCENDING)],
            name="chain",
            unique=True,
            partialFilterExpression={"seq": {"$gt": 0}},
        ),
    ],
}

Result = TypeVar("Result")
Doc = Mapping[str, Any]


class Reading(Protocol):
    """How the database's store reads: bounded, and with one error for all that goes wrong."""

    async def __call__(self, ask: Callable[[], Awaitable[Result]], /) -> Result: ...


class Bounded(Protocol):
    """How the database's store writes: bounded."""

    async def __call__(self, act: Callable[[], Awaitable[Result]], /) -> Result: ...


class MongoSecrets:
    """A `SecretStore` by means of a database's store. `start` makes the indexes: whoever never starts it needs no right
    to either collection."""

    def __init__(self, reading: Reading, bounded: Bounded, collection: Callable[[str], Any]) -> None:
        self._reading = reading
        self._bounded = bounded
        self._collection = collection
        self._appending = asyncio.Lock()
        self._ends: OrderedDict[str, Mark] = OrderedDict()

    async def start(self) -> None:
        for name, indexes in INDEXES.items():
            await self._reading(partial(self._collection(name).create_indexes, indexes))

    async def insert_secret(self, secret: SealedSecret) -> Outcome:
        return (await self._insert("secrets", [secret], _secret_doc))[0]

    async def secret_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[SealedSecret]:
        query = {"tenant": tenant, "name": name} | ({} if before is None else {"version": {"$lt": before}})
        return await self._find("secrets", query, _doc_secret, [("version", -1)], limit)

    async def newest_secrets(self, tenant: str, *, limit: int, after: str = "") -> list[SealedSecret]:
        pipeline = [
            {"$match": {"tenant": tenant, "name": {"$gt": after}}},
            {"$sort": {"tenant": 1, "name": 1, "version": -1}},
            {"$group": {"_id": "$name", "newest": {"$first": "$$ROOT"}}},
            {"$replaceRoot": {"newRoot": "$newest"}},
            {"$sort": {"name": 1}},
            {"$limit": limit},
        ]

        async def ask() -> list[Doc]:
            found = self._collection("secrets").aggregate(pipeline)
            # Motor hands over the cursor itself.
            cursor = await found if inspect.isawaitable(found) else found
            return list(await cursor.to_list(None))

        return [_doc_secret(doc) for doc in await self._reading(ask)]

    async def secrets_of_other_keys(
        self, key_id: str, *, limit: int, after: tuple[str, str, int] = ("", "", 0)
    ) -> list[SealedSecret]:
        query = {"order": {"$gt": _order(*after)}, "key_id": {"$ne": key_id}, "deleted": False}
        return await self._find("secrets", query, _doc_secret, [("order", 1)], limit)

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        was = rewrap.before
        as_before = {"_id": _secret_key(was), "key_id": was.key_id, "wrapped": was.wrapped}
        change = {"$set": {"key_id": rewrap.key_id, "wrapped": rewrap.wrapped}}
        try:
            result = await self._bounded(lambda: self._collection("secrets").update_one(as_before, change))
        except FAILURES:
            return Outcome.UNKNOWN
        return Outcome.OK if result.matched_count else Outcome.NO_MATCH

    async def destroy_secrets(self, tenant: str, name: str, *, below: int) -> Outcome:
        query = {"tenant": tenant, "name": name, "version": {"$lt": below}}
        try:
            await self._bounded(lambda: self._collection("secrets").delete_many(query))
        except FAILURES:
            return Outcome.UNKNOWN
        return Outcome.OK

    async def insert_audit(self, rows: Sequence[AuditRow]) -> list[Outcome]:
        good = [row for row in rows if storable(row)]
        async with self._appending:  # of one process one after the other: only other processes can come between
            found = {tenant: await self._append(tenant, of) for tenant, of in _by_tenant(good).items()}
        outcomes = {row_id: outcome for of in found.values() for row_id, outcome in of.items()}
        return [outcomes[row.id] if storable(row) else Outcome.UNKNOWN for row in rows]

    async def read_chain(self, tenant: str, *, after: int, limit: int) -> list[AuditRow]:
        query = {"tenant": tenant, "seq": {"$gt": max(0, after)}}
        return await self._find("audit", query, _doc_audit, [("seq", 1), ("_id", 1)], limit)

    async def list_audit(
        self, where: AuditFilter, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[AuditRow]:
        query: dict[str, Any] = {"tenant": where.tenant}
        if where.name:
            query["name"] = where.name
        if where.actions:
            query["action"] = {"$in": list(where.actions)}
        if where.outcome:
            query["outcome"] = where.outcome
        if where.loose:
            query["seq"] = {"$exists": False}
        if after is not None:
            at, row = after
            query["$or"] = [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": row}}]
        return await self._find("audit", query, _doc_audit, [("at", -1), ("_id", -1)], limit)

    # how

    async def _append(self, tenant: str, rows: Sequence[AuditRow]) -> dict[str, Outcome]:
        """Insert rows as the next ones of a chain. That no two have one number is for the index to say; who was second
        reads the end again."""
        outcomes: dict[str, Outcome] = {}
        end = self._ends.pop(tenant, None)
        for _ in range(CHAIN_TRIES):
            left = [row for row in rows if row.id not in outcomes]
            try:
                if end is None:
                    there = await self._there([row.id for row in left])
                    outcomes |= dict.fromkeys(there, Outcome.DUPLICATE)
                    left = [row for row in left if row.id not in there]
                    end = await self._end(tenant)
                if not left:
                    break
                chain = list(accumulate(left, lambda last, row: chained(row, mark_of(last)), initial=_before(end)))[1:]
                done, clear = await self._insert_chain(chain)
            except StoreUnavailable:
                break
            outcomes |= {row.id: Outcome.OK for row in chain[:done]}
            if done == len(chain):
                self._remember(tenant, mark_of(chain[-1]))
                break
            if not clear:
                break
            end = None
            await asyncio.sleep(random.random() * CHAIN_PAUSE_SEC)  # noqa: S311 - so that two do not meet again
        return {row.id: outcomes.get(row.id, Outcome.UNKNOWN) for row in rows}

    async def _insert_chain(self, rows: Sequence[AuditRow]) -> tuple[int, bool]:
        """How many of the first of them are there, and whether nothing else went wrong than that somebody was first."""
        try:
            await self._bounded(
                lambda: self._collection("audit").insert_many([_audit_doc(row) for row in rows], ordered=True)
            )
        except BulkWriteError as error:
            clear = not error.details["writeConcernErrors"]
            codes = {entry["code"] for entry in error.details["writeErrors"]}
            return (int(error.details["nInserted"]) if clear else 0), clear and codes <= {DUPLICATE_KEY}
        except FAILURES:
            return 0, False
        return len(rows), True

    async def _there(self, ids: Sequence[str]) -> set[str]:
        found = await self._find("audit", {"_id": {"$in": list(ids)}}, lambda doc: str(doc["_id"]), [("_id", 1)], 0)
        return set(found)

    async def _end(self, tenant: str) -> Mark:
        query = {"tenant": tenant, "seq": {"$gt": 0}}
        found = await self._find("audit", query, _doc_audit, [("seq", -1)], 1)
        return mark_of(found[0]) if found else Mark()

    def _remember(self, tenant: str, end: Mark) -> None:
        self._ends[tenant] = end
        if len(self._ends) > REMEMBERED:
            self._ends.popitem(last=False)

    async def _insert(self, collection: str, items: Sequence[Any], convert: Callable[[Any], Doc]) -> list[Outcome]:
        docs = [convert(item) for item in items if storable(item)]
        outcomes = iter(await self._insert_docs(collection, docs))
        return [next(outcomes) if storable(item) else Outcome.UNKNOWN for item in items]

    async def _insert_docs(self, collection: str, docs: Sequence[Doc]) -> list[Outcome]:
        if not docs:
            return []
        try:
            await self._bounded(lambda: self._collection(collection).insert_many(docs, ordered=False))
        except BulkWriteError as error:
            # Without a write concern's error, what is not named among the errors was written by a majority.
            clear = not error.details["writeConcernErrors"]
            outcomes = [Outcome.OK if clear else Outcome.UNKNOWN] * len(docs)
            for entry in error.details["writeErrors"]:
                duplicate = clear and entry["code"] == DUPLICATE_KEY
                outcomes[entry["index"]] = Outcome.DUPLICATE if duplicate else Outcome.UNKNOWN
            return outcomes
        except FAILURES:
            return [Outcome.UNKNOWN] * len(docs)
        return [Outcome.OK] * len(docs)

    async def _find(self, collection: str, query: Doc, convert: Callable[[Doc], Result],
                    sort: Sequence[tuple[str, int]], limit: int) -> list[Result]:  # fmt: skip
        def find() -> Awaitable[list[Doc]]:
            answer: Awaitable[list[Doc]] = (
                self._collection(collection).find(query, limit=limit, sort=list(sort)).to_list(None)
            )
            return answer

        return [convert(doc) for doc in await self._reading(find)]


def _secret_key(secret: SealedSecret) -> str:
    # A secret's name holds neither a slash nor an @, so no two can mean the same.
    return f"{secret.tenant}/{secret.name}@{secret.version}"


def _order(tenant: str, name: str, version: int) -> str:
    """All versions of all secrets in a row: one field, so that going on after one is one range of one index."""
    return f"{tenant}\0{name}\0{version:010d}"


def _secret_doc(secret: SealedSecret) -> Doc:
    return {
        "_id": _secret_key(secret),
        "tenant": secret.tenant,
        "name": secret.name,
        "version": secret.version,
        "order": _order(secret.tenant, secret.name, secret.version),
        "key_id": secret.key_id,
        "wrapped": secret.wrapped,
        "sealed": secret.sealed,
        "deleted": secret.deleted,
        "allow": secret.allow,
        "created_at": secret.created_at,
        "principal": secret.principal,
    }


def _doc_secret(doc: Doc) -> SealedSecret:
    return SealedSecret(
        tenant=doc["tenant"],
        name=doc["name"],
        version=doc["version"],
        key_id=doc["key_id"],
        wrapped=bytes(doc["wrapped"]),
        sealed=bytes(doc["sealed"]),
        allow=doc["allow"],
        created_at=doc["created_at"],
        principal=doc["principal"],
    )


def _audit_doc(row: AuditRow) -> Doc:
    return {
        "_id": row.id,
        "at": row.at,
        "tenant": row.tenant,
        "principal": row.principal,
        "action": row.action,
        "name": row.name,
        "version": row.version,
        "outcome": row.outcome,
        "flow": row.flow,
        "task": row.task_id,
        "node": row.node,
        "attempt": row.attempt,
        "worker": row.worker,
        "note": row.note,
        "seq": row.seq,
        "previous": row.previous,
        "digest": row.digest,
    }


def _by_tenant(rows: Sequence[AuditRow]) -> dict[str, list[AuditRow]]:
    found: dict[str, list[AuditRow]] = {}
    for row in rows:
        found.setdefault(row.tenant, []).append(row)
    return found


def _before(end: Mark) -> AuditRow:
    """Stands for the last row of a chain, where only its number and digest are known."""
    return AuditRow("", 0.0, "", "", "", "", seq=end.seq, digest=end.digest)


def _doc_audit(doc: Doc) -> AuditRow:
    return AuditRow(
        id=doc["_id"],
        at=doc["at"],
        tenant=doc["tenant"],
        principal=doc["principal"],
        action=doc["action"],
        name=doc["name"],
        version=doc["version"],
        outcome=doc["outcome"],
        flow=doc["flow"],
        task_id=doc["task"],
        node=doc["node"],
        attempt=doc["attempt"],
        worker=doc["worker"],
        note=doc["note"],
        seq=doc.get("seq", 0),
        previous=doc.get("previous", ""),
        digest=doc.get("digest", ""),
    )
