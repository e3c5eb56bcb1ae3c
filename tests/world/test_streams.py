"""Streaming tasks in simulated weather: whatever crashes, freezes or fails over, every batch is applied once, in order.

A seed that went wrong replays: `simulate(seed, trace=True)`.
"""

from __future__ import annotations

import pytest

from flowkit.testing.batches import judge_blocks
from tests.world.streams import LAG, simulate


def findings(first: int, last: int, mode: str) -> tuple[list[str], int, int]:
    """What went wrong in these seeds, how often a worker died or froze, and how far a node was ahead at most."""
    wrong, struck, ahead = [], 0, 0
    for seed in range(first, last):
        report, found, play = simulate(seed, mode)
        wrong += [f"{seed}: {what}" for what in (*found, *report.violations)]
        struck += report.counts.get("F_crash_worker", 0) + report.counts.get("F_freeze_worker", 0)
        ahead = max(ahead, play.most_lag)
    return wrong, struck, ahead


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", [0, 15, 30])
def test_no_batch_is_lost_or_applied_twice_in_chaos(first: int) -> None:
    wrong, struck, ahead = findings(first, first + 15, "chaos")
    assert wrong == []
    assert struck > 5
    assert 0 < ahead <= LAG


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["calm", "outage", "ccrash"])
def test_no_batch_is_lost_or_applied_twice_where_no_worker_is_harmed(mode: str) -> None:
    assert findings(0, 10, mode)[0] == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_no_batch_is_lost_or_applied_twice_in_much_chaos() -> None:
    assert findings(1000, 1800, "chaos")[0] == []


def test_the_judge_of_blocks_sees_what_is_wrong() -> None:
    from flowkit.ports import Block, StreamId
    from flowkit.wire.stream import Mark, write_body

    def block(seq: int, attempt: int, count: int, *uids: str, end: bool = False) -> Block:
        mark = Mark(end=[[None], None] if end else None)
        return Block(
            StreamId("t", 0, "n"), seq, attempt, count, write_body(mark, [f'["{u}",0]'.encode() for u in uids])
        )

    assert judge_blocks([block(1, 1, 2, "a", "b"), block(2, 2, 2), block(3, 2, 3, "c", end=True)]) == []
    assert "block 2 is missing" in judge_blocks([block(1, 1, 1, "a"), block(3, 1, 2, "b")])[0]
    assert "behind 2" in judge_blocks([block(1, 2, 1, "a"), block(2, 1, 2, "b")])[0]
    assert "says 3" in judge_blocks([block(1, 1, 3, "a")])[0]
    assert "repeats" in judge_blocks([block(1, 1, 1, "a"), block(2, 1, 2, "a")])[0]
    assert "behind the end" in judge_blocks([block(1, 1, 0, end=True), block(2, 1, 1, "a")])[0]
