"""Which worker: labels that it must have or had better have, and the worker that others ran on."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.fleet import WorkerView
from flowkit.core.decide import decide
from flowkit.core.payload import Payload
from flowkit.core.reports import Failed, Succeeded
from flowkit.wire.messages import Goodbye
from tests.coordinator.stand import FRESH, Stand, cell_of
from tests.core.builders import START, node

EU = {"zone": "eu", "gpu": "a100"}
US = {"zone": "us", "gpu": "t4"}


# Labels.


def test_a_node_goes_only_to_a_worker_with_all_the_labels_that_it_asks_for() -> None:
    stand = Stand(prefetch=0)
    stand.worker("none", 9)
    stand.worker("us", 9, labels=US)
    stand.worker("eu", 2, labels=EU)
    asks = {"zone": "eu", "gpu": ["h100", "a100"]}

    assert stand.offer(cell_of("t", *(node(f"n{n}", worker_labels=asks) for n in range(3)))) == {"n0": "eu", "n1": "eu"}
    assert stand.dispatcher.waiting_for("work") == 0
    assert stand.dispatcher.waiting_for("work", (("gpu", ("a100", "h100")), ("zone", ("eu",)))) == 1


def test_who_waits_for_labels_does_not_hold_up_those_who_take_any_worker() -> None:
    stand = Stand(prefetch=0)
    view = stand.worker("us", 1, labels=US)
    view.mine = 1
    asks, plain = cell_of("asks", node("n", worker_labels={"zone": "eu"})), cell_of("plain")
    for cell in (asks, plain):
        stand.offer(cell)

    view.mine = 0
    assert stand.serve() == [plain]
    stand.worker("eu", 1, labels=EU)
    assert stand.serve() == [asks]


def test_a_worker_may_get_and_lose_labels_while_it_lives() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w", 2, labels=US)
    cell = cell_of("t", node("n", worker_labels={"zone": "eu"}))
    assert stand.offer(cell) == {}

    stand.worker("w", 2, labels=EU)

    assert stand.serve() == [cell]
    stand.worker("w", 2, labels=US)
    assert stand.offer(cell_of("u", node("n", worker_labels={"zone": "eu"}))) == {}


def test_preferred_labels_decide_before_room_and_are_no_condition() -> None:
    stand = Stand(prefetch=0)
    stand.worker("large", 9)
    stand.worker("eu", 3, labels={"zone": "eu"})
    stand.worker("both", 1, labels=EU)
    cell = cell_of("t", *(node(f"n{n}", prefer_labels=EU) for n in range(6)))

    assert list(stand.offer(cell).values()) == ["both", "eu", "eu", "eu", "large", "large"]


def test_lanes_of_one_task_wait_each_for_their_own_workers() -> None:
    stand = Stand(prefetch=0)
    stand.worker("eu", 1, labels=EU)
    cell = cell_of("t", node("a", worker_labels={"zone": "eu"}), node("b", worker_labels={"zone": "asia"}), node("c"))

    assert stand.offer(cell) == {"a": "eu"}
    assert len(cell.waiting) == 2


# Stickiness.


def two_workers(stand: Stand, slots: int = 2) -> tuple[WorkerView, WorkerView]:
    return stand.worker("w1", slots), stand.worker("w2", slots)


def done(stand: Stand, cell: Cell, name: str) -> None:
    """The node's attempt succeeds, and its place is free again."""
    assert cell.task is not None
    run = cell.task.runs[name]
    assert run.lease is not None
    stand.dispatcher.give_back(run.lease.worker, run.lease.incarnation)
    decide(cell.task, [Succeeded(name, run.attempt, run.lease.token, Payload(None))], START)


def chain(*, sticky: Any) -> list[dict[str, Any]]:
    """Three nodes one after the other, and the last two follow."""
    return [node("load"), node("b", "load", sticky=sticky), node("c", "b", sticky=sticky)]


@pytest.mark.parametrize("sticky", [{"node": "load"}, {"node": "load", "patience_sec": 1}])
def test_a_node_runs_where_the_one_that_it_follows_ran_even_if_others_have_more_room(sticky: Any) -> None:
    stand = Stand(prefetch=0)
    one, other = two_workers(stand, 4)
    cell = cell_of("t", *chain(sticky=sticky))
    other.mine = 1
    assert stand.offer(cell) == {"load": "w1"}
    other.mine, one.mine = 0, 2
    done(stand, cell, "load")

    assert stand.offer(cell) == {"b": "w1"}
    done(stand, cell, "b")
    assert stand.offer(cell) == {"c": "w1"}


def test_the_sticky_nodes_of_a_task_stay_together_and_tasks_spread() -> None:
    stand = Stand(prefetch=0)
    two_workers(stand, 6)
    wide = [node(f"n{n}", sticky="task") for n in range(3)]
    cells = [cell_of(name, *wide) for name in ("t", "u")]

    assert [set(stand.offer(cell).values()) for cell in cells] == [{"w1"}, {"w2"}]


def test_a_full_worker_is_waited_for_a_while_and_then_any_other_will_do() -> None:
    stand = Stand(prefetch=0, patience_sec=5.0)
    one, other = two_workers(stand)
    cell = cell_of("t", *chain(sticky={"node": "load"}))
    stand.offer(cell)
    one.mine = 2
    done(stand, cell, "load")
    one.mine = 2
    assert stand.offer(cell) == {}

    stand.clock.advance(4.9)
    one.heard_at = other.heard_at = stand.clock.mono()
    assert stand.serve() == []
    stand.clock.advance(0.2)
    assert stand.serve() == [cell]

    assert cell.task is not None
    assert cell.task.runs["b"].lease.worker == "w2"  # type: ignore[union-attr]
    assert cell.task.ran_on == {"load": "w1"}


def test_a_node_may_have_a_patience_of_its_own() -> None:
    stand = Stand(prefetch=0, patience_sec=0.5)
    one, other = two_workers(stand)
    cell = cell_of("t", *chain(sticky={"node": "load", "patience_sec": 60}))
    stand.offer(cell)
    one.mine = 2
    done(stand, cell, "load")
    one.mine = 2
    stand.offer(cell)

    lane = cell.task.node("b").lane  # type: ignore[union-attr]
    assert stand.dispatcher.bound_to(cell, lane) == ("w1", 60.0)  # type: ignore[arg-type]
    stand.clock.advance(59.0)
    one.heard_at = other.heard_at = stand.clock.mono()
    assert stand.serve() == []
    assert stand.dispatcher.bound_to(cell, lane) == ("w1", 1.0)  # type: ignore[arg-type]
    one.mine = 1
    assert stand.serve() == [cell]
    assert cell.task is not None
    assert cell.task.runs["b"].lease.worker == "w1"  # type: ignore[union-attr]


def test_room_that_comes_in_time_is_taken_where_it_is_waited_for() -> None:
    stand = Stand(prefetch=0)
    one, other = two_workers(stand)
    cell = cell_of("t", *chain(sticky={"node": "load"}))
    stand.offer(cell)
    one.mine = 2
    done(stand, cell, "load")
    one.mine, other.mine = 2, 0
    stand.offer(cell)

    one.mine = 1
    assert stand.serve() == [cell]
    assert cell.task is not None
    assert cell.task.runs["b"].lease.worker == "w1"  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["goodbye", "silent", "draining"])
@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_nothing_waits_for_a_worker_that_is_gone(how: str, when: str) -> None:
    stand = Stand(prefetch=0, patience_sec=1e6)
    one, other = two_workers(stand)
    cell = cell_of("t", *chain(sticky={"node": "load"}))
    stand.offer(cell)
    done(stand, cell, "load")
    one.mine = 2
    if when == "while it waits":
        assert stand.offer(cell) == {}

    if how == "goodbye":
        stand.fleet.left(Goodbye("w1", "i"))
    elif how == "silent":
        stand.clock.advance(FRESH + 1)
        other.heard_at = stand.clock.mono()
    else:
        one.draining = True

    assert stand.offer(cell) == {"b": "w2"} if when == "before" else stand.serve() == [cell]
    assert cell.task is not None
    assert cell.task.runs["b"].lease.worker == "w2"  # type: ignore[union-attr]


def test_the_nodes_that_followed_a_worker_that_is_gone_gather_at_another() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w1", 9)
    cell = cell_of("t", node("load"), *(node(f"n{n}", "load", sticky={"node": "load"}) for n in range(4)))
    stand.offer(cell)
    done(stand, cell, "load")
    stand.fleet.left(Goodbye("w1", "i"))
    stand.worker("w2", 4)
    stand.worker("w3", 5)

    assert set(stand.offer(cell).values()) == {"w3"}


def test_a_stand_in_is_left_when_the_node_that_is_followed_ran_again() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w1", 1)
    retry = {"max": 5, "backoff_sec": 0}
    nodes = [
        node("load", retry_policy=retry),
        node("b", sticky={"node": "load"}),
        node("c", "b", sticky={"node": "load"}),
    ]
    cell = cell_of("t", *nodes)
    assert stand.offer(cell) == {"load": "w1"}
    stand.fleet.left(Goodbye("w1", "i"))
    stand.worker("w2", 1)
    assert stand.serve() == [cell]  # b, at the stand-in
    assert list(cell.homes.values()) == [("w1", "w2")]
    assert cell.task is not None
    run = cell.task.runs["load"]
    assert run.lease is not None
    decide(cell.task, [Failed("load", 1, run.lease.token, {"code": "x", "message": ""})], START)
    stand.worker("w3", 2)
    assert stand.offer(cell) == {"load": "w3"}
    done(stand, cell, "b")

    assert stand.offer(cell) == {"c": "w3"}


def test_a_worker_that_does_not_serve_the_role_or_lacks_a_label_is_not_followed() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w1", 5)
    stand.worker("w2", 1, "work", "other", labels=EU)
    cell = cell_of(
        "t",
        node("load"),
        node("b", "load", type="other", sticky={"node": "load"}),
        node("c", "load", worker_labels={"zone": "eu"}, sticky={"node": "load"}),
    )
    assert stand.offer(cell) == {"load": "w1"}
    done(stand, cell, "load")

    assert stand.offer(cell) == {"b": "w2"}
    done(stand, cell, "b")
    assert stand.serve() == [cell]
    assert cell.task is not None
    assert cell.task.runs["c"].lease.worker == "w2"  # type: ignore[union-attr]


def test_where_roles_have_workers_of_their_own_the_nodes_of_each_stay_together() -> None:
    stand = Stand(prefetch=0)
    for name in ("a1", "a2", "b1", "b2"):
        stand.worker(name, 2, name[0])
    nodes = [node(role, type=role, sticky="task") for role in ("a", "b")]
    nodes += [node(f"{role}{n}", role, type=role, sticky="task") for n in range(2) for role in ("a", "b")]
    cell = cell_of("t", *nodes)
    assert stand.offer(cell) == {"a": "a1", "b": "b1"}
    done(stand, cell, "a")
    done(stand, cell, "b")

    assert stand.offer(cell) == {"a0": "a1", "a1": "a1", "b0": "b1", "b1": "b1"}


def test_a_node_that_follows_one_that_never_ran_goes_anywhere() -> None:
    stand = Stand(prefetch=0)
    stand.worker("w1", 1)

    assert stand.offer(cell_of("t", node("a", sticky={"node": "b"}), node("b", "a"))) == {"a": "w1"}


def test_who_waits_for_one_worker_takes_its_turn_with_those_who_wait_for_any() -> None:
    stand = Stand(prefetch=0, patience_sec=100.0)
    one = stand.worker("w1", 1)
    cell = cell_of("t", *chain(sticky={"node": "load"}), tenant="sticky")
    stand.offer(cell)
    flood = [cell_of(f"f{n}", tenant="flood") for n in range(20)]
    for each in flood:
        stand.offer(each)
    done(stand, cell, "load")
    one.mine = 1
    stand.offer(cell)

    order = []
    for _ in range(4):
        one.mine = 0
        order += [each.tenant for each in stand.serve()]

    assert order[:3].count("sticky") == 1


def test_patience_that_never_ends_is_not_remembered_for_ever() -> None:
    stand = Stand(prefetch=0, patience_sec=1e6)
    one = stand.worker("w1", 1)
    one.mine = 1
    cell = cell_of("t", node("a", sticky={"node": "b"}), node("b"))
    assert cell.task is not None
    cell.task.ran_on = {"b": "w1"}
    for _ in range(1000):
        stand.offer(cell)
        stand.dispatcher.forget(cell)

    assert len(stand.dispatcher._waiting._patience) < 200
