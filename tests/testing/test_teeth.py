"""A guard that is taken away is missed, by whom is written down, and what was written is read again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowkit.testing import teeth
from flowkit.testing.__main__ import main
from flowkit.testing.guards import GUARDS, HARMLESS, LOOKED_FOR, SECONDS
from flowkit.testing.teeth import Bite

MEASURED = Path(__file__).resolve().parents[2] / "docs" / "internals" / "guards.json"


def test_seeds_are_run_until_somebody_notices() -> None:
    one = teeth.bite("unique", 40)

    assert "commit_lost" in one.kinds
    assert one.seeds <= 40
    assert one.command == f"python -m flowkit.testing trace {one.seeds - 1} --mode chaos --without unique"


def test_nobody_noticed_is_an_answer() -> None:
    assert teeth.bite("let_go", 2) == Bite("let_go", "chaos", ("let_go",), (), 2, ())


def test_seconds_are_taken_away_as_well() -> None:
    one = teeth.bite("generation", 20)

    assert one.without == ("generation", "timers_cleared")
    assert one.kinds == ("timer_early",)


def test_what_is_written_is_read_again_in_the_order_of_the_table(tmp_path: Path) -> None:
    rows = [
        Bite("token", "chaos", ("token",), (), 3, ("overlap",)),
        Bite("unique", "chaos", ("unique",), ("x",), 1, ()),
    ]
    file = tmp_path / "guards.json"

    teeth.write(file, {row.guard: row for row in rows})

    assert list(teeth.read(file).values()) == rows[::-1]
    assert teeth.read(tmp_path / "none.json") == {}


def test_the_command_line_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guards.json"

    assert main(["guards", "resend", "--write", str(file), "--jobs", "1", "--most", "20"]) == 0
    assert main(["guards", "let_go", "--write", str(file), "--jobs", "1", "--most", "1"]) == 0
    assert main(["guards", "one_in_flight", "--measure", "--jobs", "1", "--most", "0"]) == 1

    shown = capsys.readouterr().out
    assert re.search(r"not_ended(, \w+)*: python -m flowkit\.testing trace", shown)
    assert "nobody noticed" in shown
    assert set(teeth.read(file)) == {"let_go", "resend"}


def test_every_guard_was_measured_and_missed() -> None:
    measured = teeth.read(MEASURED)

    assert set(measured) == set(GUARDS)
    assert {name for name, one in measured.items() if not one.kinds} == set(HARMLESS)
    assert {name for name, one in measured.items() if one.kinds == ("world_failed",)} == set()


def test_the_tables_name_guards() -> None:
    assert LOOKED_FOR.keys() | SECONDS.keys() | HARMLESS.keys() <= GUARDS.keys()
