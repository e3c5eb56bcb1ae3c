"""The secret manager as a service: workers of other processes ask it over a loopback socket, or TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
import stat
from contextlib import suppress
from typing import Final

from flowkit.errors import ConfigError, Corrupt, FlowKitError, SecretsUnavailable
from flowkit.secrets import frames
from flowkit.secrets.address import check_way, read_address
from flowkit.secrets.desk import Desk
from flowkit.telemetry import LoopFailed, Telemetry

IDLE_SEC: Final = 30.0
QUESTION_SEC: Final = 5.0
ANSWER_SEC: Final = 10.0
MOST_CONNECTIONS: Final = 512
STOP_SEC: Final = 5.0


class SecretService:
    """Answers at `address` (`host:port`, `unix:/path`; port 0: a free one). Without TLS it listens to this machine
    only. Raises `ConfigError`.

    A connection carries one question after another. One that says nothing for 30 s, is in the middle of a question for
    5 s, or says what is no question, is closed; of more than 512 the new ones are.
    """

    def __init__(self, desk: Desk, address: str, *, tls: ssl.SSLContext | None = None,
                 telemetry: Telemetry | None = None) -> None:  # fmt: skip
        self._address = read_address(address)
        check_way(self._address, tls)
        self._desk = desk
        self._tls = tls
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, with the port that it has got."""
        if self._server is None or self._address.path:
            return str(self._address)
        port = self._server.sockets[0].getsockname()[1]
        return str(type(self._address)(self._address.host, port))

    async def start(self) -> None:
        """Listen. Raises `ConfigError` where the address is taken, or no address of this machine."""
        at = self._address
        try:
            if at.path:
                await self._listen_on_path(at.path)
            else:
                timeout = QUESTION_SEC if self._tls is not None else None
                self._server = await asyncio.start_server(
                    self._meet, at.host, at.port, ssl=self._tls, ssl_handshake_timeout=timeout, limit=64 * 1024
                )
        except OSError as error:
            raise ConfigError(f"the secret manager cannot listen on {at}: {error.strerror or error}") from error

    async def _listen_on_path(self, path: str) -> None:
        await _remove_dead_socket(path)
        before = os.umask(0o177)  # nobody else may connect, not even in the first moment
        try:
            self._server = await asyncio.start_unix_server(self._meet, path, limit=64 * 1024)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Hear nobody any more, and end the connections there are."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(set(self._talks), timeout=STOP_SEC)
        if self._address.path:
            with suppress(FileNotFoundError):
                os.unlink(self._address.path)

    # how

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            if len(self._talks) <= MOST_CONNECTIONS:
                await self._talk(reader, writer)
        except (OSError, TimeoutError, Corrupt):
            self._telemetry.count("secret_connections_broken")
        finally:
            self._talks.discard(talk)
            await frames.hang_up(writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            data = await frames.read_frame(reader, frames.LARGEST_QUESTION, wait_sec=IDLE_SEC, rest_sec=QUESTION_SEC)
            if data is None:
                return
            if (receipt := frames.read_receipt(data)) is not None:
                self._desk.arrived(*receipt)
                continue
            writer.write(await self._answer(data))
            async with asyncio.timeout(ANSWER_SEC):
                await writer.drain()

    async def _answer(self, data: bytes) -> bytes:
        try:
            values = await self._desk.values_for(*frames.read_question(data))
            return frames.answer(values)
        except Corrupt:
            raise
        except FlowKitError as error:
            return frames.refusal(error)
        except Exception as error:  # one question must not end the service, nor tell what went wrong inside
            self._telemetry.emit(LoopFailed("secrets", "answer", error, 0.0))
            return frames.refusal(SecretsUnavailable("the secret manager failed; its log says how"))


async def _remove_dead_socket(path: str) -> None:
    """Take away what a killed service left; one that answers stays, and its address is then taken."""
    found = await asyncio.to_thread(_mode_of, path)
    if found is None:
        return
    if not stat.S_ISSOCK(found):
        raise ConfigError(f"{path} is there, and is no socket: name another")
    try:
        async with asyncio.timeout(QUESTION_SEC):
            _, writer = await asyncio.open_unix_connection(path)
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except (OSError, TimeoutError) as error:
        raise ConfigError(f"{path} is there, and is no socket of a secret manager's: name another") from error
    await frames.hang_up(writer)
    raise ConfigError(f"another secret manager listens on unix:{path}")


def _mode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
