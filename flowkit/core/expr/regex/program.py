"""What a pattern becomes: instructions that each take a character, ask for an edge, fork, or end it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from flowkit.core.expr.limits import MAX_PROGRAM
from flowkit.core.expr.regex.charset import Charset
from flowkit.core.expr.regex.problem import PatternError
from flowkit.core.expr.regex.syntax import Alternatives, Edge, Pattern, Repeat, Sequence

MATCH: Final = 0  # the number of `Done`


@dataclass(slots=True)
class Take:
    """One character of the set, then on."""

    charset: Charset
    to: int


@dataclass(slots=True)
class Ask:
    """On, if this edge is here."""

    edge: Edge
    to: int


@dataclass(slots=True)
class Fork:
    """On at each of them."""

    to: tuple[int, ...]


@dataclass(slots=True)
class Done:
    """It matches."""


Instruction: TypeAlias = "Take | Ask | Fork | Done"


@dataclass(frozen=True, slots=True)
class Program:
    """`instructions` by number; `asks`: whether any of them asks for an edge."""

    instructions: tuple[Instruction, ...]
    start: int
    asks: bool


def build(pattern: Pattern) -> Program:
    """The program of a pattern whose size was looked at."""
    builder = _Builder()
    start = builder.add(pattern, MATCH)
    asks = any(isinstance(one, Ask) for one in builder.instructions)
    return Program(tuple(builder.instructions), start, asks)


def size_of(pattern: Pattern) -> int:
    """How much there is to build. Raises `PatternError` where it is too much."""
    size = _size(pattern)
    if size > MAX_PROGRAM:
        say = f"the pattern has more than {MAX_PROGRAM:,} parts when its repetitions are written out; ask for fewer"
        raise PatternError(0, say)
    return size


def _size(pattern: Pattern) -> int:
    # Nothing counts for nothing, or the empty text a thousand times a thousand times would.
    match pattern:
        case Charset() | Edge():
            return 1
        case Sequence(parts):
            return 1 + sum(map(_size, parts))
        case Alternatives(parts):
            return len(parts) + sum(map(_size, parts))
        case Repeat(part, least, most):
            return 1 + max(least, most or 1, 1) * _size(part) + (most or least) - least


class _Builder:
    # Built from the end to the beginning, so that what comes next is known.

    def __init__(self) -> None:
        self.instructions: list[Instruction] = [Done()]

    def add(self, pattern: Pattern, to: int) -> int:
        match pattern:
            case Charset():
                return self._put(Take(pattern, to))
            case Edge():
                return self._put(Ask(pattern, to))
            case Sequence(parts):
                for part in reversed(parts):
                    to = self.add(part, to)
                return to
            case Alternatives(parts):
                return self._put(Fork(tuple(self.add(part, to) for part in parts)))
            case Repeat(part, least, most):
                return self._repeat(part, least, most, to)

    def _repeat(self, part: Pattern, least: int, most: int | None, to: int) -> int:
        if most is None:
            loop = Fork(())
            to, end = self._put(loop), to
            loop.to = (self.add(part, to), end)
        else:
            end = to
            for _ in range(most - least):
                to = self._put(Fork((self.add(part, to), end)))
        for _ in range(least):
            to = self.add(part, to)
        return to

    def _put(self, instruction: Instruction) -> int:
        self.instructions.append(instruction)
        return len(self.instructions) - 1
