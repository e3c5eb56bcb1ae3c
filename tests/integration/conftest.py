"""Whole clusters on a real Kafka and MongoDB."""

from __future__ import annotations

import gc
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from tests.integration.site import Site, database_url


@pytest.fixture
async def site(kafka_address: str, kafka_prefix: str, mongo_url: str) -> AsyncIterator[Site]:
    """A place of this test's own on the session's servers; its topics and its database go afterwards."""
    from pymongo import AsyncMongoClient

    name = f"flowkit_test_{uuid.uuid4().hex[:16]}"
    yield Site(kafka_address, kafka_prefix, database_url(mongo_url, name))
    with suppress(Exception):
        async with AsyncMongoClient(mongo_url, serverSelectionTimeoutMS=5_000) as client:
            await client.drop_database(name)


@pytest.fixture(autouse=True)
def dropped_sockets_are_not_the_next_tests_problem() -> Iterator[None]:
    """PyMongo drops the sockets of connections that it was making when its client is closed."""
    yield
    gc.collect()
