"""The parts of a pattern; groups are gone, because only whether it matches is asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from flowkit.core.expr.regex.charset import Charset


class Edge(Enum):
    """A place between two characters."""

    TEXT_START = r"\A"
    TEXT_END = r"\z"
    LINE_START = "(?m)^"
    LINE_END = "(?m)$"
    WORD_EDGE = r"\b"
    NO_WORD_EDGE = r"\B"


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; none is the empty text."""

    parts: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Any of them."""

    parts: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` times, None for any number. Greedy or lazy finds the same texts."""

    part: Pattern
    least: int
    most: int | None


Pattern: TypeAlias = "Charset | Edge | Sequence | Alternatives | Repeat"
