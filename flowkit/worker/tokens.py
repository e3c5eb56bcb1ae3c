"""Remembers the tokens that came lately, so that each is run once (rule 4)."""

from __future__ import annotations

REMEMBERED = 100_000


class Tokens:
    """Remembers the last `remembered` tokens at least, and twice as many at most."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most = remembered
        self._new: set[str] = set()
        self._old: set[str] = set()

    def add(self, token: str) -> bool:
        """False if it was known already."""
        if token in self._new or token in self._old:
            return False
        self._new.add(token)
        if len(self._new) >= self._most:
            self._old, self._new = self._new, set()
        return True
