"""The checks have teeth: with a guard taken out of the real code, promises are broken, and that is noticed."""

from __future__ import annotations

import pytest

from flowkit.testing.guards import GUARDS, LOOKED_FOR
from flowkit.testing.runner import Tally, describe, run_in_processes, run_seeds

# What shows within a few seeds, and how.
PLAIN = {
    "unique": "commit_lost",
    "unknown_no_yes": "phantom_event",
    "duplicate_no_yes": "phantom_event",
    "publish_after": "start_without_commit",
    "dedupe": "token_ran_twice",
    "resend": "not_ended",
    "full_ttl": "overlap",
    "republish": "event_missed",
    "evict_head": "head_open",
    "attempts_grow": "bad_lease",
}
# As the code stands, others do the same work, or it shows in fewer than one seed of hundreds.
UNSEEN = {
    "no_redispatch": "a worker knows its tokens, and a new incarnation refuses what was sent to the old one",
    "let_go": "owners may overlap: the unique key and the tokens make that waste, never harm",
    "sweep_unpublished": "whoever takes a partition over loads every active head and publishes what is left",
    "generation": "a restart forgets all timers, and each is checked against the state when it fires",
    "head_confirm": "needs a write that is slow, asked again, and then rolled back (0.3 % of directed seeds)",
    "exp_queue": "what was read is decided before the expiry's own read has come back",
    "heard_in_flight": "a commit is never out for as long as a TTL",
}


def without(name: str, first: int, last: int) -> Tally:
    guard = GUARDS[name]
    return run_in_processes(first, last, guard.mode, without=[name], directed=guard.directed, jobs=2)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "kind"), PLAIN.items())
def test_a_missing_guard_shows_at_once(name: str, kind: str) -> None:
    for first in range(0, 40, 4):
        if kind in run_seeds(range(first, first + 4), GUARDS[name].mode, without=[name]).bad:
            return
    pytest.fail(f"40 seeds without {name!r}, and no {kind}")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GUARDS.keys() - UNSEEN.keys()))
def test_every_missing_guard_is_noticed(name: str) -> None:
    for first in range(0, 3000, 200):
        if without(name, first, first + 200).bad:
            return
    pytest.fail(f"3,000 seeds without {name!r}, and nobody noticed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", sorted({fault for faults in LOOKED_FOR.values() for fault in faults}))
def test_with_all_guards_a_directed_fault_breaks_nothing(fault: str) -> None:
    mode = "calm" if fault == "lost_stops" else "chaos"

    tally = run_in_processes(0, 20, mode, directed=[fault], jobs=2)

    assert not tally.bad, "\n" + describe(tally)
    assert tally.counts[f"D_{fault}"] > 0 or fault in ("stale_loads", "late_heads", "late_work", "lost_stops")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["chaos", "calm", "outage", "ccrash"])
def test_thousands_of_seeds(mode: str) -> None:
    tally = run_in_processes(1000, 6000 if mode == "chaos" else 2000, mode)

    assert not tally.bad, "\n" + describe(tally)
