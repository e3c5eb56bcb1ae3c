"""One request for JSON to a server that a URL names, off the loop, bounded in time and size."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

LARGEST_ANSWER: Final = 1024 * 1024


class NoAnswer(Exception):
    """The server could not be reached, or did not answer in time, or with what is no JSON."""


async def ask_json(method: str, url: str, *, headers: Mapping[str, str], body: Any = None, timeout: float,
                   context: ssl.SSLContext | None = None) -> tuple[int, Any]:  # fmt: skip
    """The status and the JSON of the answer (None where there is none). Follows no redirect, uses no proxy. Raises
    `NoAnswer`."""
    work = asyncio.to_thread(_ask, method, url, dict(headers), body, timeout, context)
    try:
        async with asyncio.timeout(timeout + 1.0):  # the connection's own bound is per read
            return await work
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {timeout:g} s") from error


def _ask(method: str, url: str, headers: dict[str, str], body: Any, timeout: float,
         context: ssl.SSLContext | None) -> tuple[int, Any]:  # fmt: skip
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        trusted = context if context is not None else ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trusted)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, parts.path, data, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        text = answer.read(LARGEST_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if len(text) > LARGEST_ANSWER:
        raise NoAnswer(f"an answer of more than {LARGEST_ANSWER} bytes")
    try:
        return answer.status, json.loads(text) if text else None
    except ValueError as error:
        raise NoAnswer(f"status {answer.status}, and what is no JSON") from error
