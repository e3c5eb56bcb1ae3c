"""When each lease was last heard of, and which are overdue (rule 6)."""

from __future__ import annotations

from flowkit.coordinator.cell import Cell
from flowkit.core.decide import decide
from flowkit.core.payload import Payload
from flowkit.core.reports import Placed, Released, Report, Succeeded
from tests.coordinator.stand import ACCEPT, TTL, Stand, cell_of
from tests.core.builders import START


def leased(stand: Stand, width: int = 1, name: str = "t") -> Cell:
    """A cell whose ready nodes were placed and acknowledged."""
    cell = cell_of(name, width=width)
    stand.offer(cell)
    sync(stand, cell)
    return cell


def sync(stand: Stand, cell: Cell, *, found: bool = False) -> list[bool]:
    assert cell.task is not None
    return [stand.leases.sync(cell, name, run, found=found) for name, run in cell.task.runs.items()]


def tell(cell: Cell, *reports: Report) -> None:
    assert cell.task is not None
    decide(cell.task, reports, START)


def overdue(stand: Stand) -> dict[str, list[str]]:
    return {worker: [watch.token for watch in watches] for worker, watches in stand.leases.overdue().items()}


def test_an_acknowledged_lease_is_watched_from_then_on() -> None:
    stand = Stand()
    stand.worker("w")

    cell = leased(stand)

    watch = stand.leases.watches["k1"]
    assert (watch.node, watch.attempt, watch.worker, watch.incarnation) == ("n0", 1, "w", "i")
    assert (watch.heard, watch.named) == (stand.clock.now, False)
    assert cell.watches == {"n0": "k1"}


def test_agreeing_with_a_state_again_changes_nothing() -> None:
    stand = Stand()
    stand.worker("w")
    cell = leased(stand)
    watch = stand.leases.watches["k1"]
    stand.clock.advance(3)

    assert sync(stand, cell) == [False]

    assert stand.leases.watches["k1"] is watch
    assert watch.heard == stand.clock.now - 3


def test_a_lease_is_overdue_when_it_was_not_heard_of_for_longer_than_the_ttl() -> None:
    stand = Stand()
    stand.worker("w")
    leased(stand)
    stand.clock.advance(TTL)
    assert overdue(stand) == {}

    stand.clock.advance(0.1)

    assert overdue(stand) == {"w": ["k1"]}


def test_a_heartbeat_that_names_the_token_renews_the_lease() -> None:
    stand = Stand()
    stand.worker("w", 2)
    leased(stand, width=2)
    stand.clock.advance(TTL)

    assert stand.leases.heard("k1")
    stand.clock.advance(1)

    assert overdue(stand) == {"w": ["k2"]}
    assert stand.leases.watches["k1"].named


def test_a_token_that_nobody_watches_is_not_heard() -> None:
    assert not Stand().leases.heard("forged")


def test_overdue_leases_are_grouped_by_worker() -> None:
    stand = Stand()
    stand.worker("w", 2)
    stand.worker("x", 1)
    leased(stand, width=3)

    stand.clock.advance(TTL + 1)

    assert {worker: len(tokens) for worker, tokens in overdue(stand).items()} == {"w": 2, "x": 1}


def test_a_lease_that_is_over_is_no_longer_watched_and_gives_its_place_back() -> None:
    stand = Stand()
    view = stand.worker("w")
    cell = leased(stand)
    tell(cell, Succeeded("n0", 1, "k1", Payload(1)))
    assert view.mine == 1

    assert sync(stand, cell) == [True]

    assert stand.leases.watches == {}
    assert (cell.watches, view.mine) == ({}, 0)
    stand.clock.advance(TTL + 1)
    assert overdue(stand) == {}


def test_the_next_lease_of_a_node_replaces_the_watch() -> None:
    stand = Stand()
    view = stand.worker("w", 2)
    cell = leased(stand)
    tell(cell, Released("n0", 1, "k1"))
    stand.offer(cell)

    assert sync(stand, cell) == [True]

    assert list(stand.leases.watches) == ["k2"]
    assert stand.leases.watches["k2"].attempt == 2
    assert view.mine == 1


def test_a_lease_found_on_loading_gets_a_full_ttl_and_takes_up_room() -> None:
    stand = Stand()
    view = stand.worker("w", 2)
    view.note_held(1)
    cell = cell_of("t")
    tell(cell, Placed("n0", "found", "w", "i", 0.0))

    sync(stand, cell, found=True)

    assert (view.mine, view.others) == (1, 0)
    stand.clock.advance(TTL)
    assert overdue(stand) == {}


def test_a_lease_with_a_worker_that_nobody_knows_is_watched_all_the_same() -> None:
    stand = Stand()
    cell = cell_of("t")
    tell(cell, Placed("n0", "found", "gone", "i", 0.0))

    sync(stand, cell, found=True)
    stand.clock.advance(TTL + 1)

    assert overdue(stand) == {"gone": ["found"]}


def test_a_cell_that_is_dropped_takes_its_leases_with_it() -> None:
    stand = Stand()
    view = stand.worker("w", 3)
    cell = leased(stand, width=2)
    other = leased(stand, name="u")

    stand.leases.drop(cell)

    assert list(stand.leases.watches) == ["k3"]
    assert (cell.watches, list(other.watches)) == ({}, ["n0"])
    assert view.mine == 1


def test_a_cell_that_was_loaded_anew_keeps_its_watch_when_the_old_cell_is_dropped() -> None:
    stand = Stand()
    view = stand.worker("w")
    old = leased(stand)
    new = cell_of("t")
    tell(new, Placed("n0", "k1", "w", "i", 0.0))
    sync(stand, new, found=True)

    stand.leases.drop(old)

    assert stand.leases.watches["k1"].cell is new
    assert view.mine >= 1


# What never reached its worker.


def test_a_lease_that_its_worker_does_not_name_after_the_accept_deadline_never_reached_it() -> None:
    stand = Stand()
    stand.worker("w")
    leased(stand)  # to be accepted by 7.0 in the worker's clock

    stand.leases.all_named("w", "i", ACCEPT)
    assert stand.leases.missed() == {}, "it may still be on its way"

    stand.leases.all_named("w", "i", ACCEPT + 0.1)
    assert [watch.token for watch in stand.leases.missed()[0]] == ["k1"]


def test_what_another_life_or_another_worker_does_not_name_tells_nothing() -> None:
    stand = Stand()
    stand.worker("w")
    leased(stand)

    stand.leases.all_named("w", "another", 100.0)
    stand.leases.all_named("x", "i", 100.0)

    assert stand.leases.missed() == {}


def test_what_was_named_once_has_arrived() -> None:
    stand = Stand()
    stand.worker("w")
    leased(stand)

    stand.leases.heard("k1")
    stand.leases.all_named("w", "i", 100.0)
    assert stand.leases.missed() == {}


def test_a_sign_of_life_outweighs_a_silence() -> None:
    stand = Stand()
    stand.worker("w")
    leased(stand)

    stand.leases.all_named("w", "i", 100.0)
    stand.leases.heard("k1")

    assert stand.leases.missed() == {}


def test_progress_is_known_as_long_as_the_lease() -> None:
    stand = Stand()
    stand.worker("w")
    cell = leased(stand)

    stand.leases.heard("k1")
    assert stand.leases.progress == {}
    stand.leases.said("k1", (1.0, 2.0, "half"))
    stand.leases.said("unknown", (1.0, 2.0, "half"))
    assert stand.leases.progress == {"k1": (1.0, 2.0, "half")}

    tell(cell, Released("n0", 1, "k1"))
    sync(stand, cell)
    assert stand.leases.progress == {}
