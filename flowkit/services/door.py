"""What stands before every verb of a service: who asks, how much is read of what is sent, and that it is JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowkit.errors import Corrupt
from flowkit.services.keys import Principal
from flowkit.wire.codec import check_depth, loads

MB: Final = 1024 * 1024
BODY_SEC: Final = 20.0
MOST_AT_ONCE: Final = 200
MOST_HELD: Final = 256 * MB
"""Bodies of all requests that are answered now, together."""
LONGEST_QUERY: Final = 64 * 1024
DEEPEST: Final = 64
OPEN: Final = frozenset({("GET", "/health"), ("GET", "/")})
OPEN_BYTES: Final = 1024
"""More is not read of whom nobody knows."""


class Refusal(Exception):
    """A request that is answered with an error: `detail` says what to do."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after


class Guard(Protocol):
    """Says whose a token is for this verb; None: nobody's who may."""

    def __call__(self, method: str, path: str, token: str) -> Principal | None: ...


class Door:
    """Lets through to `app` what may come in. `who` decides for everything but what is open to all."""

    def __init__(self, app: ASGIApp, who: Guard, *, most_bytes: int = MB, most_at_once: int = MOST_AT_ONCE,
                 body_sec: float = BODY_SEC) -> None:  # fmt: skip
        self._app = app
        self._who = who
        self._most_bytes = most_bytes
        self._body_sec = body_sec
        self._most_at_once = most_at_once
        self._inside = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no web sockets, and no life span of uvicorn's
            return
        self._inside += 1
        body = bytearray()
        try:
            try:
                principal, headers = self._meet(scope)
                await self._read(body, headers, receive, OPEN_BYTES if principal is None else self._most_bytes)
            except Refusal as refusal:
                await answer(send, refusal)
                return
            state = {**scope.get("state", {}), "principal": principal}
            await self._app({**scope, "state": state}, _again(bytes(body), receive), send)
        finally:
            self._inside -= 1
            self._held -= len(body)

    def _meet(self, scope: Scope) -> tuple[Principal | None, dict[bytes, bytes]]:
        """Who asks, and the headers."""
        method, path = scope["method"], scope["path"]
        headers = {name: value for name, value in scope["headers"]}
        if self._inside > self._most_at_once:
            raise Refusal(503, "E_BUSY", "too many requests at a time: try again in a second", retry_after=1)
        if len(scope["query_string"]) > LONGEST_QUERY:
            raise Refusal(414, "E_TOO_LARGE", f"the query has more than {LONGEST_QUERY} bytes")
        if (method, path) in OPEN:
            return None, headers
        return self._principal(method, path, headers.get(b"authorization", b"")), headers

    def _principal(self, method: str, path: str, header: bytes) -> Principal:
        kind, _, token = header.decode("latin-1").partition(" ")
        found = self._who(method, path, token.strip()) if kind.lower() == "bearer" else None
        if found is None:
            raise Refusal(
                401, "E_TOKEN",
                "this needs a token of the service's: `Authorization: Bearer TOKEN`; its token file has them",
            )  # fmt: skip
        return found

    async def _read(self, body: bytearray, headers: dict[bytes, bytes], receive: Receive, most: int) -> None:
        """What is sent, into `body`. It counts as held from the moment that it is here."""
        too_large = Refusal(413, "E_TOO_LARGE", f"the body has more than {most:,} bytes")
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            raise too_large
        try:
            async with asyncio.timeout(self._body_sec):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "E_REQUEST", "the request ended in the middle")
                    part = message.get("body", b"")
                    if len(body) + len(part) > most:
                        raise too_large
                    if self._held + len(part) > MOST_HELD:
                        raise Refusal(503, "E_BUSY", "too much is sent at a time: try again in a second", retry_after=1)
                    body += part
                    self._held += len(part)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refusal(408, "E_TIMEOUT", f"the body did not come within {self._body_sec:g} s") from None
        if body:
            _check_json(headers, bytes(body))


def _check_json(headers: dict[bytes, bytes], body: bytes) -> None:
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise Refusal(415, "E_CONTENT_TYPE", "a body is JSON: send `Content-Type: application/json`")
    try:
        check_depth(body)
        value = loads(body)
    except Corrupt as error:
        raise Refusal(400, "E_JSON", f"the body cannot be read as JSON: {str(error)[:200]}") from None
    if _depth(value) > DEEPEST:
        raise Refusal(400, "E_JSON", f"the body is nested more than {DEEPEST} deep")


def _depth(value: Any) -> int:
    """How deep lists and objects stand in each other; level by level, so that no stack can run out."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        if depth > DEEPEST:
            break
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more; behind it, what comes: that the client has gone."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


async def answer(send: Send, refusal: Refusal) -> None:
    """Answer with an error."""
    body = json.dumps({"detail": refusal.detail, "code": refusal.code}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # what is still sent of it is not read
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.retry_after:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
