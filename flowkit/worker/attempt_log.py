"""What one attempt says, line by line: numbered, bounded, and free of what must not leave.

Any thread may write. What is too much is not said, and a line says how much that was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.wire.codec import dumps
from flowkit.wire.logs import LEVELS, encode_line
from flowkit.wire.messages import Job
from flowkit.worker.outcome import clean

MOST_MESSAGE: Final = 16 * 1024
MOST_FIELDS_BYTES: Final = 16 * 1024
MOST_ROW_BYTES: Final = 40 * 1024
MOST_VALUE: Final = 8 * 1024
MOST_NAME: Final = 100
DEEPEST: Final = 8

Redact = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class LogBounds:
    """How much one attempt may say (lines, and bytes of their JSON), and from which level on it is kept."""

    lines: int
    bytes: int
    level: int


class AttemptLog:
    """The lines of one attempt that are not sent yet.

    `room` takes room for so many bytes of the worker's, if there is some, or in any case; `wake` is called when there
    is something to send. Both may be called in any thread. `redact`, where somebody sets it, makes of every text, the
    names and values of fields too, one that may leave this process.
    """

    def __init__(self, job: Job, bounds: LogBounds, *, clock: Callable[[], float], room: Callable[[int, bool], bool],
                 wake: Callable[[AttemptLog], None]) -> None:  # fmt: skip
        self.job = job
        self.redact: Redact | None = None
        self._bounds = bounds
        self._clock = clock
        self._room = room
        self._wake = wake
        self._lock = threading.Lock()
        self._rows: list[bytes] = []
        self._level = 0
        self._until = 0.0
        self._said = 0
        self._bytes = 0
        self._full = False
        self._cut = 0
        self._cut_for_room = 0
        self._closed = False

    def write(self, level: int, message: str, fields: Mapping[str, Any] | None = None, *,
              at: float | None = None) -> bool:  # fmt: skip
        """Say a line; `level` is one of `logging`'s, `at` epoch seconds (now, by default). False where it is not kept:
        below the level, beyond the bounds, without room, or of an attempt that is over. Never waits, never raises."""
        if level < self._bounds.level:
            return False
        at = self._clock() if at is None else at
        row = self._row(at, level, message, fields)
        with self._lock:
            kept = not self._closed and self._add(at, level, row)
            something = bool(self._rows)
        if something:
            self._wake(self)
        return kept

    def close(self) -> None:
        """The attempt is over: what it says from now on is not heard. Says how much was cut, if anything was."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._tell_of_room()
            if self._cut:
                bounds = f"{self._bounds.lines} lines, {self._bounds.bytes} bytes"
                text = f"{self._cut} lines were cut: the attempt had said all that it may ({bounds})"
                self._say(text, {"cut": self._cut, "why": "attempt"})
            something = bool(self._rows)
        if something:
            self._wake(self)

    def take(self) -> tuple[int, int, float, list[bytes]] | None:
        """What is there to be sent: the number of its first line, its highest level, the time of its last line, and its
        rows. Who takes it gives their bytes back."""
        with self._lock:
            if not self._rows:
                return None
            taken = (self._said - len(self._rows) + 1, self._level, self._until, self._rows)
            self._rows, self._level = [], 0
            return taken

    # ------------------------------------------------------------------------------------------ how, under the lock

    def _add(self, at: float, level: int, row: bytes) -> bool:
        over = self._said >= self._bounds.lines or self._bytes + len(row) > self._bounds.bytes
        if self._full or over:
            if not self._full:
                self._full = True
                self._say("what the attempt says from here on is cut: it has said all that it may", {"why": "attempt"})
            self._cut += 1
            return False
        if not self._room(len(row), False):
            self._cut_for_room += 1
            return False
        self._tell_of_room()
        self._bytes += len(row)
        self._put(at, level, row)
        return True

    def _tell_of_room(self) -> None:
        if self._cut_for_room:
            cut, self._cut_for_room = self._cut_for_room, 0
            text = f"{cut} lines were cut here: the worker had no room for more that is not sent yet"
            self._say(text, {"cut": cut, "why": "worker"})

    def _say(self, text: str, fields: dict[str, Any]) -> None:
        """A line of the worker's own, beyond all bounds: there are at most a few."""
        at = self._clock()
        row = encode_line(at, LEVELS["warning"], text, fields)
        self._room(len(row), True)
        self._put(at, LEVELS["warning"], row)

    def _put(self, at: float, level: int, row: bytes) -> None:
        self._rows.append(row)
        self._said += 1
        self._level = max(self._level, level)
        self._until = at

    def _row(self, at: float, level: int, message: str, fields: Mapping[str, Any] | None) -> bytes:
        text = self._clear(message)
        told = {self._clear(name, MOST_NAME): self.plain(value) for name, value in (fields or {}).items()}
        try:
            size = len(dumps(told)) if told else 0
        except (ValueError, TypeError) as error:
            told = {"fields": f"(cannot be said in JSON: {clean(str(error), 200)})"}
        else:
            if size > MOST_FIELDS_BYTES:
                told = {"fields": f"({size} bytes were cut: more than {MOST_FIELDS_BYTES})"}
        row = encode_line(at, level, text, told)
        if len(row) > MOST_ROW_BYTES:  # of signs that JSON takes many bytes for
            row = encode_line(at, level, f"{text[:MOST_NAME]} ({len(text) - MOST_NAME} characters were cut)", told)
        return row

    def _clear(self, text: object, most: int = MOST_MESSAGE) -> str:
        told = text if isinstance(text, str) else _text_of(text)
        if self.redact is not None:  # before it is cut: half a secret is one too
            told = self.redact(told)
        if len(told) > most:
            told = f"{told[:most]} ({len(told) - most} characters were cut)"
        return clean(told, len(told))

    def plain(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON can say it; what it cannot say as text, and all texts as they may leave this process."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if self.redact is None or self.redact(repr(value)) == repr(value) else self._clear(value)
        if isinstance(value, Mapping) and depth < DEEPEST:
            return {self._clear(name, MOST_NAME): self.plain(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple) and depth < DEEPEST:
            return [self.plain(item, depth + 1) for item in value]
        return self._clear(value, MOST_VALUE)


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception as trouble:  # a user's own __str__ must not fail the attempt
        return f"(a {type(value).__name__} whose text cannot be read: {type(trouble).__name__})"
