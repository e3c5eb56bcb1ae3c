"""Who runs what, where and when: room, prefetch, fairness, priority."""

from __future__ import annotations

import pytest

from flowkit.core.decide import decide
from flowkit.core.lane import plain
from flowkit.core.model import Task
from flowkit.core.reports import Expired, Requested
from tests.coordinator.stand import ACCEPT, FRESH, Stand, cell_of
from tests.core.builders import START, node


def ask(task: Task | None, kind: str) -> None:
    assert task is not None
    decide(task, [Requested(task.applied + 1, "x", kind)], START)


# Placing.


def test_a_ready_node_goes_to_a_worker_of_its_role() -> None:
    stand = Stand()
    stand.worker("w")

    (placed,) = stand.placements(cell_of("t"))

    assert (placed.node, placed.worker, placed.incarnation, placed.token) == ("n0", "w", "i", "k1")


def test_nobody_serves_a_role_that_no_worker_has() -> None:
    stand = Stand()
    stand.worker("w", 1, "other")

    assert stand.offer(cell_of("t")) == {}
    assert stand.dispatcher.waiting_for("work") == 1
    assert not stand.dispatcher.serves("work")
    assert stand.dispatcher.serves("other")
    assert stand.dispatcher.roles == {"other"}


def test_a_worker_is_given_no_more_than_its_slots() -> None:
    stand = Stand()
    stand.worker("w", 2)

    assert stand.offer(cell_of("t", width=3)) == {"n0": "w", "n1": "w"}


def test_the_worker_with_the_most_room_is_chosen() -> None:
    stand = Stand()
    stand.worker("small", 1)
    stand.worker("large", 3)

    assert list(stand.offer(cell_of("t", width=4)).values()) == ["large", "large", "small", "large"]


def test_what_others_placed_with_a_worker_takes_up_its_room() -> None:
    stand = Stand()
    stand.worker("w", 3).note_held(2)

    assert len(stand.offer(cell_of("t", width=3))) == 1


@pytest.mark.parametrize("gone", ["silent", "draining"])
def test_a_worker_that_is_going_is_given_nothing(gone: str) -> None:
    stand = Stand()
    stand.worker("w", draining=gone == "draining")
    stand.clock.advance(FRESH + 1 if gone == "silent" else 0)

    assert stand.offer(cell_of("t")) == {}


@pytest.mark.parametrize("kind", ["pause", "cancel"])
def test_nothing_is_placed_for_a_task_that_does_not_run(kind: str) -> None:
    stand = Stand()
    stand.worker("w")
    cell = cell_of("t")
    ask(cell.task, kind)

    assert stand.offer(cell) == {}
    assert stand.dispatcher.waiting_for("work") == 0


def test_nothing_is_placed_for_a_task_that_is_loading() -> None:
    stand = Stand()
    stand.worker("w")
    cell = cell_of("t")
    cell.task = None

    assert stand.placements(cell) == []


def test_the_accept_deadline_is_in_the_workers_own_clock() -> None:
    stand = Stand()
    stand.worker("w", mono=5000.0)
    stand.clock.advance(2)

    (placed,) = stand.placements(cell_of("t"))

    assert placed.accept_by == 5002.0 + ACCEPT


def test_every_placement_has_its_own_token() -> None:
    stand = Stand()
    stand.worker("w", 5)

    tokens = [placed.token for placed in stand.placements(cell_of("t", width=5))]

    assert len(set(tokens)) == 5


def test_roles_are_placed_side_by_side() -> None:
    stand = Stand()
    stand.worker("w", 1, "a")
    stand.worker("x", 1, "b")
    cell = cell_of("t", node("p", type="a"), node("q", type="b"), node("r", type="c"))

    assert stand.offer(cell) == {"p": "w", "q": "x"}
    assert cell.waiting.keys() == {"c"}


# Room comes back.


def test_an_attempt_that_is_over_gives_its_place_back() -> None:
    stand = Stand()
    stand.worker("w")
    stand.offer(cell_of("t"))
    other = cell_of("u")
    assert stand.offer(other) == {}

    stand.dispatcher.give_back("w", "i")

    assert stand.serve() == [other]


def test_a_place_with_an_earlier_incarnation_is_not_given_back_to_the_new_one() -> None:
    stand = Stand()
    stand.worker("w", incarnation="new")
    stand.offer(cell_of("t"))

    stand.dispatcher.give_back("w", "old")
    stand.dispatcher.give_back("nobody", "i")

    assert stand.offer(cell_of("u")) == {}


def test_no_more_places_are_given_back_than_were_taken() -> None:
    stand = Stand()
    view = stand.worker("w")

    stand.dispatcher.give_back("w", "i")

    assert view.mine == 0


def test_a_lease_found_on_loading_takes_up_room_and_is_no_longer_anothers() -> None:
    stand = Stand()
    view = stand.worker("w", 2)
    view.note_held(2)

    stand.dispatcher.take("w", "i")
    stand.dispatcher.take("w", "old")

    assert (view.mine, view.others) == (1, 1)


# Prefetch.


def test_nothing_is_fetched_ahead_for_a_role_that_nobody_has_seen_run() -> None:
    stand = Stand()
    stand.worker("w", 2)

    assert len(stand.offer(cell_of("t", width=9))) == 2


def test_short_nodes_are_fetched_ahead_up_to_the_prefetch() -> None:
    stand = Stand(prefetch=4)
    stand.worker("w", 2)
    stand.dispatcher.observe("work", 0.0)

    assert len(stand.offer(cell_of("t", width=9))) == 6


def test_long_nodes_are_not_fetched_ahead() -> None:
    stand = Stand(prefetch=4)
    stand.worker("w", 2)
    stand.dispatcher.observe("work", 1.0)

    assert len(stand.offer(cell_of("t", width=9))) == 2


def test_a_task_that_has_nothing_with_any_worker_squeezes_in_beyond_the_prefetch() -> None:
    stand = Stand(prefetch=8)
    view = stand.worker("w", 2)
    stand.dispatcher.observe("work", 0.001)
    assert len(stand.offer(cell_of("wide", width=100))) == 10

    narrow = cell_of("narrow", width=3)
    assert stand.offer(narrow) == {"n0": "w"}
    assert stand.offer(narrow) == {}  # it waits for its others
    assert stand.offer(cell_of("second")) == {"n0": "w"}
    assert stand.offer(cell_of("third")) == {}  # as many as the worker has slots
    assert view.mine == 12


def test_a_task_does_not_squeeze_in_where_nodes_are_long() -> None:
    stand = Stand(prefetch=8)
    stand.worker("w", 2)
    stand.dispatcher.observe("work", 1.0)
    stand.offer(cell_of("wide", width=100))

    assert stand.offer(cell_of("narrow")) == {}
    assert stand.dispatcher.waiting_for("work") == 2


def test_the_mean_run_time_follows_what_is_seen() -> None:
    stand = Stand(prefetch=4)
    stand.worker("w", 2)
    stand.dispatcher.observe("work", 1.0)

    for _ in range(100):
        stand.dispatcher.observe("work", 0.001)

    assert len(stand.offer(cell_of("t", width=9))) == 6


# Waiting.


def test_a_task_waits_once_per_role() -> None:
    stand = Stand()
    cell = cell_of("t", width=3)

    stand.offer(cell)
    stand.offer(cell)

    assert stand.dispatcher.waiting_for("work") == 1


def test_nobody_is_served_while_there_is_no_room() -> None:
    stand = Stand()
    stand.offer(cell_of("t"))

    assert stand.serve() == []
    assert stand.dispatcher.waiting_for("work") == 1


def test_waiting_tasks_are_served_oldest_first_and_no_more_than_there_is_room_for() -> None:
    stand = Stand()
    cells = [cell_of(f"t{n}") for n in range(3)]
    for cell in cells:
        stand.offer(cell)

    stand.worker("w", 2)

    assert stand.serve() == cells[:2]
    assert stand.dispatcher.waiting_for("work") == 1
    assert cells[0].waiting.keys() == set()
    assert cells[2].waiting.keys() == {"work"}


def test_a_higher_priority_is_served_first() -> None:
    stand = Stand()
    low, high = cell_of("low"), cell_of("high", priority=5)
    stand.offer(low)
    stand.offer(high)

    stand.worker("w", 1)

    assert stand.serve() == [high]


def test_a_dead_cell_is_not_served() -> None:
    stand = Stand()
    cell, other = cell_of("t"), cell_of("u")
    stand.offer(cell)
    stand.offer(other)
    cell.dead = True
    stand.dispatcher.forget(cell)

    stand.worker("w", 1)

    assert stand.serve() == [other]


def test_dead_cells_take_no_share_of_the_room() -> None:
    stand = Stand(prefetch=0)
    dead = [cell_of(f"dead{n}") for n in range(9)]
    living = [cell_of("one", width=50), cell_of("two", width=50)]
    for cell in (*dead, living[0]):
        stand.offer(cell)
    for cell in dead:
        cell.dead = True
        stand.dispatcher.forget(cell)
    assert stand.dispatcher.waiting_for("work") == 1

    stand.worker("w", 10)
    assert len(stand.offer(living[1])) == 5  # half of the room, not a tenth: only one other waits
    assert stand.serve()[:2] == living  # the rest, in turn
    assert sum(len(cell.task.leased) for cell in living if cell.task is not None) == 10
    assert stand.dispatcher.waiting_for("work") == 2


def test_a_wide_task_does_not_shut_others_out() -> None:
    stand = Stand()
    wide, others = cell_of("wide", width=100), [cell_of("one"), cell_of("two")]
    for cell in (wide, *others):
        stand.offer(cell)
    stand.worker("w", 9)

    stand.serve()

    assert all(not cell.task.ready for cell in others if cell.task is not None)
    assert wide.task is not None
    assert len(wide.task.leased) == 7
    assert stand.dispatcher.waiting_for("work") == 1


def test_there_is_room_if_any_role_has_some() -> None:
    stand = Stand()
    stand.worker("w", 1, "a")

    assert stand.dispatcher.has_room([plain("b"), plain("a")])
    assert not stand.dispatcher.has_room([plain("b")])
    assert not stand.dispatcher.has_room([])


def test_a_wide_task_does_not_shut_out_another_role_of_the_same_worker() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w", 4, "wide", "narrow")
    wide = cell_of("wide", *(node(f"n{n}", type="wide") for n in range(100)))
    narrow = cell_of("narrow", node("n", type="narrow"))
    assert len(stand.offer(wide)) == 4
    assert stand.offer(narrow) == {}

    for _ in range(2):
        stand.dispatcher.give_back("w", "i")

    assert narrow in stand.serve()


def test_who_was_called_for_room_that_another_role_took_keeps_its_turn() -> None:
    """A rare role beside a frequent one, on the same worker: it must not go to the end whenever it is too late."""
    stand = Stand(prefetch=0)
    view = stand.worker("w", 1, "often", "rare")
    view.note_held(1)
    often = [cell_of(f"often{n}", node("n", type="often")) for n in range(6)]
    rare = cell_of("rare", node("n", type="rare"))
    for cell in (*often[:2], rare, *often[2:]):
        stand.offer(cell)

    order = []
    for _ in range(7):
        view.note_held(0)  # room for one
        order += stand.serve()
        view.mine = 0
        view.note_held(1)

    assert order == [*often[:2], rare, *often[2:]]


def test_a_wide_task_that_took_its_share_waits_behind_the_others_again() -> None:
    stand = Stand(prefetch=0)
    wide, other = cell_of("wide", width=9), cell_of("other", width=9)
    for cell in (wide, other):
        stand.offer(cell)
    view = stand.worker("w", 1)

    order = []
    for _ in range(4):
        order += stand.serve()
        view.mine = 0

    assert order == [wide, other, wide, other]


def test_a_node_whose_worker_died_does_not_queue_behind_newcomers() -> None:
    stand = Stand(prefetch=0)
    view = stand.worker("w", 2)
    victim, fellow = cell_of("victim"), cell_of("fellow")
    for cell in (victim, fellow):
        assert stand.offer(cell)
    newcomers = [cell_of(f"new{n}") for n in range(5)]
    for cell in newcomers:
        stand.offer(cell)
    for cell in (victim, fellow):
        assert cell.task is not None
        run = cell.task.runs["n0"]
        assert run.lease is not None
        decide(cell.task, [Expired("n0", 1, run.lease.token)], START)
        stand.offer(cell)

    order = []
    for _ in range(7):
        view.mine = 1  # room for one
        order += stand.serve()

    assert order == [victim, fellow, *newcomers]
