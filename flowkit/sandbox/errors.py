"""What goes wrong before a program runs."""

from __future__ import annotations


class CannotStart(Exception):
    """A program could not be started as it has to be. `code` is a stable name, `hint` what to do next."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message}{hint and f': {hint}'}")
        self.code = code
        self.message = message
        self.hint = hint

    def because(self, said: str) -> CannotStart:
        """The same, with what was said about it elsewhere."""
        return CannotStart(self.code, f"{self.message} ({said})", self.hint)
