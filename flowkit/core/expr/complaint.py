"""Words an expression that cannot be read: where, what stands there, what was expected."""

from __future__ import annotations

from typing import Final

from flowkit.errors import ExprSyntaxError

WIDTH: Final = 72  # of the excerpt


class Misread(Exception):
    """A word that is none; `say` is about the character at `position`."""

    def __init__(self, position: int, say: str) -> None:
        super().__init__(say)
        self.position = position
        self.say = say


def complaint(text: str, position: int, say: str) -> ExprSyntaxError:
    """The error that says `say` about the character at `position` of `text`."""
    line = text.count("\n", 0, position) + 1
    start = text.rfind("\n", 0, position) + 1
    column = position - start + 1
    place = f"line {line}, column {column}" if line > 1 or "\n" in text else f"column {column}"
    reason = f"{place}: {say}"
    return ExprSyntaxError(f"{reason}\n{_excerpt(text, start, position)}", position=position, reason=reason)


def _excerpt(text: str, start: int, position: int) -> str:
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end]
    column = position - start
    first = max(0, min(column - WIDTH // 2, len(line) - WIDTH))
    window = "".join(character if character.isprintable() else " " for character in line[first : first + WIDTH])
    left, right = "..." if first else "", "..." if first + WIDTH < len(line) else ""
    return f"    {left}{window}{right}\n    {' ' * (len(left) + column - first)}^"
