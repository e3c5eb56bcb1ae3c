"""What a service keeps of a log in memory is bounded in bytes, whoever sends it."""

from __future__ import annotations

from flowkit.services.lines import MB, Lines
from flowkit.services.node_runner import Waiting


def test_lines_are_kept_as_they_come() -> None:
    lines = Lines()
    for word in ("one", "two"):
        lines.note(word)

    assert lines.kept == ["one", "two"]


def test_what_is_more_than_a_mebibyte_is_cut_and_says_so() -> None:
    lines = Lines()
    for _ in range(100):
        lines.note("x" * 60_000)

    assert lines.kept[-1] == "[...] the log is cut here: it has more than 1 MiB"
    assert sum(map(len, lines.kept)) < MB
    assert len(lines.kept) == 18


def test_empty_lines_take_room_too() -> None:
    lines = Lines()
    for _ in range(100_000):
        lines.note("")

    assert len(lines.kept) == MB // 64


async def test_what_a_unit_says_of_a_node_that_is_waited_for_is_bounded() -> None:
    waiting = Waiting()
    for _ in range(10_000):
        waiting.lines.note("x" * 65_000)

    assert sum(map(len, waiting.lines.kept)) < MB
