"""Reads a string literal: its quotes, and CEL's escapes in it."""

from __future__ import annotations

import re
from typing import Final

from flowkit.core.expr.complaint import Misread
from flowkit.core.problems import shown

ESCAPE: Final = re.compile(
    r"\\(?:(?P<octal>[0-3][0-7]{2})|[xX](?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<one>.))",
    re.DOTALL,
)
ONE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
              "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`"}  # fmt: skip
KNOWN: Final = r"\\ \" \' \` \? \a \b \f \n \r \t \v \xHH \uHHHH \UHHHHHHHH \ooo"


def read_string(text: str, start: int, end: int) -> str:
    """What the literal at `start` stands for. Raises `Misread` for an escape that there is not."""
    raw = text[start] in "rR"
    opening = start + raw
    quotes = 3 if text[opening : opening + 3] in ("'''", '"""') and end - opening >= 6 else 1
    inside = text[opening + quotes : end - quotes]
    if raw or "\\" not in inside:
        return _whole(inside, text, start)

    def replace(found: re.Match[str]) -> str:
        return _character(found, text, opening + quotes + found.start())

    return _whole(ESCAPE.sub(replace, inside), text, start)


def _character(found: re.Match[str], text: str, at: int) -> str:
    if (one := found["one"]) is not None:
        if one not in ONE:
            say = f"there is no escape \\{shown(one)[1:-1]}; there are {KNOWN}, and r'...' takes a backslash as it is"
            raise Misread(at, say)
        return ONE[one]

    number = int(found["octal"], 8) if found["octal"] else int(found["x"] or found["u"] or found["U"], 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise Misread(at, f"{found[0]} is no Unicode character; write one beyond \\uFFFF as \\U0001F600")
    return chr(number)


def _whole(value: str, text: str, start: int) -> str:
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise Misread(start, "a lone surrogate is not a character; decode the text properly")
    return value
