"""Frames on the channel between a program and whoever started it: four bytes of length, then so much JSON.

What comes from a program is hostile until shown otherwise: a length is believed only up to a cap, nothing is read
before it is whole, and depth is counted before anything is parsed.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any, Final, NoReturn

HEADER: Final = struct.Struct(">I")
MOST_DEPTH: Final = 80
"""A little more than an output may have, which is told apart with its own message."""
LARGE_BYTES: Final = 256 * 1024
"""From here on, reading a frame is not for the event loop."""

_TEXTS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OTHER_THAN_BRACKETS: Final = bytes(sign for sign in range(256) if sign not in b"[]{}")


class BadFrame(Exception):
    """What came is no frame of the protocol; the message says what is wrong with it."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Raises `ValueError` for what JSON cannot say."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    return HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts what comes into the bodies of frames, none of which has more than `most_bytes`."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes. Raises `BadFrame` for a length beyond the cap."""
        self._kept += data
        bodies: list[bytes] = []
        start = 0
        while len(self._kept) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(self._kept, start)
            if length > self._most_bytes:
                raise BadFrame(f"a frame of {length:,} bytes; at most {self._most_bytes:,} are allowed")
            stop = start + HEADER.size + length
            if len(self._kept) < stop:
                break
            bodies.append(bytes(self._kept[start + HEADER.size : stop]))
            start = stop
        del self._kept[:start]
        return bodies

    def end(self) -> None:
        """Nothing more will come. Raises `BadFrame` where a frame was begun and not ended."""
        if self._kept:
            raise BadFrame("the last frame is not whole")


def decode(body: bytes) -> dict[str, Any]:
    """The message in the body of a frame: an object whose `do` says what it is about. Raises `BadFrame`."""
    _check_depth(body)
    try:
        message = json.loads(
            body.decode(), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_doubles
        )
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"a frame that is not JSON: {_short(error)}") from None
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise BadFrame("a frame that is not an object with `do`")
    return message


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return
    depth = deepest = 0
    for sign in _TEXTS.sub(b"", body).translate(None, _OTHER_THAN_BRACKETS):
        depth += 1 if sign in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MOST_DEPTH:
        raise BadFrame(f"a frame that is nested more than {MOST_DEPTH} deep")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is beyond all floats")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _short(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
