"""Large decisions: how they are cut into commits, and how much one takes up. And what becomes of messages about another
owner's tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import engine
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.history import Past
from flowkit.coordinator.offsets import OffsetTracker
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.core.payload import Payload
from flowkit.core.permits import PermitAsked, PermitOver, ToLimit
from flowkit.core.reports import Started, Succeeded
from flowkit.ports import Commit, Head, Outcome
from flowkit.wire.facts import decode_facts
from flowkit.wire.messages import Hello
from tests.core.builders import graph, new_task, node


async def cut(recorded: Sequence[f.Fact], most: int) -> list[Commit]:
    runtime = CoordinatorRuntime(
        store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig(max_commit_bytes=most)
    )
    return list(runtime.engine.portions.of(Cell("t", 0), recorded, 5.0))


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


# How much one decision takes up.


async def test_reports_that_reach_many_nodes_are_decided_in_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_AT_ONCE", 5)
    heads = [node(f"h{i}") for i in range(3)]
    leaves = [node(f"h{i}.{j}", f"h{i}", type="other") for i in range(3) for j in range(3)]
    on = Flying(*heads, *leaves)
    on.engine.outcome(on.flight, Outcome.OK)
    for i in range(3):
        run = on.cell.task.runs[f"h{i}"]
        on.engine.feed(on.cell, Item(Succeeded(f"h{i}", 1, run.lease.token, Payload(1), None, 0.1)))

    decided = []
    while not decided or on.cell.queue:
        on.engine.pump_dirty()
        assert on.cell.flight is not None
        decided.append([fact.node for fact in on.cell.flight.facts if isinstance(fact, f.AttemptSucceeded)])
        on.engine.outcome(on.cell.flight, Outcome.OK)

    assert decided == [["h0", "h1"], ["h2"]]
    assert len(on.cell.task.ready["other"]) == 9


# What was reserved with a worker.


class Flying:
    """A task whose first commit, which places all nodes that can start, is on its way."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.runtime = CoordinatorRuntime(
            store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig()
        )
        self.engine = self.runtime.engine
        self.engine.owned.add(5)
        self.worker = self.runtime.fleet.heard(Hello("w", "i", ["work"], 8, 0.0))
        self.cell = self.engine.get("t", 5)
        raw = graph(*(nodes or (node("a"), node("b"))))
        self.engine.loaded(self.cell, Past(Head("t", 5, "ref"), new_task(raw)))
        self.engine.pump_dirty()
        assert self.cell.flight is not None
        assert self.worker.mine == (3 if nodes else 2)
        self.flight = self.cell.flight


async def test_a_task_that_is_dropped_with_its_commit_on_the_way_keeps_no_room() -> None:
    on = Flying()

    on.engine.drop(on.cell)
    assert on.worker.mine == 0

    on.engine.outcome(on.flight, Outcome.OK)
    assert on.worker.mine == 0


@pytest.mark.parametrize("outcome", [Outcome.DUPLICATE, Outcome.UNKNOWN])
async def test_a_commit_that_was_not_taken_gives_its_room_back_once(outcome: Outcome) -> None:
    on = Flying()
    on.worker.mine += 1  # somebody else's

    on.engine.outcome(on.flight, outcome)

    assert on.worker.mine == 1


async def test_a_commit_that_was_taken_keeps_its_room_while_the_leases_last() -> None:
    on = Flying()

    on.engine.outcome(on.flight, Outcome.OK)
    assert on.worker.mine == 2

    on.engine.drop(on.cell)
    assert on.worker.mine == 0


# Messages that went astray.


class Stray:
    """A coordinator that owns `owned`, and a message in `asked` about a task that belongs to partition 5."""

    def __init__(self, *owned: int, asked: int) -> None:
        self.runtime = CoordinatorRuntime(
            store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig()
        )
        self.letters: list[tuple[str, str]] = []
        self.runtime.publisher.dead = lambda record, why, task_id="": self.letters.append((task_id, why))  # type: ignore[method-assign]
        engine = self.engine = self.runtime.engine
        engine.owned |= set(owned)
        self.tracker = OffsetTracker()
        self.cell = engine.get("t", asked)
        engine.feed(self.cell, Item(Started("n", 1, "k"), self.tracker.read(7, 1)))
        engine.loaded(self.cell, Past(Head("t", 5, "ref"), new_task(graph(node("n")))))


async def test_a_message_in_the_wrong_partition_makes_nobody_else_an_owner() -> None:
    stray = Stray(3, asked=3)

    assert stray.engine.cells == {}
    assert stray.letters == [("t", "its task belongs to partition 5")]
    assert stray.tracker.to_commit() == 8, "it is done with"


async def test_the_owner_of_both_partitions_files_the_task_under_its_own() -> None:
    stray = Stray(3, 5, asked=3)

    assert stray.engine.cells["t"].partition == 5
    assert stray.letters == []


async def test_a_message_for_a_partition_that_has_just_left_is_the_next_owners() -> None:
    stray = Stray(asked=5)

    assert stray.engine.cells == {}
    assert stray.letters == []
    assert stray.tracker.to_commit() == 7, "whoever owns the partition now reads it again"


async def test_a_limit_that_asks_about_a_task_that_nothing_bounds_any_more_is_answered() -> None:
    """The attempt that held its permit began under other settings."""
    on = Flying()
    on.engine.outcome(on.flight, Outcome.OK)
    said: list[tuple[str, ToLimit]] = []
    on.engine.gate.to_limit = lambda limit_id, tenant, letter: said.append((limit_id, letter))

    on.engine.deliver(on.cell, Item(PermitAsked("limit:role-x", "a", (0, 0, 0)), None, "default"))
    on.engine.deliver(on.cell, Item(PermitAsked("limit:role-x", "b", (0, 1, 0)), None, "default"))
    on.engine.pump_dirty()

    assert said == [("limit:role-x", PermitOver("t", "a", (0, 0, 0)))]
    assert on.cell.live
