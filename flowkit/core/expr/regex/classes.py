"""The classes that patterns name: `\\d`, `[:alpha:]`, `\\p{Lu}`. `\\d`, `\\w`, `\\s` and `\\b` are ASCII, as in RE2."""

from __future__ import annotations

from typing import Final

from flowkit.core.expr.regex.charset import CATEGORIES, LAST, Range, all_but


def _ranges(*pairs: str) -> tuple[Range, ...]:
    return tuple((ord(pair[0]), ord(pair[-1])) for pair in pairs)


DIGIT: Final = _ranges("09")
UPPER: Final = _ranges("AZ")
LOWER: Final = _ranges("az")
WORD: Final = _ranges("09", "AZ", "_", "az")
SPACE: Final = _ranges("\t\n", "\f\r", " ")  # RE2 leaves \v to [:space:]
ANY: Final[tuple[Range, ...]] = ((0, LAST),)

PERL: Final[dict[str, tuple[Range, ...]]] = {
    "d": DIGIT, "w": WORD, "s": SPACE,
    "D": tuple(all_but(DIGIT)), "W": tuple(all_but(WORD)), "S": tuple(all_but(SPACE)),
}  # fmt: skip

POSIX: Final[dict[str, tuple[Range, ...]]] = {
    "alnum": (*DIGIT, *UPPER, *LOWER), "alpha": (*UPPER, *LOWER),
    "ascii": _ranges("\0\x7f"), "blank": _ranges("\t", " "),
    "cntrl": _ranges("\0\x1f", "\x7f"), "digit": DIGIT, "graph": _ranges("!~"), "lower": LOWER, "print": _ranges(" ~"),
    "punct": _ranges("!/", ":@", "[`", "{~"), "space": _ranges("\t\r", " "), "upper": UPPER, "word": WORD,
    "xdigit": (*DIGIT, *_ranges("AF", "af")),
}  # fmt: skip

NAMES: Final = frozenset(CATEGORIES | {name[0] for name in CATEGORIES})  # L is all that begins with it
