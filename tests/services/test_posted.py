"""Posted traces are kept alike in SQLite and in MongoDB."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.errors import StoreUnavailable
from flowkit.services.posted import PostedTraces, SqlitePosted, open_posted
from tests.integration.site import database_url


@pytest.fixture(params=["sqlite", "mongo"])
async def posted(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PostedTraces]:
    db = str(tmp_path / "flow.db")
    if request.param == "mongo":
        url = request.getfixturevalue("mongo_url")
        db = database_url(url, f"flowkit_test_{uuid.uuid4().hex[:16]}").replace("/?", "?", 0)
    store = open_posted(db, "posted")
    await store.start()
    yield store
    if request.param == "mongo":
        await drop(db)
    await store.stop()


async def drop(db: str) -> None:
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(db) as client:
        await client.drop_database(client.get_default_database().name)


def row(flow_id: str, at: float, **more: Any) -> dict[str, Any]:
    return {"trace_id": str(uuid.uuid4()), "flow_id": flow_id, "runner_id": str(uuid.uuid4()), "at": at, **more}


async def test_traces_that_come_together_have_a_number_each(posted: PostedTraces) -> None:
    numbers = await asyncio.gather(*(posted.add("t", row("f", at)) for at in range(20)))

    found = await posted.of_flow("t", "f", limit=100)
    assert sorted(numbers) == list(range(1, 21))
    assert [one["sequence"] for one in found] == list(range(1, 21))


async def test_any_json_comes_back_as_it_was(posted: PostedTraces) -> None:
    odd = {"$where": 1, "a.b": {"": None}, "big": 10**40, "text": "\x00 \ud800 é", "list": [1.5, True]}
    one = row("f", 1.0, inputs=odd)

    await posted.add("t", one)

    assert await posted.of_runner("t", one["runner_id"]) == {**one, "sequence": 1}


async def test_tenants_are_strangers_and_the_newest_come_first(posted: PostedTraces) -> None:
    mine, theirs = [row("f", 1.0), row("g", 3.0), row("f", 2.0)], row("f", 9.0)
    for one in mine:
        await posted.add("t", one)
    await posted.add("other", theirs)

    newest = [one["at"] for one in await posted.newest("t", limit=2)]

    assert newest == [3.0, 2.0]
    assert await posted.flows("t", limit=5) == ["g", "f"]
    assert await posted.of_runner("t", theirs["runner_id"]) is None
    assert [await posted.delete("t", theirs["trace_id"]), await posted.delete("other", theirs["trace_id"])] == [
        False,
        True,
    ]
    assert await posted.of_flow("other", "f", limit=5) == []


async def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    store = SqlitePosted(tmp_path / "no such folder" / "x")

    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await store.start()
    with pytest.raises(StoreUnavailable):
        await store.newest("t", limit=1)
