"""The nodes of a task as a tree: lines for pipes and logs, colours for terminals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowkit.cli.board import Board, Row
from flowkit.cli.console import clean, fancy, one_line, put
from flowkit.cli.times import show_seconds

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {
    "pending": "dim",
    "ready": "cyan",
    "running": "blue",
    "waiting": "yellow",
    "finished": "green",
    "failed": "red",
    "skipped": "dim",
    "cancelled": "magenta",
    "queued": "cyan",
    "paused": "yellow",
    "cancelling": "magenta",
}
MARKS = {
    "pending": "·",
    "ready": "○",
    "running": "●",
    "waiting": "◌",
    "finished": "✓",
    "failed": "✗",
    "skipped": "↷",
    "cancelled": "⊘",
}
NEVER_CUT = frozenset({"ID", "STATUS", "CREATED", "TOOK"})
NAME_WIDTH, WIDEST_NAME = 12, 60


def branches(depths: Sequence[int]) -> list[str]:
    """The lines that lead to each row of a tree: `├─ `, `└─ ` and what passes by."""
    drawn: list[str] = []
    later: set[int] = set()
    for depth in reversed(depths):
        later = {other for other in later if other <= depth}
        passing = "".join("│  " if level in later else "   " for level in range(1, depth))
        drawn.append((passing + ("├─ " if depth in later else "└─ ")) if depth else "")
        later.add(depth)
    return drawn[::-1]


def details(row: Row, now: float) -> str:
    """What there is to say about a row beside its state: attempts, duration, reason."""
    parts = [
        f"attempt {row.attempts}" if row.attempts > 1 else "",
        show_seconds(row.seconds(now)),
        row.folded(),
        one_line(row.reason),
    ]
    return "  ".join(part for part in parts if part)


def line(row: Row, now: float, width: int = NAME_WIDTH) -> str:
    """One row on its own, for a log."""
    return f"  {clean(row.node_id):<{width}}  {row.state:<9}  {details(row, now)}".rstrip()


def name_width(board: Board) -> int:
    return min(WIDEST_NAME, max(NAME_WIDTH, *(len(name) for name in board.rows)))


def put_tree(board: Board, now: float) -> None:
    """The whole tree on stdout."""
    if fancy(sys.stdout):
        from rich.console import Console

        Console().print(rich_tree(board, now, None))
        return
    rows = list(board.rows.values())
    names = [lead + clean(row.node_id) for lead, row in zip(branches([r.depth for r in rows]), rows, strict=True)]
    width = min(WIDEST_NAME, max(map(len, names)))
    for name, row in zip(names, rows, strict=True):
        put(f"  {name:<{width}}  {row.state:<9}  {details(row, now)}".rstrip())


def rich_tree(board: Board, now: float, height: int | None) -> Table:
    """The tree in colours; a window of fewer lines than that shows the most urgent rows."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    rows = list(board.rows.values())
    leads = branches([row.depth for row in rows])
    if height is not None and len(rows) > height:
        rows, leads = board.most_urgent(height - 1), [""] * len(rows)
    for lead, row in zip(leads, rows, strict=False):
        colour = COLOURS.get(row.state, "")
        grid.add_row(
            Text.assemble(
                (f" {lead}", "dim"), (f"{MARKS.get(row.state, ' ')} ", colour),
                (clean(row.node_id), "bold" if row.state == "running" else ""),
            ),
            Text(row.state, style=colour),
            Text(details(row, now), style="red" if row.state == "failed" else "dim"),
        )  # fmt: skip
    if len(rows) < len(board.rows):
        grid.add_row(Text(f" ... and {len(board.rows) - len(rows)} more: {board.counts()}", style="dim"))
    return grid


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in colours: a cell that is a state wears its colour."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        place = len(grid.columns)
        width = max((len(row[place]) for row in rows), default=0) if title in NEVER_CUT else None
        grid.add_column(title, overflow="ellipsis", no_wrap=True, min_width=width)
    for row in rows:
        grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    Console().print(grid)
