"""Where the other services get the values of secrets: from the secret manager, by its verbs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from flowkit.errors import FlowKitError, ServiceUnavailable
from flowkit.services import http
from flowkit.services.keys import token_for
from flowkit.services.settings import Settings

MOST_NAMES: Final = 64
AT_ONCE: Final = 16
ASK_SEC: Final = 25.0


class SecretMissing(FlowKitError):
    """A value cannot be had; the message says why, and never has it."""

    code = "E_SECRET_MISSING"


class SecretValues:
    """Asks at `SECRET_MANAGER`, as the service that it is a part of. Nothing is kept."""

    def __init__(self, settings: Settings) -> None:
        self.address = settings.address("SECRET_MANAGER")
        self._file = Path(settings.text("SECRET_MANAGER_TOKEN_FILE"))
        self._me = settings.kind.name
        self._room = asyncio.Semaphore(AT_ONCE)

    async def values(self, names: Sequence[str], *, node: str, runner_id: str) -> Mapping[str, str]:
        """The values by name. Raises `SecretMissing`, and `ServiceUnavailable`, where asking again may help."""
        if len(names) > MOST_NAMES:
            raise SecretMissing(f"the code asks for {len(names)} secrets, at most {MOST_NAMES} are given")
        found = await asyncio.gather(*(self._value(name, node, runner_id) for name in names))
        return dict(zip(names, found, strict=True))

    async def _value(self, name: str, node: str, runner_id: str) -> str:
        if not self.address:
            raise SecretMissing(f"secret {name!r}: the {self._me} was given no SECRET_MANAGER")
        said = urlencode({"node": node, "runner_id": runner_id})
        url = f"{self.address}/get/{quote(name, safe='')}?{said}"
        async with self._room:
            answer = await http.ask("GET", url, token=token_for(self._file, self._me), timeout=ASK_SEC)
        if answer.status == 503:
            raise ServiceUnavailable(f"the secret manager: {answer.detail}")
        value = answer.said.get("value") if answer.ok and isinstance(answer.said, dict) else None
        if not isinstance(value, str) or not value:
            why = answer.detail if not answer.ok else "its value is empty"
            raise SecretMissing(f"secret {name!r}: {why}", code=answer.code if not answer.ok else None)
        return value

    async def check(self) -> str:
        """Whether the secret manager answers, for `/health`. Raises `ServiceUnavailable`."""
        if not self.address:
            return "none is set (SECRET_MANAGER): code that asks for secrets fails"
        answer = await http.ask("GET", f"{self.address}/health", timeout=3.0)
        if not answer.ok:
            raise ServiceUnavailable(f"the secret manager at {self.address} is not well")
        return f"{self.address} answers"
