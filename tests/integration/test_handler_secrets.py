"""Secrets of handlers, whole: stored, given for a ticket to one attempt, covered wherever it speaks, and on record."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.clock import SystemClock
from flowkit.secrets.service import SecretService
from tests.integration.site import Site, until

pytest.importorskip("cryptography")

KEY = "sk-canary-5f2d77c1a9"
FORMS = (KEY, KEY.encode().hex(), base64.b64encode(KEY.encode()).decode().rstrip("="))
seen: list[str] = []


async def call(key: str, ctx: flowkit.Context) -> dict[str, Any]:
    seen.append(key)
    ctx.log.info("calling with %s", key, token=key)
    ctx.progress(1, 2, f"with {key}")
    await ctx.artifacts.put_json({"kept": key})
    return {"key": key, "hex": key.encode().hex(), "length": len(key)}


def crash(key: str) -> None:
    raise RuntimeError(f"no answer for {base64.b64encode(key.encode()).decode()}")


async def batches(key: str) -> Any:
    for number in range(3):
        yield {"number": number, "key": key}


async def read(rows: Any) -> list[Any]:
    return [row async for row in rows]


HANDLERS = [call, crash, batches, read]
SECRET = {"$secret": "API_KEY"}
GRAPH: dict[str, Any] = {
    "nodes": [
        {"node_id": "call", "type": "call", "inputs": {"key": SECRET}, "secrets": ["API_KEY"]},
        {"node_id": "crash", "type": "crash", "inputs": {"key": SECRET}, "secrets": ["API_KEY"],
         "retry_policy": {"max": 1}, "continue_on_failure": True},
        {"node_id": "made", "type": "batches", "inputs": {"key": SECRET}, "secrets": ["API_KEY"]},
        {"node_id": "read", "type": "read", "inputs": {"rows": {"$stream": "made"}}},
    ],
    "output": {"call": {"$from": "call"}, "read": {"$from": "read"}},
}  # fmt: skip
EXPECTED = {
    "call": {"key": "[REDACTED]", "hex": "[REDACTED]", "length": len(KEY)},
    "read": [{"number": number, "key": "[REDACTED]"} for number in range(3)],
}


async def said_of(engine: flowkit.Embedded, task_id: str) -> list[Any]:
    """Log lines come a little later than results."""
    return [line async for line in engine.logs(task_id)]


def clean(text: str) -> bool:
    return not any(form in text for form in FORMS)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


async def test_on_a_file_handlers_get_their_secrets_and_nothing_else_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=HANDLERS) as engine:
        await engine.secrets.set("API_KEY", KEY)
        task = await engine.submit(GRAPH)
        result, view = await task.wait(timeout=60), await task.view()
        events = [event async for event in task.watch()]
        lines = await until("its line is stored", lambda: said_of(engine, task.id))
        record = await engine.secrets.audit()

    assert result.status == "finished", result.error
    assert result.output == EXPECTED
    assert seen == [KEY]
    assert view.nodes["crash"].error is not None
    assert view.nodes["crash"].error["message"] == "no answer for [REDACTED]"
    assert [line.message for line in lines if line.node_id == "call"] == ["calling with [REDACTED]"]
    assert "calling with [REDACTED]" in caplog.text
    assert clean(repr([result, view, events, lines, record])), "told"
    assert clean("\n".join(json.dumps(vars(one), default=repr) for one in caplog.records)), "logged"
    assert clean(b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file()).decode("latin-1"))
    used = sorted(row.node for row in record.rows if row.action == "use")
    assert used == ["call", "crash", "made"]


async def test_a_secret_that_is_for_others_fails_the_attempt_before_the_handler_begins(tmp_path: Path) -> None:
    graph = {"nodes": [{**GRAPH["nodes"][0], "node_id": name} for name in ("allowed", "other")], "output": {}}
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=HANDLERS) as engine:
        await engine.secrets.set("API_KEY", KEY, nodes=["allowed"])
        task = await engine.submit(graph)
        result, view = await task.wait(timeout=60), await task.view()

    assert result.status == "failed"
    assert (view.nodes["allowed"].state, view.nodes["other"].state) == ("finished", "failed")
    assert view.nodes["other"].error is not None
    assert view.nodes["other"].error["code"] == "E_SECRET_REFUSED"
    assert view.nodes["other"].attempts == 1
    assert seen == [KEY]


async def test_policies_bound_the_secrets_of_handlers_at_the_door(tmp_path: Path) -> None:
    cfg = flowkit.CoordinatorConfig(code_policy=json.dumps({"every": {"secrets": ["ETL_*"]}}))
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=HANDLERS, cfg=cfg) as engine:
        with pytest.raises(flowkit.GraphError) as refused:
            await engine.submit(GRAPH)

    assert [(one.code, one.place) for one in refused.value.problems] == [
        ("E_POLICY", f"nodes[{number}].secrets") for number in range(3)
    ]
    assert refused.value.problems[0].message == (
        "the node asks for the secret 'API_KEY', and the policy of all code allows only ETL_*"
    )


@contextmanager
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("FLOWKIT_MASTER_KEYS", "FLOWKIT_TICKET_KEYS"):
        monkeypatch.setenv(name, f"k1={base64.b64encode(os.urandom(32)).decode()}")
    yield


@pytest.mark.kafka
@pytest.mark.mongo
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_on_kafka_and_mongodb_they_wait_for_a_worker_that_knows_the_manager(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flowkit.backend import open_backend
    from flowkit.safe import open_desk
    from flowkit.telemetry import Telemetry

    caplog.set_level(logging.INFO)
    cfg = flowkit.CoordinatorConfig(**site.settings)
    with keys(monkeypatch):
        backend, telemetry = open_backend(site.db, cfg), Telemetry()
        await backend.store.start()
        desk = open_desk(backend, cfg, SystemClock(), telemetry)
        service = SecretService(desk, "127.0.0.1:0", tls=None, telemetry=telemetry)
        await desk.start()
        await service.start()
        try:
            async with site.coordinator() as coordinator, site.worker(HANDLERS):
                await coordinator.secrets.set("API_KEY", KEY)
                task_id = await coordinator.create_task(graph=GRAPH)

                async def says_why() -> bool:
                    found = [one.message for one in await coordinator.explain(task_id) if one.code == "no_worker"]
                    return any(
                        "no label 'flowkit.secrets'" in one and "FLOWKIT_SECRETS_ADDRESS" in one for one in found
                    )

                await until("it says which worker it waits for", says_why)
                assert seen == []
                async with site.worker(HANDLERS, secrets_address=str(service.address)):
                    result = await coordinator.wait_task(task_id, timeout=120)
                    view = await coordinator.get_task(task_id)
                    lines = [line async for line in coordinator.logs(task_id)]
                stored = await stored_in(site.db)
        finally:
            await service.stop()
            await backend.store.stop()

    assert result.status == "finished", result.error
    assert result.output == EXPECTED
    assert seen == [KEY]
    assert "REDACTED" in stored
    assert clean(repr([result, view, lines]) + stored + caplog.text)


async def stored_in(url: str) -> str:
    """Everything that the database holds."""
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(url, serverSelectionTimeoutMS=10_000) as client:
        database = client.get_default_database()
        names = await database.list_collection_names()
        return repr([document for name in names async for document in database[name].find()])
