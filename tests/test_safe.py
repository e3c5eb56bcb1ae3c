"""The secrets of the database that a process runs on: for applications, for coordinators, for workers."""

from __future__ import annotations

import asyncio
import base64
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.adapters.memory import MemoryBus
from flowkit.adapters.sqlite import SqliteStore
from flowkit.backend import Backend, open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.core.redaction import Redactor
from flowkit.errors import ConfigError, FlowKitError, MasterKeyError, TicketRefused
from flowkit.ports import AuditFilter, SecretUse
from flowkit.safe import open_desk, open_office, open_source
from flowkit.secrets.client import SecretClient
from flowkit.secrets.service import SecretService
from flowkit.telemetry import Happening, MasterKeyMade, Telemetry

USE = SecretUse("default", "task-1", "load", 1, "tok-1", "w1")
KEYS = {name: f"k1={base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("MASTER", "TICKET"))}


async def test_an_embedded_engine_has_secrets(tmp_path: Path) -> None:
    made: list[Happening] = []
    async with flowkit.Embedded(tmp_path / "flow.db") as engine:
        engine.coordinator.telemetry.subscribe(made.append)
        assert (await engine.secrets.set("KEY", "the-value-itself")).version == 1
        assert engine.secrets is engine.coordinator.secrets
        assert await engine.secrets.reveal("KEY") == "the-value-itself"
        assert [one.name for one in (await engine.secrets.list()).secrets] == ["KEY"]
        assert (await engine.secrets.rotate()).rewrapped == 1
    assert [one for one in made if isinstance(one, MasterKeyMade)] == [MasterKeyMade(str(tmp_path / "flow.db.keys"))]
    assert stat.S_IMODE((tmp_path / "flow.db.keys").stat().st_mode) == 0o600

    async with flowkit.Client(db=tmp_path / "flow.db") as client:
        assert await client.secrets.reveal("KEY") == "the-value-itself"
        assert await client.secrets.delete("KEY")


async def test_secrets_need_a_store_that_was_started(tmp_path: Path) -> None:
    with pytest.raises(FlowKitError):
        await flowkit.Coordinator(db=tmp_path / "flow.db").secrets.set("KEY", "the-value-itself")


async def test_on_a_file_the_workers_of_its_process_get_secrets_by_ticket(tmp_path: Path) -> None:
    backend, clock, cfg = open_backend(tmp_path / "flow.db", CoordinatorConfig()), SystemClock(), CoordinatorConfig()
    async with flowkit.Coordinator(db=tmp_path / "flow.db", backend=backend) as coordinator:
        await coordinator.secrets.set("KEY", "the-value-itself")
        office = open_office(backend, cfg, clock)
        source = open_source(backend, WorkerConfig(), cfg, clock, Telemetry())
        assert await source.values_for(USE, office.issue(USE, ["KEY"])) == {"KEY": "the-value-itself"}

        stranger = open_office(Backend(SqliteStore(tmp_path / "other.db"), MemoryBus(), SqliteStore("x")), cfg, clock)
        with pytest.raises(TicketRefused):
            await source.values_for(USE, stranger.issue(USE, ["KEY"]))
        rows = await backend.store.secrets.list_audit(AuditFilter("default", actions=("use",)), limit=9)  # type: ignore[attr-defined]
        assert [row.outcome for row in rows] == ["E_TICKET", "ok"]


async def test_a_worker_of_a_cluster_needs_an_address_and_no_key(tmp_path: Path) -> None:
    cluster = Backend(SqliteStore(tmp_path / "x.db"), MemoryBus())
    asked = (cluster, WorkerConfig(), CoordinatorConfig(), SystemClock(), Telemetry())
    with pytest.raises(ConfigError, match="does not know the secret manager: start one"):
        open_source(*asked)
    source = open_source(cluster, WorkerConfig(secrets_address="127.0.0.1:1"), *asked[2:])
    assert isinstance(source, SecretClient)
    with pytest.raises(ConfigError, match="in the clear"):
        open_source(cluster, WorkerConfig(secrets_address="10.0.0.1:1"), *asked[2:])
    with pytest.raises(MasterKeyError, match="FLOWKIT_TICKET_KEYS is not set"):
        open_office(cluster, CoordinatorConfig(), SystemClock())


@pytest.mark.mongo
async def test_a_manager_on_mongodb_serves_workers_and_the_store_has_no_value(
    mongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_MASTER_KEYS", KEYS["MASTER"])
    monkeypatch.setenv("FLOWKIT_TICKET_KEYS", KEYS["TICKET"])
    cfg, clock = CoordinatorConfig(), SystemClock()
    backend = open_backend(mongo_database, cfg)
    await backend.store.start()
    names = await mongo_database.list_collection_names()
    assert not {"secrets", "audit"} & set(names)  # who does not use them needs no right to them

    from flowkit.safe import open_secrets

    secrets = open_secrets(backend, cfg, clock, Telemetry(), principal="ann")
    await secrets.set("KEY", "the-value-itself")
    service = SecretService(open_desk(backend, cfg, clock, Telemetry()), "127.0.0.1:0")
    await service.start()
    try:
        ticket = open_office(backend, cfg, clock).issue(USE, ["KEY"])
        monkeypatch.delenv("FLOWKIT_MASTER_KEYS")
        monkeypatch.delenv("FLOWKIT_TICKET_KEYS")
        source = open_source(backend, WorkerConfig(secrets_address=service.address), cfg, clock, Telemetry())
        assert await source.values_for(USE, ticket) == {"KEY": "the-value-itself"}
    finally:
        await service.stop()
    docs = [doc for name in ("secrets", "audit") for doc in await mongo_database[name].find().to_list(None)]
    assert len(docs) == 3
    assert not Redactor(["the-value-itself"]).spans(b" ".join(map(everything_in, docs)))  # in no form
    await backend.store.stop()


def everything_in(doc: Mapping[str, Any]) -> bytes:
    return b"".join(value if isinstance(value, bytes) else str(value).encode() for value in doc.values())


def test_what_uses_no_secrets_loads_no_encryption() -> None:
    script = "import sys, flowkit.client, flowkit.embedded, flowkit.safe; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_worker_that_asks_a_manager_needs_no_encryption_library() -> None:
    script = """
import sys
sys.modules["cryptography"] = None
from flowkit.core.redaction import Redactor
from flowkit.secrets.address import client_tls
from flowkit.secrets.client import SecretClient
SecretClient("127.0.0.1:8000")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


async def test_a_cancelled_use_ends_at_once(tmp_path: Path) -> None:
    async with flowkit.Embedded(tmp_path / "flow.db") as engine:
        asking = asyncio.create_task(engine.secrets.list())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
