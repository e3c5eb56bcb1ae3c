"""Large decisions: how they are cut into commits."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.ports import Commit
from flowkit.wire.facts import decode_facts


async def cut(recorded: Sequence[f.Fact], most: int) -> list[Commit]:
    runtime = CoordinatorRuntime(
        store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig(max_commit_bytes=most)
    )
    return list(runtime.engine._commits(Cell("t", 0), recorded, 5.0))


async def test_a_large_decision_becomes_consecutive_commits() -> None:
    recorded = [f.NodeSkipped(f"n{i}", "upstream_failed", True, "a") for i in range(10)]

    commits = await cut(recorded, 100)

    assert [commit.seq for commit in commits] == list(range(1, len(commits) + 1))
    assert [commit.prev for commit in commits] == ["", *(commit.id for commit in commits[:-1])]
    assert all(len(commit.body) <= 100 for commit in commits)
    assert [fact for commit in commits for fact in decode_facts(commit.body)] == recorded


async def test_a_fact_larger_than_the_limit_goes_alone() -> None:
    commits = await cut([f.NodeCancelled("a", "x" * 500), f.NodeCancelled("b", "")], 100)

    assert len(commits) == 2


async def test_an_answered_request_is_never_cut_from_what_it_did() -> None:
    asked = f.RequestApplied(1, "r1", "cancel", True)

    commits = await cut(
        [f.RetryDue("a"), asked, f.TaskCancelling("stop", "cancelled", 9.0), f.TaskEnded("cancelled")], 1
    )

    assert [len(decode_facts(commit.body)) for commit in commits] == [1, 2, 1]
