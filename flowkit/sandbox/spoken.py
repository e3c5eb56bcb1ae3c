"""Reads what a program says in frames into values: nothing in them is taken for what it claims to be. Texts are as long
as they came: they are cut once they are covered."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final

from flowkit.sandbox.frames import BadFrame
from flowkit.sandbox.outcome import Failure, Result

LEVELS: Final = ("debug", "info", "warning", "error")
MOST_NEXT: Final = 1000
MOST_MESSAGE: Final = 8 * 1024
MOST_TRACEBACK: Final = 16 * 1024
LONGEST_CODE: Final = 128
LONGEST_SAID: Final = 64 * 1024
"""So long a text of one frame may be before it is covered; programs cut theirs there, too."""

_CONTROLS: Final = {sign: f"\\x{sign:02x}" for sign in (*range(32), *range(127, 160)) if sign not in (9, 10)}
"""A terminal must not be steered by what a program prints."""


def tidy(text: str, most: int, *, keep_end: bool = False) -> str:
    """A text as it may be shown and stored: at most so many characters, no control characters but tabs and line ends,
    none that UTF-8 cannot say."""
    return shortened(text, most, keep_end=keep_end).translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()


def shortened(text: str, most: int, *, keep_end: bool = False) -> str:
    """At most so many characters of it: the first, or the last."""
    if len(text) <= most:
        return text
    return f"[...]{text[5 - most :]}" if keep_end else f"{text[: most - 5]}[...]"


def log_line(message: dict[str, Any]) -> tuple[str, str]:
    """The level and the text of a `log`."""
    level = message.get("level")
    text = _text(message, "message")
    return (level if isinstance(level, str) and level in LEVELS else "info"), text


def progress(message: dict[str, Any]) -> tuple[float | None, float | None, str]:
    """How far it is, of how much, and what it says to that."""
    return _number(message, "done"), _number(message, "total"), _text(message, "message")


def result(message: dict[str, Any]) -> Result:
    """What a `result` gives. Raises `BadFrame`."""
    names = message.get("next")
    if names is not None:
        if not isinstance(names, list) or len(names) > MOST_NEXT or not all(isinstance(name, str) for name in names):
            raise BadFrame(f"the next nodes are a list of at most {MOST_NEXT} names")
        names = tuple(names)
    if ("output" in message) == ("bytes" in message):
        raise BadFrame("a result has `output` or `bytes`, one of them")
    output = _decoded(message["bytes"]) if "bytes" in message else message["output"]
    return Result(output, names, _text(message, "message"))


def failure(message: dict[str, Any]) -> Failure:
    """What a `failed` says. Raises `BadFrame`."""
    kind = _text(message, "type") or "Exception"
    code = _text(message, "code") or kind
    after = _number(message, "retry_after")
    return Failure(
        code=code,
        message=_text(message, "message"),
        type=kind,
        traceback=_text(message, "traceback"),
        permanent=message.get("permanent") is True,
        final=message.get("final") is True,
        retry_after=None if after is None or after < 0 else after,
    )


def _text(message: dict[str, Any], name: str) -> str:
    text = message.get(name, "")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadFrame(f"`{name}` is no text")
    return text


def _number(message: dict[str, Any], name: str) -> float | None:
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        raise BadFrame("`bytes` is no base64") from None
