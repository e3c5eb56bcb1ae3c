"""The gate: which permits are asked for and when, and who is let through; driven by letters, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.gate import AGAIN_SEC, FIRST_AGAIN_SEC, MOST_ASKED, UNSERVED_SEC, UNUSED_SEC, Gate
from flowkit.core.decide import decide
from flowkit.core.facts import Fact
from flowkit.core.payload import Payload
from flowkit.core.permits import (
    PermitAsked,
    PermitDelayed,
    PermitGranted,
    PermitOver,
    PermitWanted,
    ToLimit,
    claim_of,
    needs_of,
)
from flowkit.core.reports import Placed, Report, Requested, Succeeded
from tests.coordinator.stand import Stand, cell_of
from tests.core.builders import START, node

DB = {"key": "db", "max": 3}
API = {"key": "api", "rate": 10}


class Hall:
    """One limited task and its gate; `sent` are the letters that went to limits, `fed` what the engine was given."""

    def __init__(self, *limits: dict[str, Any], width: int = 1, worker: bool = True,
                 nodes: Sequence[dict[str, Any]] = (), **fields: Any) -> None:  # fmt: skip
        self.stand = Stand()
        if worker:
            self.stand.worker("w", 1000)
        self.gate = Gate(self.stand.clock, self.stand.dispatcher)
        self.sent: list[tuple[str, ToLimit]] = []
        self.fed: list[Report] = []
        self.gate.to_limit = lambda limit_id, tenant, letter: self.sent.append((limit_id, letter))
        self.gate.feed = lambda cell, item: self.fed.append(item.report)  # type: ignore[arg-type]
        alike = [node(f"n{n}", limits=list(limits), **fields) for n in range(width)]
        self.cell: Cell = cell_of("t", *(nodes or alike))
        self.task = self.cell.task
        assert self.task is not None
        self.gate.look(self.cell, self.task)

    def needs(self, name: str = "n0") -> list[str]:
        assert self.task is not None
        return [need.limit_id for need in needs_of(self.task, name)]

    def claim(self, name: str = "n0") -> tuple[int, int, int]:
        assert self.task is not None
        return claim_of(self.task, self.task.runs[name])

    def taken(self) -> list[tuple[str, ToLimit]]:
        sent, self.sent = self.sent, []
        return sent

    def wanted(self) -> list[str]:
        return [letter.node for _, letter in self.taken() if isinstance(letter, PermitWanted)]

    def over(self) -> list[tuple[str, str]]:
        return [(limit_id, letter.node) for limit_id, letter in self.taken() if isinstance(letter, PermitOver)]

    def hear(self, *letters: Any) -> None:
        assert self.task is not None
        self.cell.queue.extend(Item(letter, None, "default") for letter in letters)
        self.gate.hear(self.cell, self.task)
        self.gate.open(self.cell, self.task)

    def grant(self, name: str = "n0", at: int = 0) -> None:
        self.hear(PermitGranted(self.needs(name)[at], name, self.claim(name)))

    def decide(self, *reports: Report) -> list[Fact]:
        """Decide, and let the commit be acknowledged at once."""
        assert self.task is not None
        recorded = decide(self.task, reports, START).recorded
        self.gate.note(self.cell, self.task, recorded)
        self.gate.look(self.cell, self.task)
        return recorded

    def place(self, name: str = "n0") -> None:
        assert self.task is not None
        [placed] = self.gate.stamp(self.cell, self.task, [Placed(name, "k", "w", "i", 5.0)])
        assert self.decide(placed)

    async def later(self, seconds: float) -> None:
        self.stand.clock.advance(seconds)
        self.stand.worker("w", 1000)
        await self.gate.step()

    @property
    def ready(self) -> list[str]:
        assert self.task is not None
        return [name for names in self.task.ready.values() for name in names]


async def test_permits_are_asked_for_one_after_the_other_and_then_the_node_is_let_through() -> None:
    hall = Hall(API, DB)
    db, api = hall.needs()
    assert [limit_id for limit_id, _ in hall.taken()] == [db]
    hall.grant(at=0)
    assert [limit_id for limit_id, _ in hall.taken()] == [api]
    assert hall.ready == []
    hall.grant(at=1)
    assert hall.ready == ["n0"]


async def test_how_long_a_node_has_waited_is_told_with_its_own_priority_and_its_tasks() -> None:
    hall = Hall(DB, priority=3)
    assert hall.task is not None
    hall.task.runs["n0"].ready_at = hall.stand.clock.wall() - 50.0  # perhaps under another coordinator
    [(_, first)] = hall.taken()
    await hall.later(AGAIN_SEC + 1)
    [(_, again)] = hall.taken()
    assert isinstance(first, PermitWanted)
    assert isinstance(again, PermitWanted)
    assert (first.priority, again.priority) == (3, 3)
    assert again.waited == 50.0 + AGAIN_SEC + 1


async def test_a_rate_is_over_with_the_lease_and_a_permit_with_its_end() -> None:
    hall = Hall(API, DB)
    db, api = hall.needs()
    hall.grant(at=0)
    hall.grant(at=1)
    hall.taken()
    hall.place()
    assert hall.over() == [(api, "n0")]
    hall.decide(Succeeded("n0", 1, "k", Payload(1)))
    assert hall.over() == [(db, "n0")]


async def test_a_permit_of_another_claim_lets_nobody_through() -> None:
    hall = Hall(DB)
    [db] = hall.needs()
    for claim in [(0, 2, 0), (0, 1, 1), (1, 1, 0)]:
        hall.hear(PermitGranted(db, "n0", claim))
    hall.hear(PermitGranted("limit:other", "n0", hall.claim()))
    assert hall.ready == []


async def test_a_permit_twice_is_one() -> None:
    hall = Hall(API, DB)
    hall.grant(at=0)
    hall.grant(at=0)
    assert hall.ready == []


async def test_a_permit_that_comes_after_its_claim_was_over_is_answered() -> None:
    hall = Hall(DB)
    [db], mine = hall.needs(), hall.claim()
    hall.decide(Requested(1, "r", "cancel"))
    assert hall.over() == [(db, "n0")]  # perhaps it was granted meanwhile
    hall.hear(PermitGranted(db, "n0", mine))
    assert hall.over() == [(db, "n0")]


async def test_letters_of_a_stranger_are_left_for_the_engine_to_refuse() -> None:
    hall = Hall(DB)
    assert hall.task is not None
    [db] = hall.needs()
    hall.cell.queue.append(Item(PermitGranted(db, "n0", hall.claim()), None, "somebody"))
    assert hall.gate.hear(hall.cell, hall.task) == []
    assert len(hall.cell.queue) == 1


async def test_who_is_asked_says_whether_it_is_over_and_nothing_else() -> None:
    hall = Hall(DB)
    [db], mine = hall.needs(), hall.claim()
    hall.taken()
    hall.hear(PermitAsked(db, "n0", mine))
    hall.hear(PermitAsked(db, "n0", (0, 9, 0)))
    assert hall.taken() == []
    hall.hear(PermitAsked(db, "n0", (0, 0, 0)))
    assert hall.over() == [(db, "n0")]


async def test_of_a_task_that_is_no_more_every_claim_is_over() -> None:
    hall = Hall(DB)
    [db] = hall.needs()
    hall.taken()
    cell = Cell("gone", 0)
    cell.queue.append(Item(PermitAsked(db, "n7", (0, 1, 0)), None, "default"))
    assert len(hall.gate.gone(cell)) == 1
    assert hall.over() == [(db, "n7")]


async def test_where_no_answer_comes_it_is_asked_again_soon_and_then_seldom() -> None:
    hall = Hall(DB)
    assert hall.wanted() == ["n0"]
    await hall.later(FIRST_AGAIN_SEC + 0.1)
    assert hall.wanted() == ["n0"]
    await hall.later(FIRST_AGAIN_SEC + 0.1)
    assert hall.wanted() == []
    await hall.later(AGAIN_SEC)
    assert hall.wanted() == ["n0"]
    hall.gate.again_soon()
    await hall.later(FIRST_AGAIN_SEC + 0.1)
    assert hall.wanted() == ["n0"]


async def test_of_a_wide_task_so_many_ask_at_a_time() -> None:
    hall = Hall(DB, width=MOST_ASKED + 10)
    assert len(hall.wanted()) == MOST_ASKED
    hall.grant("n0")
    hall.place("n0")
    assert hall.wanted() == [f"n{MOST_ASKED}"]


async def test_of_those_that_may_not_ask_yet_the_highest_priority_is_next() -> None:
    wide = [node(f"n{n}", limits=[DB]) for n in range(MOST_ASKED + 10)]
    late = [node("late", limits=[DB], priority=1), node("urgent", limits=[DB], priority=5)]
    hall = Hall(nodes=[*wide, *late])
    asked = hall.wanted()
    assert (len(asked), asked[:2]) == (MOST_ASKED, ["urgent", "late"])

    hall = Hall(nodes=[node("first"), *wide, node("urgent", limits=[DB], depends_on=["first"], priority=5)])
    assert hall.wanted() == [f"n{n}" for n in range(MOST_ASKED)]
    hall.place("first")
    hall.decide(Succeeded("first", 1, "k", Payload(1)))
    assert hall.wanted() == []
    hall.grant("n0")
    hall.place("n0")
    assert hall.wanted() == ["urgent"]  # ten came before it, and wait on


async def test_without_a_worker_nothing_is_asked_until_one_comes() -> None:
    hall = Hall(DB, worker=False)
    assert hall.taken() == []
    await hall.later(1.0)
    assert hall.wanted() == ["n0"]


async def test_permits_that_no_worker_comes_for_are_given_back_and_asked_for_anew() -> None:
    hall = Hall(DB)
    first = hall.claim()
    hall.grant()
    hall.taken()
    await hall.later(UNUSED_SEC + 1)
    [report] = hall.fed
    assert hall.decide(report)
    [(_, over), (_, wanted)] = hall.taken()
    assert (over.claim, wanted.claim) == (first, hall.claim())
    assert hall.ready == []


async def test_a_paused_task_gives_its_permits_back_soon() -> None:
    hall = Hall(DB)
    hall.grant()
    hall.decide(Requested(1, "r", "pause"))
    await hall.later(UNSERVED_SEC + 0.1)
    [report] = hall.fed
    assert hall.decide(report)
    hall.taken()
    await hall.later(60)
    assert hall.taken() == []
    hall.decide(Requested(2, "r2", "resume"))
    assert hall.wanted() == ["n0"]


@pytest.mark.parametrize("loaded_since", [False, True])
@pytest.mark.parametrize("pause", [{}, {"node_id": "n0"}])
async def test_what_comes_to_a_paused_node_is_given_back_at_once(pause: dict[str, str], loaded_since: bool) -> None:
    hall = Hall(DB, API)
    db, api = hall.needs()
    first = hall.claim()
    hall.decide(Requested(1, "r", "pause", args=pause))
    if loaded_since:
        hall.cell.bids = None
    hall.taken()
    hall.hear(PermitGranted(db, "n0", first))
    [report] = hall.fed
    assert hall.taken() == []  # it is no one else's before that is recorded
    assert hall.decide(report)
    told = [(limit_id, letter) for limit_id, letter in hall.taken() if isinstance(letter, PermitOver)]
    assert (db, PermitOver("t", "n0", first)) in told
    assert {limit_id for limit_id, _ in told} <= {db, api}
    hall.decide(Requested(2, "r2", "resume", args=pause))
    assert hall.wanted() == ["n0"]
    assert hall.claim() > first


async def test_those_that_are_ready_since_the_same_moment_are_told_to_have_waited_equally() -> None:
    hall = Hall(DB, width=3, worker=False)
    clock = hall.stand.clock
    wall = clock.wall
    assert hall.task is not None
    for run in hall.task.runs.values():
        run.ready_at = wall() - 50.0
    clock.wall = lambda: wall() + next(ticks) / 1e6  # type: ignore[method-assign]
    ticks = count()
    await hall.later(5.0)
    assert len({letter.waited for _, letter in hall.taken() if isinstance(letter, PermitWanted)}) == 1


async def test_what_a_node_waits_for_is_told_with_its_place() -> None:
    hall = Hall(DB)
    [db] = hall.needs()
    assert hall.gate.waits_for(hall.cell, "n0") == "limit 'db' (max 3)"
    hall.hear(PermitDelayed(db, "n0", hall.claim(), 4, 3))
    assert hall.gate.waits_for(hall.cell, "n0") == "limit 'db' (max 3, 3 held): 4 come before it"


async def test_who_takes_more_than_one_permit_is_told_so() -> None:
    hall = Hall({"key": "mb", "max": 9, "weight": 6})
    assert hall.gate.waits_for(hall.cell, "n0") == "limit 'mb' (max 9, it takes 6)"
    hall.hear(PermitDelayed(hall.needs()[0], "n0", hall.claim(), 0, 4))
    assert hall.gate.waits_for(hall.cell, "n0") == "limit 'mb' (max 9, 4 held, it takes 6): 0 come before it"
    hall.grant()
    assert hall.gate.waits_for(hall.cell, "n0") == ""
    rated = Hall({"key": "api", "rate": 10, "per_sec": 60})
    assert rated.gate.waits_for(rated.cell, "n0") == "limit 'api' (10 per 60 s)"
