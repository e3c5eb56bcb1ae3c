"""The chain of what was done with secrets on MongoDB: many processes write one, and nobody can touch it unseen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("pymongo")

from flowkit.adapters.mongo import MongoStore
from flowkit.ports import Outcome
from flowkit.wire.audit import Check
from tests.contracts.test_secrets import row

pytestmark = pytest.mark.mongo


async def problem(store: MongoStore) -> tuple[str, int]:
    check = Check()
    check.take(await store.secrets.read_chain("t", after=0, limit=999))
    return check.problem, check.rows


async def test_several_services_write_one_chain_and_what_is_touched_in_it_is_found(mongo_database: Any) -> None:
    stores = [MongoStore(mongo_database) for _ in range(4)]
    for store in stores:
        await store.start()
        await store.secrets.start()

    async def use(number: int, store: MongoStore) -> None:
        for time in range(15):
            rows = [row(f"{number}.{time}.{k}", float(time)) for k in range(1 + time % 2)]
            while Outcome.UNKNOWN in await store.secrets.insert_audit(rows):
                pass  # as the ledger does; those that are there are duplicates then

    await asyncio.gather(*(use(number, store) for number, store in enumerate(stores)))
    store = stores[0]
    assert await problem(store) == ("", 4 * (8 + 14))

    audit = mongo_database["audit"]
    await audit.update_one({"tenant": "t", "seq": 40}, {"$set": {"name": "OTHER"}})
    assert (await problem(store))[0].startswith("row 40 was changed")
    await audit.delete_one({"tenant": "t", "seq": 30})
    assert (await problem(store))[0].startswith("row 30 was removed")
    await audit.drop_index("chain")
    found = await audit.find_one({"tenant": "t", "seq": 20})
    await audit.insert_one({**found, "_id": "zzz", "principal": "eve"})
    assert (await problem(store))[0].startswith("row 20 was inserted (use 'KEY' by 'eve')")
    for store in stores:
        await store.stop()
