"""What a service reads of a request is bounded while it is being read, and for whom nobody knows most of all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flowkit.services import door
from flowkit.services.door import OPEN_BYTES, Door
from flowkit.services.keys import Principal

JSON = [(b"content-type", b"application/json"), (b"authorization", b"Bearer t")]


class Asking:
    """One request, whose body comes in the parts that are put."""

    def __init__(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope: dict[str, Any] = {
            "type": "http", "method": method, "path": path, "query_string": b"", "headers": headers,
        }  # fmt: skip
        self._parts: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self.status = 0
        self.said: Any = None

    def put(self, part: bytes, *, more: bool = False) -> None:
        self._parts.put_nowait((part, more))

    async def receive(self) -> dict[str, Any]:
        part, more = await self._parts.get()
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if message["type"] == "http.response.body":
            self.said = json.loads(message["body"])


class App:
    """Answers nothing, and notes the bodies that were let through; it waits while `wait` says so."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.wait = asyncio.Event()
        self.wait.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        await self.wait.wait()


def whoever(method: str, path: str, token: str) -> Principal | None:
    return Principal("operator") if token == "t" else None


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def room(app: App) -> Door:
    return Door(app, whoever, most_bytes=10_000)


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5000")]])
async def test_of_whom_nobody_knows_next_to_nothing_is_read(
    headers: list[tuple[bytes, bytes]], room: Door, app: App
) -> None:
    asking = Asking("GET", "/health", headers)
    for _ in range(5):
        asking.put(b"x" * OPEN_BYTES, more=True)

    await room(asking.scope, asking.receive, asking.send)  # type: ignore[arg-type]

    assert (asking.status, asking.said["code"], app.bodies) == (413, "E_TOO_LARGE", [])
    assert f"more than {OPEN_BYTES:,} bytes" in asking.said["detail"]


async def test_health_is_told_to_all(room: Door, app: App) -> None:
    asking = Asking("GET", "/health", [])
    asking.put(b"")

    await room(asking.scope, asking.receive, asking.send)  # type: ignore[arg-type]

    assert app.bodies == [b""]


async def test_bodies_that_are_on_their_way_count_together(
    room: Door, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MOST_HELD", 1000)
    first, second, third = (Asking("POST", "/fcb/add", JSON) for _ in range(3))
    first.put(b"[" + b" " * 700, more=True)
    slow = asyncio.create_task(room(first.scope, first.receive, first.send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    second.put(b"[" + b" " * 700, more=True)

    await room(second.scope, second.receive, second.send)  # type: ignore[arg-type]
    first.put(b"]")
    await slow
    third.put(b"[" + b" " * 900 + b"]")
    await room(third.scope, third.receive, third.send)  # type: ignore[arg-type]

    assert (second.status, second.said["code"]) == (503, "E_BUSY")
    assert [len(body) for body in app.bodies] == [702, 902]
    assert (first.status, third.status) == (0, 0)  # let through: the app has the word
