"""Reads what follows a backslash in a pattern: a character, or a set of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from flowkit.core.expr.regex import classes
from flowkit.core.expr.regex.charset import CATEGORIES, LAST, Range
from flowkit.core.expr.regex.problem import PatternError
from flowkit.core.problems import shown

CODE: Final = re.compile(r"\\(?:x\{([0-9a-fA-F]{1,8})\}|x([0-9a-fA-F]{2})|([1-7][0-7]{1,2}|0[0-7]{0,2}))")
CATEGORY: Final = re.compile(r"\\([pP])(?:\{(\^?)([A-Za-z_ ]{1,40})\}|([A-Za-z]))")
CONTROLS: Final = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
INSTEAD: Final = {
    "Z": r"write \z or $", "G": "leave it out", "K": "leave it out", "C": "write (?s:.)", "h": r"write [ \t]",
    "R": r"write (?:\r\n|\n|\r)", "X": "write .", "N": r"write [^\n]", "E": r"there is no \Q before it",
    "k": "references to groups need going back in the text, which this engine never does",
    "u": r"write \x{FFFF}", "U": r"write \x{FFFF}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """The characters of a class that has a name."""

    ranges: tuple[Range, ...] = ()
    categories: frozenset[str] = frozenset()


Escape: TypeAlias = "str | Named"


def read_escape(text: str, start: int) -> tuple[Escape, int]:
    """What the backslash at `start` begins, and where it ends. Raises `PatternError`."""
    sign = text[start + 1 : start + 2]
    if sign in classes.PERL:
        return Named(classes.PERL[sign]), start + 2
    if sign in CONTROLS:
        return CONTROLS[sign], start + 2
    if found := CODE.match(text, start):
        code = int(found[1] or found[2] or "0", 16) if found[3] is None else int(found[3], 8)
        if code > LAST:
            raise PatternError(start, f"{found[0]} is no Unicode character")
        return chr(code), found.end()
    if not sign:
        raise PatternError(start, "a backslash ends the pattern; write two for the sign itself")
    if sign.isascii() and not sign.isalnum():
        return sign, start + 2
    raise PatternError(start, _refusal(sign))


def read_category(text: str, start: int) -> tuple[Escape, int]:
    r"""The same for `\p{Lu}`, `\pL` and what they exclude."""
    found = CATEGORY.match(text, start)
    if found is None:
        raise PatternError(start, r"write \p{Lu}, or \pL, with a general category of Unicode")
    name = found[3] or found[4]
    meant = (found[1] == "p") is not (found[2] == "^")
    if name == "Any":
        return Named(classes.ANY if meant else ()), found.end()
    if name not in classes.NAMES:
        near = f" (did you mean {name.capitalize()!r}?)" if name.capitalize() in classes.NAMES else ""
        say = f"there is no category {shown(name)}{near}; there are Unicode's general ones, such as L, Lu, Nd and P"
        raise PatternError(start, f"{say}, and no scripts")
    inside = frozenset(category for category in CATEGORIES if category.startswith(name))
    return Named(categories=inside if meant else CATEGORIES - inside), found.end()


def _refusal(sign: str) -> str:
    if sign in "123456789":
        return f"\\{sign} refers to a group, which needs going back in the text, and this engine never does"
    return f"there is no escape \\{shown(sign)[1:-1]}; {INSTEAD.get(sign, 'leave the backslash out')}"
