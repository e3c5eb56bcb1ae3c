"""The handles of the contract suites beyond those that all tests share."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.adapters.sqlite import SqliteStore
from flowkit.ports import Store

# What a store does in time is not asked here, and the machine may be busy with other tests.
PATIENCE_SEC = 60.0


@pytest.fixture(scope="session")
def swept(mongo_url: str) -> Iterator[str]:
    """The name of a database that the stores of many tests have, one after the other. To make some thirty collections
    and indexes, and to drop them again, costs the server more than most tests, and hundreds of that make it stall."""
    from pymongo import MongoClient

    name = f"flowkit_test_{uuid.uuid4().hex[:16]}"
    yield name
    with MongoClient(mongo_url, serverSelectionTimeoutMS=10_000) as client:
        client.drop_database(name)


@pytest.fixture
async def pymongo_database(mongo_url: str, swept: str) -> AsyncIterator[Any]:
    """A database without documents, in a client of this test's loop."""
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(mongo_url, serverSelectionTimeoutMS=10_000) as client:
        yield client[swept]
        await sweep(client[swept])


@pytest.fixture
async def motor_database(mongo_url: str, swept: str) -> AsyncIterator[Any]:
    """The same in a Motor client."""
    motor_asyncio = pytest.importorskip("motor.motor_asyncio")
    client = motor_asyncio.AsyncIOMotorClient(mongo_url, serverSelectionTimeoutMS=10_000)
    yield client[swept]
    await sweep(client[swept])
    client.close()


async def sweep(database: Any) -> None:
    """Delete all documents, for a majority: the next test may read by one."""
    from pymongo import WriteConcern

    surely = database.with_options(write_concern=WriteConcern("majority"))
    async with asyncio.timeout(PATIENCE_SEC):
        names = await database.list_collection_names()
        await asyncio.gather(*(surely[name].delete_many({}) for name in names))


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("pymongo_database", marks=pytest.mark.mongo, id="mongo"),
        pytest.param("motor_database", marks=pytest.mark.mongo, id="motor"),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "tasks.db", timeout=PATIENCE_SEC)
    from flowkit.adapters.mongo import MongoStore

    return MongoStore(request.getfixturevalue(request.param), timeout=PATIENCE_SEC, start_timeout=PATIENCE_SEC)


@pytest.fixture
async def store(backend: Store) -> AsyncIterator[Store]:
    await backend.start()
    yield backend
    await backend.stop()
