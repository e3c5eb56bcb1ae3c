"""Where an attempt is in what it reads and makes: which batch is in hand, and how many were made of it.

A handler's doings are one sequence: a batch is handed out, batches are made of it, the next one is asked for (so the
one before is done with). What was written down describes a prefix of that sequence. An attempt that goes over a part of
it again makes the same batches again, and `repeats` says which are written down already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flowkit.wire.stream import Cursor
from flowkit.worker.stream_reader import Row

OUTSIDE = ""
"""The name of the place where batches are made of no batch in particular."""


class Position:
    """`at` is how far this attempt is, `written` how far all attempts were when it began."""

    __slots__ = ("bytes", "index", "part", "seq", "written")

    def __init__(self, start: Cursor, written: Cursor) -> None:
        self.index, self.bytes, self.seq, self.part = start.index, start.bytes, start.seq, 0
        self.written = written

    def cursor(self) -> Cursor:
        """The farther of the two: what is written stays so, though this attempt may be going over it again."""
        written = self.written
        if (self.index, self.part) <= (written.index, written.part):
            return written
        return Cursor(self.index, self.bytes, self.seq, self.part)


class Positions:
    """`written` are the cursors of the last block; reading starts at `start`."""

    def __init__(self, sources: Iterable[str], written: Mapping[str, Cursor], start: Mapping[str, Cursor]) -> None:
        none = Cursor()
        self._of = {name: Position(start.get(name, none), written.get(name, none)) for name in sources}
        self._outside = self._of[OUTSIDE] = Position(none, written.get(OUTSIDE, none))
        self._outside.part = start.get(OUTSIDE, none).part
        self._alone = len(self._of) == 1
        self._several = len(self._of) > 2
        self._in_hand: dict[str, Row] = {}
        self._current = self._outside
        self._row: Row | None = None

    def hand(self, row: Row) -> None:
        """A batch goes to the handler."""
        self._in_hand[row.source] = self._row = row
        self._current = self._of[row.source]

    def finish(self, source: str) -> bool:
        """The batch of a source that is in hand is done with; False if none is."""
        row = self._in_hand.pop(source, None)
        if row is None:
            return False
        position = self._of[source]
        position.index, position.bytes, position.seq, position.part = row.index, row.bytes, row.seq, 0
        if self._row is row:
            self._row, self._current = None, self._outside
        return True

    def finish_all(self) -> None:
        for source in list(self._in_hand):
            self.finish(source)

    def repeats(self) -> bool:
        """Whether the next batch that is made of what is in hand is written down already."""
        current, written = self._current, self._current.written
        return (current.index, current.part) < (written.index, written.part)

    def count(self) -> None:
        """It was made, or made again."""
        self._current.part += 1

    def resume(self) -> int:
        """How many batches made of none are there; the handler goes on from there by itself, and repeats none."""
        self._outside.part = max(self._outside.part, self._outside.written.part)
        return self._outside.part

    @property
    def uid(self) -> str:
        """The id of the batch that was counted last, from what it was made of."""
        part = self._current.part
        if self._row is None:
            return str(part - 1) if self._alone else f"+{part - 1}"
        source = f"{self._row.source}:" if self._several else ""
        return f"{source}{self._row.uid}" if part == 1 else f"{source}{self._row.uid}.{part - 1}"

    @property
    def row(self) -> Row | None:
        """The batch that was handed out last and is not done with."""
        return self._row

    def index(self, source: str) -> int:
        return self._of[source].index

    def done(self, source: str) -> int:
        """How many batches are done with, by this attempt or an earlier one."""
        return self._of[source].cursor().index

    def cursors(self) -> dict[str, Cursor]:
        found = {name: position.cursor() for name, position in self._of.items()}
        return {name: cursor for name, cursor in found.items() if cursor.index or cursor.part}
