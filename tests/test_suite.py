"""How this suite runs: in which order, and within which limits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine

from tests.conftest import turn_of


def test_making_a_failure_smaller_ends_before_a_test_is_taken_for_hung(pytestconfig: pytest.Config) -> None:
    # Beside it, the failure was found, and is run a few times more to be told.
    limit_sec = float(pytestconfig.getini("timeout"))

    assert limit_sec >= 3 * engine.MAX_SHRINKING_SECONDS


def test_the_limit_on_making_a_failure_smaller_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 0.0)
    at_once = runs_until_it_is_told()
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 60)

    assert at_once < runs_until_it_is_told() / 4


def runs_until_it_is_told() -> int:
    """How often something that fails is run, to find that and to make it smaller."""
    runs = 0

    @settings(database=None, phases=[Phase.generate, Phase.shrink])
    @given(st.lists(st.integers(0, 10**4), min_size=8, max_size=16))
    def fails(numbers: list[int]) -> None:
        nonlocal runs
        runs += 1
        assert sum(numbers) % 7 != 3 or len(set(numbers)) < 6

    with pytest.raises(AssertionError):
        fails()
    return runs


@pytest.mark.parametrize(
    ("path", "marks", "turn"),
    [
        ("tests/core/test_decide.py", [], 0),
        ("tests/integration/test_kills.py", ["crowd"], 1),
        ("tests/integration/test_end_to_end.py", [], 2),
    ],
)
def test_what_waits_comes_last_beside_what_needs_the_whole_machine(path: str, marks: list[str], turn: int) -> None:
    item: Any = SimpleNamespace(path=Path(path), get_closest_marker=lambda name: name if name in marks else None)

    assert turn_of(item) == turn
