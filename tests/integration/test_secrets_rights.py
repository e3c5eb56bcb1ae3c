"""The secret manager needs no more rights than `deploy/hardened` gives it, and no worker can look into its things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymongo")
pytest.importorskip("cryptography")

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from deploy.local import MongoServer
from deploy.local.certificates import Authority
from deploy.local.mongo import Guard
from deploy.local.server import ServiceUnavailable
from flowkit.backend import Backend, open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.ports import SecretUse
from flowkit.safe import open_secrets
from flowkit.telemetry import Telemetry
from tests.conftest import _cannot_have
from tests.integration.guarded import HARDENED

pytestmark = [pytest.mark.slow, pytest.mark.mongo]

ROLES = {"coordinator": "flowkitCoordinator", "secrets": "flowkitSecrets", "worker": "flowkitWorker"}
USE = SecretUse("default", "task-1", "load", 1, "tok-1", "w1")
KEYS = "k1=" + "A" * 43 + "="


@dataclass(frozen=True)
class Place:
    mongo: MongoServer
    authority: Authority

    def options(self, user: str) -> dict[str, Any]:
        return {"mongo_tls": True, "mongo_ca_file": str(self.authority.ca), "mongo_user": user,
                "mongo_password": f"password-of-{user}"}  # fmt: skip

    def backend(self, user: str) -> Backend:
        url = f"mongodb://{self.mongo.address}/flowkit?replicaSet=rs0&authSource=flowkit"
        return open_backend(url, CoordinatorConfig(**self.options(user)))

    def client(self, user: str) -> AsyncMongoClient[dict[str, Any]]:
        return AsyncMongoClient(
            self.mongo.address, replicaSet="rs0", authSource="flowkit", username=user, tls=True,
            password=f"password-of-{user}", tlsCAFile=str(self.authority.ca), serverSelectionTimeoutMS=10_000,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("rights")
    authority = Authority(folder)
    users = {user: (f"password-of-{user}", [role]) for user, role in ROLES.items()}
    server = MongoServer(guard=Guard(authority, users, json.loads((HARDENED / "mongo-roles.json").read_text())))
    try:
        server.start()
    except ServiceUnavailable as error:
        server.close()
        _cannot_have("mongo", error)
    made = Place(server, authority)
    asyncio.run(begin(made.backend("coordinator")))  # the first coordinator makes the indexes
    yield made
    server.close()


async def begin(backend: Backend) -> None:
    await backend.store.start()
    await backend.store.stop()


async def test_the_manager_needs_no_more_than_its_role(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_MASTER_KEYS", KEYS)
    backend = place.backend("secrets")
    await backend.store.start()
    secrets = open_secrets(backend, CoordinatorConfig(), SystemClock(), Telemetry())
    await secrets.set("KEY", "some-value")
    await secrets.set("KEY", "newer-value", flows=["*"])
    assert await secrets.reveal("KEY@1") == "some-value"
    assert (await secrets.manager.resolve("default", ["KEY"], USE, listed=["KEY"])).values == {"KEY": "newer-value"}
    assert (await secrets.rotate(new_key=False)).failed == ()
    assert await secrets.delete("KEY")
    assert len((await secrets.audit()).rows) == 6
    await backend.store.stop()


async def test_the_record_is_only_appended_to_and_the_rest_is_not_seen_by_the_manager(place: Place) -> None:
    async with place.client("secrets") as client:
        audit = client["flowkit"]["audit"]
        await audit.insert_one({"_id": "x", "tenant": "t"})
        for change in (audit.delete_many({}), audit.update_one({"_id": "x"}, {"$set": {"tenant": "u"}}), audit.drop()):
            with pytest.raises(OperationFailure, match="not authorized"):
                await change
        for name in ("tasks", "commits", "artifacts", "requests"):
            with pytest.raises(OperationFailure, match="not authorized"):
                await client["flowkit"][name].find_one({})


async def test_a_worker_sees_neither_secrets_nor_the_record(place: Place) -> None:
    async with place.client("worker") as client:
        for name in ("secrets", "audit"):
            found = client["flowkit"][name]
            for act in (
                found.find_one({}),
                found.insert_one({"_id": "x"}),
                found.delete_one({}),
                found.count_documents({}),
            ):
                with pytest.raises(OperationFailure, match="not authorized"):
                    await act
