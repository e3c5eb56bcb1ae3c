"""The nodes of a task as a tree, in lines and in colours."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from rich.console import Console

from flowkit.cli.board import Board
from flowkit.cli.progress import Lines, Live, Silent, make_progress
from flowkit.cli.tree import branches, line, put_tree, rich_tree
from flowkit.core.dialect import parse_graph
from tests.cli.conftest import node
from tests.cli.test_board import event
from tests.cli.test_console import Terminal

NOW = 100.0
TREE = """\
  a          finished   1.0 s
  ├─ b       failed     attempt 3  2.0 s  E: no \\x1b[31mred
  │  └─ d    pending
  └─ c       running    5.0 s
     └─ e-f  pending
"""


def filled() -> Board:
    nodes: list[dict[str, Any]] = [
        node("a", "x"), node("b", "x", "a"), node("c", "x", "a"), node("d", "x", "b"), node("e-f", "x", "c"),
    ]  # fmt: skip
    board = Board(parse_graph({"nodes": nodes}))
    board.apply(event("succeeded", "a", "finished", at=94.0, run_sec=1.0))
    board.apply(event("leased", "b", "running", at=95.0, attempt=3))
    error = {"code": "E", "message": "no \x1b[31mred"}
    board.apply(event("failed", "b", "failed", at=97.0, attempt=3, error=error, retry_at=None))
    board.apply(event("leased", "c", "running", at=95.0))
    return board


@pytest.mark.parametrize(
    ("depths", "drawn"),
    [
        ([], []),
        ([0, 0], ["", ""]),
        ([0, 1, 1], ["", "├─ ", "└─ "]),
        ([0, 1, 2, 1, 0, 1], ["", "├─ ", "│  └─ ", "└─ ", "", "└─ "]),
        ([0, 1, 2, 3, 1], ["", "├─ ", "│  └─ ", "│     └─ ", "└─ "]),
    ],
)
def test_branches_lead_to_every_row(depths: list[int], drawn: list[str]) -> None:
    assert branches(depths) == drawn


def test_a_tree_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    put_tree(filled(), NOW)
    assert capsys.readouterr().out == TREE


def test_a_row_on_its_own() -> None:
    assert line(filled().rows["c"], NOW) == "  c             running    5.0 s"
    assert line(filled().rows["d"], NOW) == "  d             pending"


def rendered(table: object) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def test_a_tree_in_colours_shows_the_same() -> None:
    shown = [" ".join(row.split()) for row in rendered(rich_tree(filled(), NOW, None))]
    assert shown == [
        "✓ a finished 1.0 s", r"├─ ✗ b failed attempt 3 2.0 s E: no \x1b[31mred", "│ └─ · d pending",
        "└─ ● c running 5.0 s", "└─ · e-f pending",
    ]  # fmt: skip


def test_a_small_window_shows_the_most_urgent() -> None:
    shown = [" ".join(row.split()) for row in rendered(rich_tree(filled(), NOW, 3))]
    assert shown[0].startswith("✗ b failed")
    assert shown[1] == "● c running 5.0 s"
    assert shown[2] == "... and 3 more: 1 failed, 1 running, 1 finished, 2 pending"


def test_lines_tell_of_ends_waits_and_long_runs(capsys: pytest.CaptureFixture[str]) -> None:
    board = filled()
    with Lines(board, "task t") as progress:
        progress.changed(board.rows["a"], "succeeded")
        progress.changed(board.rows["c"], "leased")
        progress.changed(board.rows["c"], "started")
        progress.changed(board.rows["d"], "restarted")
        progress.tick()

    told = capsys.readouterr().err.splitlines()
    assert told[0] == "flowkit: task t: 5 nodes"
    assert [row.split()[:2] for row in told[1:]] == [["a", "finished"], ["c", "running"]]


def test_the_way_fits_what_stderr_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    board = filled()
    assert isinstance(make_progress(board, "t", quiet=False), Lines)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(make_progress(board, "t", quiet=False), Live)
    assert type(make_progress(board, "t", quiet=True)) is Silent
    monkeypatch.setenv("NO_COLOR", "1")
    assert isinstance(make_progress(board, "t", quiet=False), Lines)


def test_the_live_tree_is_drawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    board = filled()
    screen = sys.stderr

    with Live(board, "task t") as progress:
        board.apply(event("succeeded", "c", "finished", at=NOW, run_sec=5.0))
        progress.tick()

    drawn = screen.getvalue()  # type: ignore[attr-defined]
    assert "task t" in drawn
    assert "\x1b[1A" in drawn, "it goes back up"
    assert "\x1b[32mfinished" in drawn
