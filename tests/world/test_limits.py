"""Clusters whose tasks share limits, in simulated weather: never more permits than there are, and none is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.coordinator import gate, limits
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.rounds import Opened
from flowkit.core import permits
from flowkit.core.bounds import Bounds
from flowkit.core.limiter import Limiter
from flowkit.core.reports import Placed
from flowkit.ports import LimitSwap, Outcome
from flowkit.testing.world import Report
from tests.world.limited import LimitedPlay


def assert_good(report: Report) -> None:
    assert not report.violations, f"seed {report.seed}, mode {report.mode}:\n" + "\n".join(map(str, report.violations))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["calm", "ccrash", "outage"])
def test_no_more_run_at_once_than_the_limit_allows_where_no_worker_is_harmed(mode: str) -> None:
    for seed in range(3):
        play = LimitedPlay(seed, mode, seconds=1.5)
        assert_good(play.run())
        assert play.peak == play.onlooker.most[play.shared] == 3


@pytest.mark.timeout(300)
def test_no_more_is_leased_at_once_than_the_limit_allows_in_chaos() -> None:
    for seed in range(8):
        assert_good(LimitedPlay(seed, "chaos", tasks=20, seconds=2.5).run())


@pytest.mark.parametrize("mode", ["calm", "chaos"])
def test_what_operators_bound_holds_beside_what_graphs_say(mode: str) -> None:
    bounds = Bounds({"work": 4, "*": 5})
    for seed in range(2):
        play = LimitedPlay(seed, mode, tasks=12, seconds=1.5, bounds={"work": 4, "*": 5})
        assert_good(play.run())
        of_role, of_all = (need.limit_id for need in bounds.of("work"))
        assert 3 <= play.onlooker.most[of_role] <= 4
        assert 3 <= play.onlooker.most[of_all] <= 5


def test_who_is_not_heard_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    some_wants_are_lost(monkeypatch)
    for seed in range(2):
        assert_good(LimitedPlay(seed, "chaos", tasks=20, seconds=2.5).run())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(1000, 1400, 100))
def test_no_more_is_leased_at_once_than_the_limit_allows_in_hundreds_of_storms(first: int) -> None:
    for seed in range(first, first + 100):
        assert_good(LimitedPlay(seed, "chaos", tasks=20, seconds=2.5).run())


# ---------------------------------------------------------------------------------------------- without its guards


def anybody_swaps(patch: pytest.MonkeyPatch) -> None:
    """The record is replaced whatever it says."""
    swap_limit = MemoryStore._swap_limit

    def careless(store: MemoryStore, swap: LimitSwap) -> Outcome:
        there = store.data.limits.get(swap.limit_id)
        return swap_limit(store, replace(swap, before="" if there is None else there.stamp))

    patch.setattr(MemoryStore, "_swap_limit", careless)


def no_match_is_yes(patch: pytest.MonkeyPatch) -> None:
    """Who lost the race for the record gives its permits all the same."""

    def reload(owner: Any, meter: Any, limiter: Any, outcome: Outcome, granted: Any) -> None:
        original(owner, meter, limiter, outcome, granted)
        for want in granted:
            owner._tell_granted(meter, want)

    original = limits.Limits._reload
    patch.setattr(limits.Limits, "_reload", reload)


def nothing_outlives_its_owner(patch: pytest.MonkeyPatch) -> None:
    """Whoever takes a limit over begins with nobody holding anything."""
    patch.setattr(limits, "decode_limiter", lambda body, now: Limiter.of(()))


def over_before_it_is(patch: pytest.MonkeyPatch) -> None:
    """A claim that has no lease is said to be over, though its permit may yet be used."""

    def unleased(task: Any, name: str, claim: Any, limit_id: str) -> bool:
        run = task.runs.get(name)
        return run is None or run.lease is None or permits.over(task, name, claim, limit_id)

    patch.setattr(gate, "over", unleased)


def unacknowledged(patch: pytest.MonkeyPatch) -> None:
    """What was decided counts before its commit is acknowledged."""

    def fly(engine: Engine, cell: Cell, opened: Opened, placed: list[Placed]) -> None:
        original(engine, cell, opened, placed)
        if cell.task is not None and cell.task.graph.limited:
            engine.gate.note(cell, cell.task, opened.flight.facts)

    original = Engine._fly
    patch.setattr(Engine, "_fly", fly)


def permits_without_turns(patch: pytest.MonkeyPatch) -> None:
    """A claim is told by its node alone: one permit is as good as another."""
    granted = gate.Gate._granted

    def any_claim(owner: Any, cell: Any, task: Any, letter: Any) -> None:
        bid = cell.bids.by_node.get(letter.node) if cell.bids is not None else None
        granted(owner, cell, task, letter if bid is None else replace(letter, claim=bid.claim))

    patch.setattr(gate.Gate, "_granted", any_claim)


def nobody_is_asked(patch: pytest.MonkeyPatch) -> None:
    """A holder whose last word was lost holds its permit for ever."""
    patch.setattr(limits.Limits, "_ask", lambda *arguments: None)


def some_wants_are_lost(patch: pytest.MonkeyPatch) -> None:
    """No guard: every tenth time that somebody asks for a permit, nobody hears it."""
    ask, asked = gate.Gate._ask, count(1)

    def unheard(owner: Any, cell: Any, task: Any, bid: Any, now: float) -> None:
        to_limit = owner.to_limit
        if next(asked) % 10 == 0:
            owner.to_limit = lambda *letter: None
        ask(owner, cell, task, bid, now)
        owner.to_limit = to_limit

    patch.setattr(gate.Gate, "_ask", unheard)


def nothing_is_said_twice(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a permit asks for it once."""
    some_wants_are_lost(patch)  # storms lose few
    ask = gate.Gate._ask

    def once(owner: Any, cell: Any, task: Any, bid: Any, now: float) -> None:
        if bid.tries == 0:
            ask(owner, cell, task, bid, now)

    patch.setattr(gate.Gate, "_ask", once)


TOO_MANY = frozenset({"over_limit", "lease_without_permit"})
STUCK = frozenset({"not_ended", "permit_leaked", "play_stuck"})
GUARDS: dict[Callable[[pytest.MonkeyPatch], None], frozenset[str]] = {
    no_match_is_yes: TOO_MANY,
    nothing_outlives_its_owner: TOO_MANY,
    over_before_it_is: TOO_MANY,
    nobody_is_asked: STUCK,
    nothing_is_said_twice: STUCK,
    anybody_swaps: TOO_MANY,
    unacknowledged: TOO_MANY,
    permits_without_turns: TOO_MANY,
}
LATE = (anybody_swaps, unacknowledged, permits_without_turns)
"""Those that only some storms reveal."""
MOST_SEEDS = 60


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("remove", "kinds"),
    [
        pytest.param(guard, kinds, id=guard.__name__, marks=[pytest.mark.slow] if guard in LATE else [])
        for guard, kinds in GUARDS.items()
    ],
)
def test_a_missing_guard_of_the_limits_is_noticed(
    remove: Callable[[pytest.MonkeyPatch], None], kinds: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(monkeypatch)
    for seed in range(MOST_SEEDS):
        report = LimitedPlay(seed, "chaos", tasks=20, seconds=2.5).run()
        if kinds & {violation.kind for violation in report.violations}:
            return
    pytest.fail(f"{MOST_SEEDS} seeds, and none of {sorted(kinds)}")
