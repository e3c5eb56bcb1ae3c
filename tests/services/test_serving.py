"""How a service listens: whom it waits for, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from flowkit.errors import ConfigError
from flowkit.services import connection
from flowkit.services.keys import Keys, Principal
from flowkit.services.node_runner import NodeRunnerService
from flowkit.services.npu import NpuService
from flowkit.services.serving import HttpServer, add_health, keys_guard, make_app
from flowkit.services.settings import KINDS, read_settings
from flowkit.services.unit import Unit
from flowkit.telemetry import Telemetry

TOKEN = "t" * 32


@pytest.fixture
async def app() -> FastAPI:
    settings = read_settings(KINDS["npu"], None, {})
    app = make_app(settings, Telemetry())
    add_health(app, settings, {}, lambda: False)
    return app


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[HttpServer]:
    settings = read_settings(KINDS["npu"], None, {}, {"PORT": "0", "DRAIN_SEC": "5"})
    serving = HttpServer(app, settings, keys_guard(Keys([(Principal("operator"), TOKEN)])))
    await serving.start()
    yield serving
    await serving.stop()


async def talk(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(server.address.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


async def answer_of(server: HttpServer, path: str) -> bytes:
    """All that the operator hears."""
    reader, writer = await talk(server)
    writer.write(f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        await closed(writer)


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("begin", [b"", b"GET /hea", HEALTH + b"GET /hea"])
async def test_who_does_not_end_what_they_say_is_hung_up(
    begin: bytes, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.Connection, "head_sec", 0.1)
    reader, writer = await talk(server)
    writer.write(begin)

    async with asyncio.timeout(10):
        try:
            heard = await reader.read()
        except ConnectionResetError:
            heard = b""

    await closed(writer)
    assert heard.startswith(b"HTTP/1.1 200") or not begin.startswith(HEALTH)


async def test_an_answer_that_takes_long_is_waited_for(
    app: FastAPI, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.Connection, "head_sec", 0.05)

    @app.get("/slow")
    async def slow() -> dict[str, bool]:
        await asyncio.sleep(0.5)
        return {"slow": True}

    assert (await answer_of(server, "/slow")).endswith(b'{"slow":true}')


async def test_a_stop_lets_an_answer_out_and_hears_nobody_more(app: FastAPI, server: HttpServer) -> None:
    begun = asyncio.Event()

    @app.get("/slow")
    async def slow() -> dict[str, bool]:
        begun.set()
        await asyncio.sleep(0.3)
        return {"slow": True}

    asking = asyncio.create_task(answer_of(server, "/slow"))
    async with asyncio.timeout(10):
        await begun.wait()
        await server.stop()

    assert (await asking).endswith(b'{"slow":true}')
    with pytest.raises(OSError):
        await talk(server)


async def test_more_connections_than_there_may_be_are_hung_up(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST", 1)
    _, first = await talk(server)
    await asyncio.sleep(0.05)
    reader, second = await talk(server)

    async with asyncio.timeout(10):
        try:
            heard = await reader.read()
        except ConnectionResetError:
            heard = b""

    await closed(first)
    await closed(second)
    assert heard == b""


async def test_an_error_inside_is_said_without_what_went_wrong(app: FastAPI, server: HttpServer) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is 1234")

    heard = await answer_of(server, "/broken")

    assert heard.startswith(b"HTTP/1.1 500")
    assert b"E_INTERNAL" in heard
    assert b"1234" not in heard


@pytest.mark.parametrize(
    ("name", "kind"),
    [("npu", NpuService), ("node-runner", NodeRunnerService)],
)
async def test_a_unit_that_cannot_be_reached_does_not_stay(
    name: str, kind: type[NpuService | NodeRunnerService], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def begin(self: Unit) -> None:
        told.append("begun")

    async def end(self: Unit, within_sec: float) -> None:
        told.append(f"ended within {within_sec:g} s")

    monkeypatch.setattr(Unit, "start", begin)
    monkeypatch.setattr(Unit, "stop", end)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = read_settings(KINDS[name], None, {}, {"PORT": port})
        service = kind(settings, Keys([(Principal("operator"), TOKEN)]), Telemetry())
        with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1: Address already in use"):
            await service.start()

    assert told == ["begun", "ended within 0 s"]
