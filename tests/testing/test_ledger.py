"""The ledger file: every start, with its end where the handler lived to see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.testing import LedgerFile


def test_starts_and_ends_are_read_back(tmp_path: Path) -> None:
    ledger = LedgerFile(tmp_path / "ledger")
    with ledger.run(task_id="t", node="a", attempt=1, key="t:0:a", worker="W0", inputs={"x": 1}):
        pass
    with pytest.raises(ValueError, match="no"), ledger.run(task_id="t", node="b", attempt=1, key="t:0:b", worker="W0"):
        raise ValueError("no")
    killed = ledger.run(task_id="t", node="c", attempt=1, key="t:0:c", worker="W1")
    killed.__enter__()

    first, second, third = LedgerFile(tmp_path / "ledger").read()

    assert (first.node, first.inputs, first.key) == ("a", {"x": 1}, "t:0:a")
    assert first.ended_at is not None and second.ended_at is not None
    assert first.started_at <= first.ended_at <= second.started_at
    assert third.ended_at is None
    assert third.worker == "W1"


def test_a_ledger_that_nobody_wrote_is_empty(tmp_path: Path) -> None:
    assert LedgerFile(tmp_path / "nothing").read() == []
