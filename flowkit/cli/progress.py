"""How a run is shown while it goes on: a live tree in a terminal, a line per end elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from flowkit.cli import tree
from flowkit.cli.board import Board, Row
from flowkit.cli.console import clean, fancy, say

if TYPE_CHECKING:
    from rich.console import Group

TICK_SEC = 0.1
SPARE_LINES = 3
TOLD = frozenset({"finished", "failed", "skipped", "cancelled", "waiting"})


class Progress(Protocol):
    """Told what changes; `tick` is called every `TICK_SEC`."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...  # fmt: skip
    def changed(self, row: Row, what: str) -> None: ...
    def tick(self) -> None: ...


def make_progress(board: Board, title: str, *, quiet: bool) -> Progress:
    if quiet:
        return Silent()
    return Live(board, title) if fancy(sys.stderr) else Lines(board, title)


class Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        pass

    def changed(self, row: Row, what: str) -> None:
        pass

    def tick(self) -> None:
        pass


class Lines(Silent):
    """A line when a node has ended, waits for its next attempt, or runs for long."""

    def __init__(self, board: Board, title: str) -> None:
        self._width = tree.name_width(board)
        self._title = f"{title}: {len(board.rows)} node{'s' * (len(board.rows) != 1)}"

    def __enter__(self) -> Self:
        say(self._title)
        return self

    def changed(self, row: Row, what: str) -> None:
        if row.state in TOLD or what in ("started", "lost"):
            sys.stderr.write(tree.line(row, time.time(), self._width) + "\n")
            sys.stderr.flush()


class Live(Silent):
    """The tree, drawn anew in place."""

    def __init__(self, board: Board, title: str) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._board = board
        self._title = clean(title)
        self._console = Console(file=sys.stderr)
        self._live = RichLive(console=self._console, auto_refresh=False, transient=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        self.tick()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._live.update(self._picture(), refresh=True)
        self._live.stop()

    def tick(self) -> None:
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        status = self._board.status
        head = Text(f"{self._title}  ") + Text(status, style=tree.COLOURS.get(status, ""))
        height = max(5, self._console.height - SPARE_LINES)
        return Group(head, tree.rich_tree(self._board, time.time(), height))
