"""Canaries: values like secrets that are used nowhere else, of several shapes."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field

LETTERS = string.ascii_letters + string.digits
PIECE = 24


def letters(count: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(count))


def phrase() -> str:
    """With what encodings have to escape."""
    return f"pä\"ss\\w/{letters(12)} &<{letters(8)}>' +%{letters(8)}"


@dataclass(frozen=True)
class Canaries:
    """By shape, the values that are set as secrets, and what is to be found nowhere."""

    values: dict[str, str] = field(default_factory=lambda: made())

    @property
    def sought(self) -> dict[str, str]:
        """What is looked for: of a long value any of some pieces, of lines those that are random."""
        long, lines = self.values["long"], self.values["lines"].splitlines()
        pieces = [long[at : at + PIECE] for at in (0, 701, 1_502, len(long) - PIECE)]
        return {
            **{shape: self.values[shape] for shape in ("token", "phrase", "digits")},
            "lines": "\n".join(line for line in lines if not line.startswith("-")),
            "long": "\n".join(pieces),
        }


def made() -> dict[str, str]:
    body = "\n".join(f"{letters(44)}+/{letters(2)}" for _ in range(4))
    return {
        "token": f"fkc_{letters(16)}-_{letters(16)}",
        "phrase": phrase(),
        "digits": str(secrets.choice(range(10**14, 10**15))),
        "lines": f"-----BEGIN CANARY KEY-----\n{body}\n-----END CANARY KEY-----\n",
        "long": letters(3_000),
    }
