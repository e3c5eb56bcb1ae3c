"""Tells whether a value looks like a secret: long and random, or of the shape of a known token."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, Final

SHORTEST: Final = 20
BITS_PER_CHARACTER: Final = 3.2
LOOKED_AT: Final = 4096  # characters of a long text: what it is shows early, and a look must not take long

TOKENS: Final = re.compile(
    r"""
      \beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*             # a JSON Web Token
    | -----BEGIN[ ][A-Z ]{0,30}(?:PRIVATE|CERTIFICATE)
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                 # an AWS access key
    | \bAIza[\w-]{35}                               # a Google API key
    | \bxox[abeoprs]-[\w-]{10,}                     # a Slack token
    | \bBearer[ ]+[\w.~+/=-]{10,}
    | ^(?=.*[0-9])(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9+/]{20,}={0,2}$  # base64
    """,
    re.VERBOSE,
)


def looks_secret(key_path: str, value: Any) -> bool:
    """Whether `value` is at least 20 bytes, or 20 characters at random (3.2 bits each), or a text with a token in it.

    `key_path` is not asked: a name such as `password` says nothing about what it holds.
    """
    if isinstance(value, bytes | bytearray):
        return len(value) >= SHORTEST
    if not isinstance(value, str):
        return False
    text = value[:LOOKED_AT]
    random = len(text) >= SHORTEST and entropy(text) >= BITS_PER_CHARACTER
    return random or TOKENS.search(text) is not None


def entropy(text: str) -> float:
    """Bits for each character, by how often each occurs in the text."""
    length = len(text)
    return -sum(n / length * math.log2(n / length) for n in Counter(text).values())
