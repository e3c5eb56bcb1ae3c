"""How one service asks another: bounded, and never confused by what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from flowkit.errors import ServiceUnavailable
from flowkit.services import http
from flowkit.services.http import ask

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await talk(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    listening = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        async with asyncio.timeout(10):
            await gone.wait()


def saying(text: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return talk


async def test_a_question_carries_its_body_and_its_token() -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(7))
        writer.write(b'HTTP/1.1 409 Conflict\r\n\r\n{"detail": "no", "code": "E_NO"}')

    async with server(talk) as address:
        answer = await ask("POST", f"{address}/x?y=1", {"a": 1}, token="secret-token")

    assert heard[0].startswith(b"POST /x?y=1 HTTP/1.0\r\n")
    assert b"Authorization: Bearer secret-token\r\n" in heard[0]
    assert heard[0].endswith(b'{"a":1}')
    assert (answer.status, answer.ok, answer.detail, answer.code) == (409, False, "no", "E_NO")


NONSENSE = [b"", b"HTTP/1.1", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n{", b"X" * 100_000]


@pytest.mark.parametrize("text", NONSENSE)
async def test_what_is_no_answer_is_no_answer(text: bytes) -> None:
    async with server(saying(text)) as address:
        with pytest.raises(ServiceUnavailable, match="cannot be asked"):
            await ask("GET", address)


async def test_an_error_in_words_of_others_is_still_an_error() -> None:
    async with server(saying(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>")) as address:
        answer = await ask("GET", address)

    assert (answer.status, answer.code, answer.detail) == (502, "http_502", "it answered 502")


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1000)
    async with server(saying(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2000)) as address:
        with pytest.raises(ServiceUnavailable, match="more than 1000 bytes"):
            await ask("GET", address)


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until whoever asked has gone

    async with server(talk) as address:
        with pytest.raises(ServiceUnavailable, match=r"did not answer within 0\.1 s"):
            await ask("GET", address, timeout=0.1)
