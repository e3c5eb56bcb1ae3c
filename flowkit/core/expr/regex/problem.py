"""What is wrong with a pattern."""

from __future__ import annotations


class PatternError(Exception):
    """A pattern that cannot be read, at `position`, or that is too large; `say` tells what to write instead."""

    def __init__(self, position: int, say: str) -> None:
        super().__init__(say)
        self.position = position
        self.say = say
