"""The handles of the contract suites beyond those that all tests share."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest


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
