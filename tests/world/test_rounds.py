"""Decisions that are made piece by piece, in simulated weather."""

from __future__ import annotations

import pytest

from flowkit.coordinator import engine, rounds
from flowkit.testing.runner import describe, run_seeds


@pytest.mark.timeout(300)
def test_decisions_in_pieces_of_one_report_break_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    hear = rounds.Rounds._hear

    async def counted(self: rounds.Rounds, cell: rounds.Cell) -> None:
        await hear(self, cell)
        begun.extend(self._opened)

    monkeypatch.setattr(rounds, "MUCH", 0)
    monkeypatch.setattr(rounds, "PIECE", 1)
    monkeypatch.setattr(engine, "PIECE", 1)
    monkeypatch.setattr(rounds.Rounds, "_hear", counted)

    tally = run_seeds(range(10))

    assert not tally.bad, "\n" + describe(tally)
    assert len(begun) > 100
