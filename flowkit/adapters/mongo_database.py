"""A database of MongoDB that is asked and written to in bounded time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from flowkit.adapters import missing
from flowkit.adapters.limits import Document, storable
from flowkit.adapters.mongo_handles import Handle, check, open_handle
from flowkit.adapters.mongo_security import said_by, what_to_do
from flowkit.errors import StoreUnavailable
from flowkit.ports import Outcome

try:
    import pymongo
    from bson.errors import BSONError
    from pymongo import IndexModel
    from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
except ImportError as error:
    raise missing("pymongo", "mongo") from error

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13
IDS_PER_READ = 200
ANSWERS_AT_ONCE = 10_000
"""Documents of a read's first answer, or as many as 16 MB hold. By itself a server gives 101, and is asked again."""
FAILURES = (PyMongoError, BSONError, TimeoutError, OverflowError, UnicodeError)

Kind = TypeVar("Kind", bound=Document)
Result = TypeVar("Result")


class MongoDatabase:
    """Reads raise `StoreUnavailable`; writes answer with `Outcome`s, and UNKNOWN where the server gave no clear answer
    in time. `given`, `options` and the seconds are a `MongoStore`'s."""

    def __init__(
        self, given: object, options: Mapping[str, Any] | None, *, timeout: float, start_timeout: float
    ) -> None:
        check(given)
        self._given = given
        self._options = options
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._handle: Handle | None = None
        self.address = "MongoDB"

    # life

    async def start(self, wanted: Mapping[str, Sequence[IndexModel]]) -> None:
        handle = open_handle(self._given, self._options)
        self._handle, self.address = handle, handle.address

        async def prepare() -> None:
            await handle.database.command("ping")
            for name, indexes in wanted.items():
                try:
                    await handle.collection(name).create_indexes(indexes)
                except OperationFailure as error:
                    if error.code != UNAUTHORIZED or not await _are_there(handle.collection(name), indexes):
                        raise

        try:
            await self.bounded(prepare, self._start_timeout)
        except FAILURES as error:
            await self.stop()
            raise StoreUnavailable(f"{handle.address}: {said_by(error)}; {what_to_do(error)}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            await handle.close()

    def started(self) -> Handle:
        if self._handle is None:
            raise StoreUnavailable(f"{self.address}: the store is not started")
        return self._handle

    def collection(self, name: str) -> Any:
        return self.started().collection(name)

    # reading

    async def find(
        self,
        collection: str,
        query: dict[str, Any],
        convert: Callable[[Mapping[str, Any]], Result],
        *,
        sort: Sequence[tuple[str, int]] = (),
        limit: int = 0,
        fields: Sequence[str] | None = None,
    ) -> list[Result]:
        def find() -> Awaitable[list[Mapping[str, Any]]]:
            cursor = self.collection(collection).find(
                query, fields, limit=limit, sort=list(sort) or None, batch_size=ANSWERS_AT_ONCE
            )
            answer: Awaitable[list[Mapping[str, Any]]] = cursor.to_list(None)
            return answer

        return [convert(doc) for doc in await self.reading(find)]

    async def find_ids(
        self, collection: str, ids: Iterable[str], convert: Callable[[Mapping[str, Any]], Result]
    ) -> list[Result]:
        wanted = list(dict.fromkeys(ids))
        found: list[Result] = []
        for start in range(0, len(wanted), IDS_PER_READ):
            found += await self.find(collection, {"_id": {"$in": wanted[start : start + IDS_PER_READ]}}, convert)
        return found

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        async def ask() -> list[Mapping[str, Any]]:
            cursor = await _awaited(self.collection(collection).aggregate(pipeline))
            return list(await cursor.to_list(None))

        return await self.reading(ask)

    async def reading(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await self.bounded(ask)
        except FAILURES as error:
            raise StoreUnavailable(f"{self.address}: no answer to a read: {said_by(error)}") from error

    # writing

    async def insert(
        self, collection: str, items: Sequence[Kind], convert: Callable[[Kind], dict[str, Any]]
    ) -> list[Outcome]:
        good = [item for item in items if storable(item)]
        answers = await self.insert_docs(collection, [convert(item) for item in good])
        if len(good) == len(items):
            return answers
        outcomes = iter(answers)
        return [next(outcomes) if storable(item) else Outcome.UNKNOWN for item in items]

    async def insert_docs(self, collection: str, docs: Sequence[dict[str, Any]]) -> list[Outcome]:
        if not docs:
            return []
        try:
            if len(docs) == 1:  # a tenth less of CPU in the driver than for a bulk of one
                await self.bounded(lambda: self.collection(collection).insert_one(docs[0]))
            else:
                await self.bounded(lambda: self.collection(collection).insert_many(docs, ordered=False))
        except DuplicateKeyError:
            return [Outcome.DUPLICATE]
        except BulkWriteError as error:
            return _outcomes(error, len(docs))
        except FAILURES:
            return [Outcome.UNKNOWN] * len(docs)
        return [Outcome.OK] * len(docs)

    async def write(self, write: Callable[[], Awaitable[object]]) -> Outcome:
        try:
            await self.bounded(write)
        except FAILURES:
            return Outcome.UNKNOWN
        return Outcome.OK

    async def change(self, update: Callable[[], Awaitable[Any]]) -> Outcome:
        """One guarded update: NO_MATCH where its guard held nobody."""
        try:
            result = await self.bounded(update)
        except FAILURES:
            return Outcome.UNKNOWN
        return Outcome.OK if result.matched_count else Outcome.NO_MATCH

    async def bounded(self, act: Callable[[], Awaitable[Result]], timeout: float | None = None) -> Result:
        seconds = self._timeout if timeout is None else timeout
        # The driver's own bound ends the operation cleanly, on the server too. The outer one is for mistakes.
        async with asyncio.timeout(seconds + 1.0):
            with pymongo.timeout(seconds):
                return await act()


async def _are_there(collection: Any, indexes: Sequence[Any]) -> bool:
    """For a user who may not make them: a coordinator has."""
    there = {index["name"] async for index in await _awaited(collection.list_indexes())}
    return there >= {index.document["name"] for index in indexes}


async def _awaited(answer: Any) -> Any:
    """PyMongo's cursor comes with a promise, Motor's at once."""
    return await answer if inspect.isawaitable(answer) else answer


def _outcomes(error: BulkWriteError, count: int) -> list[Outcome]:
    # Without a write concern's error, what is not named among the errors was written by a majority.
    clear = not error.details["writeConcernErrors"]
    outcomes = [Outcome.OK if clear else Outcome.UNKNOWN] * count
    for entry in error.details["writeErrors"]:
        duplicate = entry["code"] == DUPLICATE_KEY
        outcomes[entry["index"]] = Outcome.DUPLICATE if duplicate else Outcome.UNKNOWN
    return outcomes
