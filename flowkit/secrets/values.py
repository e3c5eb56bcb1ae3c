"""What a secret's value may be, and what is to be said about one that is taken all the same."""

from __future__ import annotations

from typing import Final

from flowkit.core.variants import SHORTEST
from flowkit.errors import SecretValueError

LARGEST: Final = 64 * 1024
MOST_BYTES: Final = 1024 * 1024
"""The values of one attempt together."""


def checked_value(name: str, value: object) -> bytes:
    """The value's bytes. Raises `SecretValueError`, which never has the value."""
    if not isinstance(value, str):
        raise SecretValueError(f"secret {name!r} has to be text, not {type(value).__name__}; bytes: as base64")
    if not value:
        raise SecretValueError(f"secret {name!r} would be empty: give a value, or delete it")
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise SecretValueError(f"secret {name!r} is no valid Unicode text; bytes: as base64") from None
    if len(data) > LARGEST:
        raise SecretValueError(
            f"secret {name!r} has {len(data)} bytes, at most {LARGEST}: keep a file elsewhere, and its key here"
        )
    return data


def warnings_for(name: str, value: str) -> tuple[str, ...]:
    """What whoever sets it should know."""
    short = [line for line in (value, *value.splitlines()) if line.strip() and len(line.strip()) < SHORTEST]
    if len(value) < SHORTEST:
        return (
            f"secret {name!r} has fewer than {SHORTEST} characters, so it cannot be redacted safely: what is so short "
            "is in many texts by chance, and is left visible in logs and outputs",
        )
    if short:
        return (
            f"secret {name!r} has {len(short)} lines of fewer than {SHORTEST} characters; such a line by itself is not "
            "redacted",
        )
    return ()
