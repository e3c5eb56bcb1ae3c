"""Why a part of an expression has no value; put into words only if nothing absorbs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flowkit.core.expr.limits import MAX_SIZE, MAX_STEPS, Meter
from flowkit.errors import ExprError

Span = tuple[int, int]

LONGEST_PART: Final = 80


class Failure(Exception):
    """Raised by the part at `at`; `words(part, *seen)` says what is wrong with its text. `&&` and `||` absorb it."""

    final = False

    def __init__(self, at: Span, words: Callable[..., str], *seen: Any) -> None:
        super().__init__()
        self.at = at
        self.words = words
        self.seen = seen

    def error(self, text: str) -> ExprError:
        """What the caller is told, given the text of the whole expression."""
        start, end = self.at
        part = _on_one_line(text[start:end])
        return ExprError(f"in `{part}`: {self.words(part, *self.seen)}", part=part, position=start)


def _on_one_line(part: str) -> str:
    head = part[: 2 * LONGEST_PART]
    words = "".join(character if character.isprintable() else " " for character in head).split()
    line = " ".join(words)
    return line if head == part and len(line) <= LONGEST_PART else line[: LONGEST_PART - 3] + "..."


class Exceeded(Failure):
    """A limit was met. Nothing absorbs that, or what an expression says would depend on what it costs."""

    final = True


def charge(meter: Meter, steps: int, at: Span) -> None:
    """Take steps from the meter. Raises `Exceeded` when there are no more."""
    meter[0] -= steps
    if meter[0] < 0:
        raise Exceeded(at, _too_long)


def _too_long(_part: str) -> str:
    return f"an evaluation takes at most {MAX_STEPS:,} steps, and this one needs more; give it smaller values"


def too_large(_part: str) -> str:
    return f"what an expression makes or gives is at most {MAX_SIZE:,} bytes; pass larger values by $from, or as files"
