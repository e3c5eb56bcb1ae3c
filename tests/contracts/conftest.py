"""The handles of the contract suites beyond those that all tests share."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.adapters.sqlite import SqliteStore
from flowkit.ports import Store


@pytest.fixture
async def motor_database(mongo_url: str) -> AsyncIterator[Any]:
    """A fresh database in a Motor client of this test's loop; dropped afterwards."""
    motor_asyncio = pytest.importorskip("motor.motor_asyncio")
    client = motor_asyncio.AsyncIOMotorClient(mongo_url, serverSelectionTimeoutMS=10_000)
    name = f"flowkit_test_{uuid.uuid4().hex[:16]}"
    yield client[name]
    with suppress(Exception):
        await client.drop_database(name)
    client.close()


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("mongo_database", marks=pytest.mark.mongo, id="mongo"),
        pytest.param("motor_database", marks=pytest.mark.mongo, id="motor"),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "tasks.db")
    from flowkit.adapters.mongo import MongoStore

    return MongoStore(request.getfixturevalue(request.param))


@pytest.fixture
async def store(backend: Store) -> AsyncIterator[Store]:
    await backend.start()
    yield backend
    await backend.stop()
