"""Turns what a program prints into lines of a log: whole ones, without secrets, and not endlessly many."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from flowkit.sandbox.spoken import tidy

LONGEST_LINE: Final = 16 * 1024
EVERY_LINE: Final = 64
"""What a line costs beside its text: empty lines are no way around the cap."""
LAST_LINES: Final = 80
"""Node.js follows its last words with a long list of where it was."""
MB: Final = 1024 * 1024


class Stream(Protocol):
    """Takes secrets out of a text that comes in pieces: what may be the beginning of one is held back."""

    def feed(self, chunk: str, /) -> str: ...
    def flush(self) -> str: ...


class Redactor(Protocol):
    """Takes the secrets of one attempt out of what leaves it."""

    def text(self, text: str, /) -> str:
        """The text without them."""
        ...

    def value(self, value: Any, /) -> Any:
        """A JSON value (or bytes) without them."""
        ...

    def text_stream(self) -> Stream: ...


class _Unchanged:
    def feed(self, chunk: str, /) -> str:
        return chunk

    def flush(self) -> str:
        return ""


class NothingSecret:
    """For attempts that have no secrets."""

    def text(self, text: str, /) -> str:
        return text

    def value(self, value: Any, /) -> Any:
        return value

    def text_stream(self) -> Stream:
        return _Unchanged()


class Budget:
    """How much of a log is kept. `say` gets the lines; beyond `most_bytes` one line says that the rest is cut."""

    def __init__(self, most_mb: int, say: Callable[[str, str], None]) -> None:
        self._left = most_mb * MB
        self._most_mb = most_mb
        self._say = say
        self.cut = False

    def line(self, level: str, text: str) -> None:
        if self.cut:
            return
        self._left -= len(text) + EVERY_LINE
        if self._left < 0:
            self.cut = True
            self._say("warning", f"[...] the log is cut here: it has more than {self._most_mb} MiB")
        else:
            self._say(level, tidy(text, LONGEST_LINE))


class Printed:
    """One of a program's output streams. `last` are its last lines."""

    def __init__(self, level: str, budget: Budget, redactor: Redactor) -> None:
        self._level = level
        self._budget = budget
        self._stream = redactor.text_stream()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._part = ""
        self.last: deque[str] = deque(maxlen=LAST_LINES)

    def feed(self, data: bytes) -> None:
        if not self._budget.cut:
            self._take(self._stream.feed(self._decoder.decode(data)))

    def end(self) -> None:
        if not self._budget.cut:
            self._take(self._stream.feed(self._decoder.decode(b"", final=True)) + self._stream.flush())
            if self._part:
                self._give(self._part)
                self._part = ""

    def _take(self, text: str) -> None:
        *whole, self._part = (self._part + text).replace("\r\n", "\n").split("\n")
        for line in whole:
            self._give(line)
        while len(self._part) > LONGEST_LINE:
            self._give(self._part[:LONGEST_LINE])
            self._part = self._part[LONGEST_LINE:]

    def _give(self, line: str) -> None:
        for start in range(0, len(line) or 1, LONGEST_LINE):
            piece = line[start : start + LONGEST_LINE]
            self.last.append(tidy(piece, 1000))
            self._budget.line(self._level, piece)
