"""A worker's way to the secret manager of another process."""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from collections.abc import Mapping
from typing import Final

from flowkit.errors import Corrupt, SecretsUnavailable, StoreUnavailable
from flowkit.ports import SecretUse
from flowkit.secrets import frames
from flowkit.secrets.address import check_way, read_address

CONNECT_SEC: Final = 3.0
ANSWER_SEC: Final = 25.0
TRIES: Final = 4
PAUSE_SEC: Final = 0.1
AT_ONCE: Final = 16
"""Questions of one worker under way; more wait."""


class SecretClient:
    """A `SecretSource` that asks the manager at `address` (`host:port`, `unix:/path`). Without TLS it asks only this
    machine. It holds no key; values pass through, and are kept nowhere. `timeout` seconds bound one call. Raises
    `ConfigError`."""

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None, timeout: float = 30.0) -> None:
        self._address = read_address(address)
        check_way(self._address, tls)
        self._tls = tls
        self._timeout = timeout
        # What makes a ticket this worker's own once it was shown.
        self._holder = secrets.token_hex(16)
        self._room = asyncio.Semaphore(AT_ONCE)

    async def values_for(self, use: SecretUse, ticket: str) -> Mapping[str, str]:
        """The values by name. What may pass is tried again. Raises as `SecretSource`."""
        try:
            async with asyncio.timeout(self._timeout), self._room:
                question, receipt = frames.question(use, ticket, self._holder), frames.receipt(use.token, self._holder)
                return await self._try(question, receipt)
        except TimeoutError as error:
            raise SecretsUnavailable(
                f"the secret manager at {self._address} did not answer within {self._timeout:g} s; is it overloaded?"
            ) from error

    async def _try(self, question: bytes, receipt: bytes) -> Mapping[str, str]:
        for attempt in range(1, TRIES + 1):
            try:
                return await self._ask(question, receipt)
            except (SecretsUnavailable, StoreUnavailable):
                if attempt == TRIES:
                    raise
            await asyncio.sleep(PAUSE_SEC * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        raise AssertionError("the last try raises or returns")

    async def _ask(self, question: bytes, receipt: bytes) -> Mapping[str, str]:
        try:
            async with asyncio.timeout(CONNECT_SEC):
                reader, writer = await self._connect()
        except ssl.SSLCertVerificationError as error:
            raise SecretsUnavailable(
                f"the secret manager at {self._address} has no certificate that is trusted here: "
                f"{error.verify_message}; give the worker its CA, and reach it by the name in its certificate"
            ) from error
        except (OSError, TimeoutError) as error:
            said = str(error) or "no answer"
            raise SecretsUnavailable(
                f"the secret manager at {self._address} cannot be reached: {said}; is it running there?"
            ) from error
        try:
            async with asyncio.timeout(CONNECT_SEC):
                writer.write(question)
                await writer.drain()
            data = await frames.read_frame(reader, frames.LARGEST_ANSWER, wait_sec=ANSWER_SEC, rest_sec=ANSWER_SEC)
            if data is None:
                raise SecretsUnavailable(f"the secret manager at {self._address} hung up")
            values = frames.read_answer(data, f"the secret manager at {self._address}")
            writer.write(receipt)  # whoever comes with this ticket from now on, gets nothing
            return values
        except (OSError, TimeoutError, Corrupt) as error:
            raise SecretsUnavailable(
                f"the secret manager at {self._address} gave no answer: {str(error) or 'it took too long'}"
            ) from error
        finally:
            await frames.hang_up(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        at = self._address
        if at.path:
            return await asyncio.open_unix_connection(at.path)
        return await asyncio.open_connection(at.host, at.port, ssl=self._tls)
