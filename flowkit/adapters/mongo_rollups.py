"""Counts attempts in MongoDB, each once: by a journal of batches, and by rollups that say which batch was the last in
them.

A batch is one document, inserted as the next of all batches; it says which tasks it is about and what is to be added to
which rollups. Whoever inserts one has read the last one, has added that to its rollups where it was not, and has then
looked that each of its own tasks is marked up to where it goes on. So batches are added in their order; a rollup that
has had a batch has had all before it; and one that is added again, by whoever takes over or by somebody late, finds
that it was. All operations are on single documents, and none is an upsert.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Final

from flowkit.adapters import missing
from flowkit.adapters.attempt_counts import bodies_of
from flowkit.errors import StoreUnavailable
from flowkit.monitor_ports import DAY_SEC, HOUR_SEC, AttemptQuery, AttemptRecord, Rollup
from flowkit.ports import Outcome
from flowkit.slices import in_slices
from flowkit.wire.codec import dumps
from flowkit.wire.rollups import OPEN_BYTES, Group, added

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel, InsertOne, UpdateOne
    from pymongo.errors import BulkWriteError
except ImportError as error:
    raise missing("pymongo", "mongo") from error

ROLLUP_INDEXES: Final = {
    "batches": [IndexModel([("marks.task", ASCENDING)], name="task")],
    "rollups": [
        IndexModel([(name, ASCENDING) for name in ("tenant", "span", "flow", "start", "part")], name="flow"),
        IndexModel([(name, ASCENDING) for name in ("tenant", "span", "start")], name="time"),
        IndexModel([("start", ASCENDING)], name="age"),
        IndexModel([("group", ASCENDING)], name="group"),
    ],
}
IDS_PER_READ: Final = 500
TRIES: Final = 8
FIRST_PAUSE_SEC: Final = 0.02
DUPLICATE_KEY: Final = 11000
TIDY_BATCHES: Final = 64
"""Of so many batches at a time what was added to rollups is let go; which tasks they counted stays."""

Doc = Mapping[str, Any]
Key = tuple[str, int, str, int]
"""`tenant`, `span`, `flow`, `start`."""


class MongoRollups:
    """Its ways to insert documents, to read, to write and to a collection are those of a `MongoStore`."""

    def __init__(self, insert: Callable[[str, Sequence[dict[str, Any]]], Awaitable[list[Outcome]]], reading: Any,
                 collection: Callable[[str], Any]) -> None:  # fmt: skip
        self._insert = insert
        self._reading = reading
        self._collection = collection
        self._settled = 0

    async def marks(self, task_ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(task_ids), IDS_PER_READ):
            wanted = set(task_ids[start : start + IDS_PER_READ])
            for doc in await self._docs("batches", {"marks.task": {"$in": list(wanted)}}, ["marks"]):
                for mark in doc["marks"]:
                    if (task_id := mark["task"]) in wanted:
                        found[task_id] = max(mark["seq"], found.get(task_id, 0))
        return found

    async def count(self, marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        # Those of the days are the same ones, added up.
        groups = await in_slices(bodies_of(records, (HOUR_SEC,)))
        bodies = [(_key(group), body) for group, some in groups.items() for body in some]
        packed = await asyncio.to_thread(lambda: [zlib.compress(body, 1) for _, body in bodies])
        pause = FIRST_PAUSE_SEC
        for _ in range(TRIES):
            number = await self._settle()
            if not marks:
                return Outcome.OK
            known = await self.marks(list(marks))
            if any(known.get(task_id, 0) != since for task_id, (since, _) in marks.items()):
                return Outcome.NO_MATCH
            batch = {
                "_id": number + 1,
                "marks": [{"task": task_id, "seq": seq} for task_id, (_, seq) in marks.items()],
                "added": await self._placed(bodies),
                "bodies": packed,
            }
            (outcome,) = await self._insert("batches", [batch])
            if outcome is Outcome.OK:
                await self._add(batch)
                await self._tidy(number + 1)
                return Outcome.OK
            if outcome is Outcome.UNKNOWN:
                return outcome
            await asyncio.sleep(pause)  # somebody was first
            pause *= 2
        return Outcome.UNKNOWN

    async def read(self, query: AttemptQuery, span: int) -> list[Rollup]:
        wanted: dict[str, Any] = {
            "tenant": query.tenant, "span": span, "start": {"$gt": query.since - span, "$lt": query.until},
        }  # fmt: skip
        if query.flow is not None:
            wanted["flow"] = query.flow
        return [
            Rollup(doc["tenant"], doc["flow"], doc["span"], doc["start"], doc["part"], doc["body"])
            for doc in await self._docs("rollups", wanted)
        ]

    async def expire(self, before: float, limit: int) -> int:
        wanted = {"$or": [{"span": span, "start": {"$lt": before - span}} for span in (HOUR_SEC, DAY_SEC)]}
        docs = await self._docs("rollups", wanted, ["_id"], limit=limit)
        if docs:
            gone = {"_id": {"$in": [doc["_id"] for doc in docs]}}
            await self._reading(lambda: self._collection("rollups").delete_many(gone))
        last = await self._last(["_id"])
        if last is not None:  # what all the tasks have left; the last one stays, as the next is numbered by it
            empty = {"_id": {"$lt": last["_id"]}, "marks": {"$size": 0}}
            await self._reading(lambda: self._collection("batches").delete_many(empty))
        return len(docs)

    # ---------------------------------------------------------------------------------------------- how

    async def _settle(self) -> int:
        """The number of the last batch, which is in its rollups."""
        last = await self._last(["_id"])
        if last is None:
            return 0
        number = int(last["_id"])
        if number > self._settled:
            (batch,) = await self._docs("batches", {"_id": number})
            await self._add(batch)
        return number

    async def _add(self, batch: Doc) -> None:
        """Add a batch to those of its rollups that have not had it. Raises `StoreUnavailable`, having done some."""
        number, parts = batch["_id"], {part["to"]: part for part in batch["added"]}
        bodies = await asyncio.to_thread(lambda: [zlib.decompress(body) for body in batch["bodies"]])
        for _ in range(TRIES):
            had = {doc["_id"]: doc for doc in await self._some(list(parts))}
            late = {ref: part for ref, part in parts.items() if ref not in had or had[ref]["upto"] < number}
            if not late:
                self._settled = max(self._settled, number)
                return
            writes = await asyncio.to_thread(_writes, late, had, bodies, number)
            await self._reading(lambda writes=writes: self._write(writes))
        raise StoreUnavailable(f"batch {number} of counted attempts could not be added to its rollups; it will be")

    async def _write(self, writes: Sequence[Any]) -> None:
        try:
            await self._collection("rollups").bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            # Somebody else adds the same batch: what they have added is read again.
            if error.details["writeConcernErrors"] or any(
                entry["code"] != DUPLICATE_KEY for entry in error.details["writeErrors"]
            ):
                raise

    async def _placed(self, bodies: Sequence[tuple[Key, bytes]]) -> list[dict[str, Any]]:
        """Which part of which rollups each body is to be added to: the last one, or one more where that is full."""
        keys = [(place, key) for place, (hour, _) in enumerate(bodies) for key in (hour, _day_of(hour))]
        newest = await self._newest(sorted({key for _, key in keys}))
        placed: dict[str, dict[str, Any]] = {}
        for place, key in keys:
            part, size = newest.get(key, (0, 0))
            if size >= OPEN_BYTES:
                part, size = part + 1, 0
            newest[key] = part, size + len(bodies[place][1])
            tenant, span, flow, start = key
            named = {"tenant": tenant, "span": span, "flow": flow, "start": start, "part": part}
            to = dumps([*key, part]).decode()
            placed.setdefault(to, {"to": to, **named, "bodies": []})["bodies"].append(place)
        return list(placed.values())

    async def _newest(self, keys: Sequence[Key]) -> dict[Key, tuple[int, int]]:
        """The last part of each rollup that there is, and its bytes."""
        found: dict[Key, tuple[int, int]] = {}
        for start in range(0, len(keys), IDS_PER_READ):
            groups = [_group(key) for key in keys[start : start + IDS_PER_READ]]
            fields = ["tenant", "span", "flow", "start", "part", "size"]
            for doc in await self._docs("rollups", {"group": {"$in": groups}}, fields):
                key = doc["tenant"], doc["span"], doc["flow"], doc["start"]
                if key not in found or found[key][0] < doc["part"]:
                    found[key] = doc["part"], doc["size"]
        return found

    async def _some(self, refs: Sequence[str]) -> list[Doc]:
        found: list[Doc] = []
        for start in range(0, len(refs), IDS_PER_READ):
            part = list(refs[start : start + IDS_PER_READ])
            found += await self._docs("rollups", {"_id": {"$in": part}}, ["upto", "body"])
        return found

    async def _tidy(self, number: int) -> None:
        if number % TIDY_BATCHES:
            return
        # Behind a batch all before it are in their rollups.
        old = {"_id": {"$lt": number, "$gte": number - 2 * TIDY_BATCHES}, "bodies": {"$ne": []}}
        change: dict[str, Any] = {"$set": {"bodies": [], "added": []}}
        await self._reading(lambda: self._collection("batches").update_many(old, change))

    async def _last(self, fields: Sequence[str]) -> Doc | None:
        docs = await self._docs("batches", {}, fields, sort=[("_id", DESCENDING)], limit=1)
        return docs[0] if docs else None

    async def _docs(self, name: str, query: dict[str, Any], fields: Sequence[str] | None = None, *, sort: Any = None,
                    limit: int = 0) -> list[Doc]:  # fmt: skip
        docs: list[Doc] = await self._reading(
            lambda: self._collection(name).find(query, fields, sort=sort, limit=limit).to_list(None)
        )
        return docs


def _key(group: Group) -> Key:
    tenant, flow, span, start = group
    return tenant, span, flow, start


def _day_of(hour: Key) -> Key:
    tenant, _, flow, start = hour
    return tenant, DAY_SEC, flow, start // DAY_SEC * DAY_SEC


def _group(key: Key) -> str:
    return dumps(key).decode()


def _writes(late: Mapping[str, Doc], had: Mapping[str, Doc], bodies: Sequence[bytes], number: int) -> list[Any]:
    writes: list[Any] = []
    for ref, part in late.items():
        known, more = had.get(ref), [bodies[place] for place in part["bodies"]]
        body = reduce(added, more if known is None else [known["body"], *more])
        change: dict[str, Any] = {"upto": number, "size": len(body), "body": body}
        if known is None:
            named = {name: part[name] for name in ("tenant", "span", "flow", "start", "part")}
            group = _group((part["tenant"], part["span"], part["flow"], part["start"]))
            writes.append(InsertOne({"_id": ref, "group": group, **named, **change}))
        else:
            writes.append(UpdateOne({"_id": ref, "upto": known["upto"]}, {"$set": change}))
    return writes
