"""One service asks another: JSON over HTTP on the loop, bounded in time and size. No redirects, no proxies."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from flowkit.errors import Corrupt, ServiceUnavailable
from flowkit.wire.codec import dumps, loads

LARGEST_ANSWER: Final = 32 * 1024 * 1024
LARGEST_HEAD: Final = 64 * 1024
CONNECT_SEC: Final = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered. `said` is the JSON of its body, None where that is empty."""

    status: int
    said: Any = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def detail(self) -> str:
        """Why it was refused, in the words of the one who refused it."""
        detail = self.said.get("detail") if isinstance(self.said, dict) else None
        return str(detail)[:2000] if detail else f"it answered {self.status}"

    @property
    def code(self) -> str:
        code = self.said.get("code") if isinstance(self.said, dict) else None
        return str(code)[:100] if code else f"http_{self.status}"


async def ask(method: str, url: str, body: Any = None, *, token: str = "", timeout: float = 10.0) -> Answer:
    """One question. `timeout` seconds bound it, connecting included. Raises `ServiceUnavailable`."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(timeout):
            return await _ask(method, url, body, token)
    except TimeoutError as error:
        raise ServiceUnavailable(f"{parts.scheme}://{parts.netloc} did not answer within {timeout:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, Corrupt) as error:
        raise ServiceUnavailable(f"{parts.scheme}://{parts.netloc} cannot be asked: {error}") from error


async def _ask(method: str, url: str, body: Any, token: str) -> Answer:
    parts = urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    async with asyncio.timeout(CONNECT_SEC):
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls, limit=LARGEST_HEAD)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        data = b"" if body is None else dumps(body)
        lines = [f"{method} {target} HTTP/1.0", f"Host: {parts.netloc}", f"Content-Length: {len(data)}"]
        if body is not None:
            lines.append("Content-Type: application/json")
        if token:
            lines.append(f"Authorization: Bearer {token}")
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii") + data)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.partition(b" ")[2].partition(b" ")[0])
        text = bytearray()
        while chunk := await reader.read(256 * 1024):
            text += chunk
            if len(text) > LARGEST_ANSWER:
                raise ValueError(f"an answer of more than {LARGEST_ANSWER} bytes")
    finally:
        writer.transport.abort()  # all that is wanted was read, or nothing more is
    return Answer(status, _read(bytes(text), status))


def _read(text: bytes, status: int) -> Any:
    if not text:
        return None
    try:
        return loads(text)
    except Corrupt:
        if status < 400:
            raise
        return None  # what stands between us and the service says in words of its own that it cannot
