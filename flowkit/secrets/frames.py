"""How workers and the secret manager talk: frames of JSON, each with its length before it; one answer per question, and
a receipt for the values, which is not answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from flowkit import errors
from flowkit.errors import Corrupt, FlowKitError, SecretsUnavailable
from flowkit.ports import SecretUse
from flowkit.wire.tickets import LONGEST_TICKET, OF_THE_ATTEMPT

VERSION: Final = 1
LARGEST_QUESTION: Final = 64 * 1024
LARGEST_ANSWER: Final = 8 * 1024 * 1024
LONGEST_HOLDER: Final = 128
HANG_UP_SEC: Final = 1.0
LONGEST_WORD: Final = 1024
KNOWN: Final = {
    kind.code: kind
    for kind in (
        errors.TicketRefused, errors.SecretRefused, errors.SecretNotFound, errors.SecretNameError,
        errors.SecretValueError, errors.SecretTampered, errors.MasterKeyError, errors.MasterKeyUnknown,
        errors.StoreUnavailable, errors.SecretsUnavailable,
    )
}  # fmt: skip
"""What the manager may say, and the worker raises as the same."""


async def read_frame(reader: asyncio.StreamReader, largest: int, *, wait_sec: float, rest_sec: float) -> bytes | None:
    """The next frame, which begins within `wait_sec` and is there `rest_sec` later; None at the end. Raises `Corrupt`
    for one that is too large, or ends in the middle; `TimeoutError`."""
    async with asyncio.timeout(wait_sec):
        first = await reader.read(1)
    if not first:
        return None
    try:
        async with asyncio.timeout(rest_sec):
            size = int.from_bytes(first + await reader.readexactly(3), "big")
            if size > largest:
                raise Corrupt(f"a frame of {size} bytes, at most {largest}")
            return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise Corrupt("the connection ended within a frame") from error


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait a moment for the other side to take note."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANG_UP_SEC):
            await writer.wait_closed()


def frame(content: Any) -> bytes:
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "big") + data


def question(use: SecretUse, ticket: str, holder: str) -> bytes:
    whose = {name: getattr(use, name) for name in OF_THE_ATTEMPT}
    return frame({"v": VERSION, "use": whose, "ticket": ticket, "holder": holder})


def receipt(token: str, holder: str) -> bytes:
    """What a worker says once it has the values."""
    return frame({"v": VERSION, "arrived": token, "holder": holder})


def read_receipt(data: bytes) -> tuple[str, str] | None:
    """The lease's token, and who holds its ticket; None for what is no receipt."""
    said = _object(data)
    token, holder = said.get("arrived"), said.get("holder")
    if not isinstance(token, str) or not isinstance(holder, str):
        return None
    return (token, holder) if len(token) <= LONGEST_WORD and len(holder) <= LONGEST_HOLDER else None


def read_question(data: bytes) -> tuple[SecretUse, str, str]:
    """Whose secrets, the ticket, and who holds it. Raises `Corrupt`."""
    said = _object(data)
    if said.get("v") != VERSION:
        raise Corrupt(f"a question of version {said.get('v')!r}; this secret manager knows {VERSION}")
    told, ticket, holder = said.get("use"), said.get("ticket"), said.get("holder")
    if not isinstance(told, dict) or not isinstance(ticket, str) or not isinstance(holder, str):
        raise Corrupt("a question has `use`, `ticket` and `holder`")
    if len(ticket) > LONGEST_TICKET or len(holder) > LONGEST_HOLDER:
        raise Corrupt("a question's ticket or holder is too long")
    words = {name: told.get(name) for name in OF_THE_ATTEMPT}
    attempt = words.pop("attempt")
    if isinstance(attempt, bool) or not isinstance(attempt, int) or told.keys() != set(OF_THE_ATTEMPT):
        raise Corrupt("a question's `use` has the fields of an attempt, and no others")
    if not all(isinstance(word, str) and len(word) <= LONGEST_WORD for word in words.values()):
        raise Corrupt(f"what a question's `use` says is text of at most {LONGEST_WORD} characters")
    return SecretUse(attempt=attempt, **words), ticket, holder  # type: ignore[arg-type]


def answer(values: Mapping[str, str]) -> bytes:
    return frame({"ok": True, "values": dict(values)})


def refusal(error: FlowKitError) -> bytes:
    return frame({"ok": False, "code": error.code, "message": str(error)})


def read_answer(data: bytes, where: str) -> Mapping[str, str]:
    """The values. Raises what the manager raised; `Corrupt` for what is no answer."""
    said = _object(data)
    if said.get("ok") is True:
        values = said.get("values")
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
            return values
    if said.get("ok") is False:
        code, message = str(said.get("code")), str(said.get("message"))
        if code in KNOWN:
            raise KNOWN[code](message)
        raise SecretsUnavailable(f"{where}: {message} [{code}]")
    raise Corrupt(f"{where} gave no answer of a secret manager's")


def _object(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"a frame that is no JSON: {type(error).__name__}") from None
    if not isinstance(said, dict):
        raise Corrupt("a frame that is no JSON object")
    return said
