"""What one expression may cost, in length, depth, steps and size; each limit is an error that names it."""

from __future__ import annotations

from typing import Final, TypeAlias

MAX_TEXT: Final = 4096  # characters of an expression
MAX_DEPTH: Final = 64  # of parts in parts
MAX_STEPS: Final = 5_000  # of one evaluation; a step takes about 0.1 us, so that all of them stay under a millisecond
MAX_SIZE: Final = 65_536  # bytes of a value that an expression makes or gives
MAX_PATTERN: Final = 1024  # characters of a regular expression
MAX_PROGRAM: Final = 2100  # of the instructions of all that an expression has, with all repetitions written out


# The steps that one evaluation has left, its only element. An expression has no loops, so each of its parts runs once
# at most: they are counted once, when it is read. Only what depends on the size of a value is charged as it runs.
Meter: TypeAlias = "list[int]"
