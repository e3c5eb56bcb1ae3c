"""The lines of a log that a service keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MB: Final = 1024 * 1024
ROOM_MB: Final = 1
EACH: Final = 64
"""What a line takes beside its text."""


@dataclass(eq=False, slots=True)
class Lines:
    """`kept` are the lines. Beyond a MiB one says that the rest is cut, and no more are taken."""

    kept: list[str] = field(default_factory=list)
    size: int = 0

    def note(self, line: str) -> None:
        """Keep a line, while there is room."""
        most = ROOM_MB * MB
        if self.size >= most:
            return
        self.size += len(line) + EACH
        self.kept.append(line if self.size < most else f"[...] the log is cut here: it has more than {ROOM_MB} MiB")
