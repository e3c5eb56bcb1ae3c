"""Answers `GET /metrics` over HTTP, in the loop whose figures they are: they are read at rest, and a loop that is stuck
does not pretend to be well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from flowkit.errors import ConfigError

ASK_SEC: Final = 10.0
ANSWER_SEC: Final = 30.0
MOST_BYTES: Final = 16 * 1024
"""Of a request, all of its headers included."""
MOST_AT_ONCE: Final = 16
MOST_CONNECTIONS: Final = 256
"""Those beyond are hung up before they have said anything."""
PATHS: Final = ("/metrics", "/")
TEXT: Final = "text/plain; charset=utf-8"

Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """`render` gives the text for what a client accepts, and its content type. One request for each connection."""

    def __init__(self, render: Callable[[str], tuple[bytes, str]], host: str, port: int) -> None:
        self._render = render
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._now = 0

    async def start(self) -> None:
        """Listen. Raises `ConfigError`."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=MOST_BYTES)
        except OSError as error:
            raise ConfigError(
                f"the metrics cannot be served on {self._host}:{self._port}: {error.strerror or error}; choose another "
                "port (--metrics-port, FLOWKIT_METRICS_PORT): each process needs its own"
            ) from error

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        assert self._server is not None
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._now += 1
        try:
            if self._now > MOST_CONNECTIONS:
                return
            async with asyncio.timeout(ASK_SEC):
                asked = await reader.readuntil(b"\r\n\r\n")
            method, answer = self._answer(asked)
            async with asyncio.timeout(ANSWER_SEC):
                await _write(writer, method, answer)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that says nothing sensible, or has gone, is owed no answer
        finally:
            self._now -= 1
            writer.close()

    def _answer(self, asked: bytes) -> tuple[str, Answer]:
        line, *rest = asked.decode("latin-1").split("\r\n")
        method, _, target = line.partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return method, (HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET /metrics\n")
        if path not in PATHS:
            return method, (HTTPStatus.NOT_FOUND, TEXT, b"the metrics are at /metrics\n")
        if self._now > MOST_AT_ONCE:
            return method, (HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"too many ask at once\n")
        headers = (header.partition(":") for header in rest)
        accept = next((value.strip() for name, _, value in headers if name.lower() == "accept"), "")
        body, content_type = self._render(accept)
        return method, (HTTPStatus.OK, content_type, body)


async def _write(writer: asyncio.StreamWriter, method: str, answer: Answer) -> None:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + (b"" if method == "HEAD" else body))
    await writer.drain()
