"""Sets of characters: ranges, Unicode's general categories, all but these, whatever the case."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

Range: TypeAlias = "tuple[int, int]"

LAST: Final = 0x10FFFF
CATEGORIES: Final = frozenset({
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
    "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs", "Cn",
})  # fmt: skip


class Seen:
    """A character that is looked for in sets: what it is, and what it is in either case."""

    __slots__ = ("category", "code", "variants")

    def __init__(self, character: str) -> None:
        self.code = ord(character)
        self.category = unicodedata.category(character)
        self.variants = tuple((ord(one), unicodedata.category(one)) for one in variants(character))


@dataclass(frozen=True, slots=True)
class Charset:
    """`starts` and `ends` of ranges that do not touch, and general categories of two letters."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    categories: frozenset[str] = frozenset()
    negated: bool = False
    any_case: bool = False

    def holds(self, seen: Seen) -> bool:
        """Whether the character is one of the set."""
        if self.any_case:
            return any(self._finds(code, category) for code, category in seen.variants) is not self.negated
        return self._finds(seen.code, seen.category) is not self.negated

    def _finds(self, code: int, category: str) -> bool:
        at = bisect_right(self.starts, code) - 1
        return (at >= 0 and code <= self.ends[at]) or category in self.categories


def charset(
    ranges: Iterable[Range], categories: Iterable[str] = (), *, negated: bool = False, any_case: bool = False
) -> Charset:
    """A set of these ranges, which may overlap, and categories."""
    merged = merge(ranges)
    starts, ends = tuple(low for low, _ in merged), tuple(high for _, high in merged)
    return Charset(starts, ends, frozenset(categories), negated, any_case)


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same characters in ranges that are sorted and do not touch."""
    merged: list[Range] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def all_but(ranges: Iterable[Range]) -> list[Range]:
    """The ranges of all other characters."""
    others = []
    start = 0
    for low, high in merge(ranges):
        if start < low:
            others.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        others.append((start, LAST))
    return others


def variants(character: str) -> set[str]:
    """The character in either case; also those that only share a case with it, as the Kelvin sign does with k."""
    lower, upper = character.lower(), character.upper()
    return {one for one in (character, lower, upper, lower.upper(), upper.lower()) if len(one) == 1}


def literal(character: str, any_case: bool) -> Charset:
    """The one character."""
    if not any_case:
        return Charset((ord(character),), (ord(character),))
    return charset(((ord(one), ord(one)) for one in variants(character)), any_case=True)
