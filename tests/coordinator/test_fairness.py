"""Who is next, among tenants and within one: turns, weights, priorities that waiting raises. A round is one `serve`."""

from __future__ import annotations

from collections import Counter

import pytest

from flowkit.coordinator.cell import Cell, Flight
from flowkit.coordinator.fleet import WorkerView
from flowkit.coordinator.shares import Crowd, Weights
from flowkit.errors import ConfigError
from tests.coordinator.stand import Stand, cell_of
from tests.core.builders import node


def rounds_until(stand: Stand, cell: Cell, views: list[WorkerView], most: int = 50) -> int:
    """How many rounds it takes until a cell has its first place, if all that was placed is over before each."""
    for number in range(1, most + 1):
        for view in views:
            view.mine = 0
        if cell in stand.serve():
            return number
    raise AssertionError(f"not within {most} rounds")


def flooded(stand: Stand, tasks: int, *, tenant: str = "flood", role: str = "work", priority: int = 0) -> list[Cell]:
    """So many tasks of a tenant that wait for room. They share one state: none of them is ever done."""
    first = cell_of(f"{tenant}0", node("n0", type=role), tenant=tenant, priority=priority)
    cells = [first]
    for number in range(1, tasks):
        cell = Cell(f"{tenant}{number}", 0)
        cell.head, cell.task, cell.loading = first.head, first.task, False
        cells.append(cell)
    for cell in cells:
        assert stand.placements(cell) == []
    return cells


def begun(stand: Stand, rounds: int, views: list[WorkerView]) -> None:
    """Some rounds in which what is called takes a place and stays as it is."""
    for _ in range(rounds):
        for view in views:
            view.mine = 0
        for cell in stand.dispatcher.serve():
            stand.placements(cell)


def full(stand: Stand, slots: int, *roles: str) -> WorkerView:
    view = stand.worker("w", slots, *roles)
    view.mine = slots
    return view


# Between tenants.


@pytest.mark.parametrize(
    ("tasks", "slots", "rounds_before"), [(100_000, 1, 2), (500, 1, 0), (500, 16, 0), (500, 16, 3)]
)
def test_a_hundred_thousand_tasks_of_one_tenant_delay_anothers_by_two_rounds_at_most(
    tasks: int, slots: int, rounds_before: int
) -> None:
    stand = Stand(prefetch=0)
    view = full(stand, slots)
    flooded(stand, tasks)
    begun(stand, rounds_before, [view])
    view.mine = slots
    single = cell_of("single", tenant="other")
    assert stand.offer(single) == {}

    assert rounds_until(stand, single, [view]) <= 2


def test_a_higher_priority_of_one_tenant_does_not_hold_up_another_tenant() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    flooded(stand, 100, priority=1000)
    single = cell_of("single", tenant="other", priority=-1000)
    stand.offer(single)

    assert rounds_until(stand, single, [view]) <= 2


def test_a_tenant_whose_tasks_wait_at_many_roles_of_a_worker_delays_anothers_by_two_rounds_at_most() -> None:
    stand = Stand(prefetch=0)
    roles = [f"r{number}" for number in range(10)]
    view = full(stand, 1, *roles, "quiet")
    for role in roles:
        flooded(stand, 100, role=role)
    begun(stand, 7, [view])
    view.mine = 1
    single = cell_of("single", node("n", type="quiet"), tenant="other")
    stand.offer(single)

    assert rounds_until(stand, single, [view]) <= 2


def test_two_tenants_at_different_roles_of_a_worker_take_turns() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1, "often", "also")
    flooded(stand, 300, tenant="a", role="often")
    flooded(stand, 300, tenant="b", role="also")

    assert turns(stand, view, 200) == {"a": 100, "b": 100}


def test_what_a_tenant_gets_on_other_workers_does_not_cost_it_its_turn_on_these() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1, "shared")
    own = stand.worker("own", 1, "own")
    own.mine = 1
    flooded(stand, 200, tenant="a", role="own")
    flooded(stand, 200, tenant="a", role="shared")
    flooded(stand, 200, tenant="b", role="shared")

    got: Counter[str] = Counter()
    for _ in range(100):
        view.mine = own.mine = 0
        for cell in stand.dispatcher.serve():
            for placed in stand.placements(cell):
                got[cell.tenant] += placed.worker == "w"

    assert got == {"a": 50, "b": 50}


def turns(stand: Stand, view: WorkerView, rounds: int) -> Counter[str]:
    """How many places each tenant got in so many rounds with room for all slots of one worker."""
    got: Counter[str] = Counter()
    for _ in range(rounds):
        view.mine = 0
        for cell in stand.dispatcher.serve():
            got[cell.tenant] += len(stand.placements(cell))
    return got


def test_a_tenant_with_one_wide_task_gets_as_much_as_one_with_many_narrow_ones() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 10)
    flooded(stand, 200, tenant="many")
    wide = cell_of("wide", width=500, tenant="wide")
    stand.offer(wide)

    got: Counter[str] = Counter()
    for _ in range(10):
        view.mine = 0
        for cell in stand.dispatcher.serve():
            if cell is wide:
                got["wide"] += len(stand.offer(cell))
                cell.flight = Flight(cell, *[None] * 5)  # type: ignore[arg-type]  # one commit at a time
            else:
                got["many"] += len(stand.placements(cell))
        wide.flight = None
        stand.dispatcher.landed(wide)

    assert got["wide"] == got["many"] == 50


def test_turns_follow_the_weights_of_the_tenants() -> None:
    stand = Stand(prefetch=0, weights={"gold": 3.0, "slow": 0.5})
    view = full(stand, 1)
    for tenant in ("gold", "plain", "slow"):
        flooded(stand, 300, tenant=tenant)

    assert turns(stand, view, 180) == {"gold": 120, "plain": 40, "slow": 20}


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_is_a_number_above_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match="'blue' has"):
        Weights({"blue": weight})


# Shares of the room.


def crowd_of(**waiting: int) -> Crowd:
    crowd = Crowd(Weights({"gold": 3.0}).of)
    for tenant, number in waiting.items():
        for _ in range(number):
            crowd.enter(tenant)
    return crowd


def test_all_the_room_is_for_the_only_one_who_wants_it() -> None:
    assert crowd_of().share("a", 16, newcomer=True) == 16
    assert crowd_of(a=1).share("a", 16) == 16


def test_the_tasks_of_a_tenant_share_its_part_of_the_room() -> None:
    assert crowd_of(a=4).share("a", 16) == 4
    assert crowd_of(a=3).share("a", 16, newcomer=True) == 4
    assert crowd_of(a=4, b=1).share("a", 16) == 2
    assert crowd_of(a=4, b=1).share("b", 16) == 8
    assert crowd_of(a=1, gold=1).share("gold", 16) == 12
    assert crowd_of(a=7).share("b", 16, newcomer=True) == 8


def test_where_there_is_room_everybody_called_gets_a_place() -> None:
    assert crowd_of(a=1000).share("a", 3) == 1
    assert crowd_of(a=1000).share("a", 0) == 0
    assert crowd_of(a=1000).share("a", -5) == 0


def test_who_leaves_takes_no_share_any_more() -> None:
    crowd = crowd_of(a=2, b=1)
    crowd.leave("b")
    assert not crowd.others("a")
    crowd.leave("a")
    assert crowd.share("a", 16) == 16


# Priorities.


def order_of(stand: Stand, view: WorkerView, rounds: int) -> list[str]:
    order: list[str] = []
    for _ in range(rounds):
        view.mine = 0
        order += [cell.task_id for cell in stand.serve()]
    return order


@pytest.mark.parametrize(("waited", "order"), [(59.0, ["high", "low"]), (61.0, ["low", "high"])])
def test_a_point_of_priority_is_worth_a_minute_of_waiting(waited: float, order: list[str]) -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    stand.offer(cell_of("low"))
    stand.clock.advance(waited)
    view.heard_at = stand.clock.mono()
    stand.offer(cell_of("high", priority=1))

    assert order_of(stand, view, 2) == order


def test_how_much_waiting_a_point_is_worth_can_be_set() -> None:
    stand = Stand(prefetch=0, ageing_sec=0.0)
    view = full(stand, 1)
    stand.offer(cell_of("low"))
    stand.offer(cell_of("high", priority=1000))

    assert order_of(stand, view, 2) == ["low", "high"]


def test_a_low_priority_is_not_starved_by_a_stream_of_high_ones() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    stand.offer(cell_of("low", priority=-1))
    order: list[str] = []
    for second in range(300):  # twice as many come as can be served
        stand.offer(cell_of(f"high{second}", priority=1))
        stand.clock.advance(1.0)
        view.heard_at = stand.clock.mono()
        order += order_of(stand, view, 1) if second % 2 else []

    # Two points lie between them: whatever came in the first two minutes goes first, and nothing else.
    assert order[:121] == [*(f"high{second}" for second in range(120)), "low"]


def test_a_nodes_priority_is_added_to_its_tasks() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    for name, task, own in [("a", 2, 0), ("b", 1, 3), ("c", 5, -4)]:
        stand.offer(cell_of(name, node("n", priority=own), priority=task))

    assert order_of(stand, view, 3) == ["b", "a", "c"]


def test_of_one_task_the_node_with_the_higher_priority_goes_first() -> None:
    stand = Stand(prefetch=0)
    view = stand.worker("w", 1)
    cell = cell_of("t", node("low", priority=-1), node("plain"), node("high", priority=1))

    assert stand.offer(cell) == {"high": "w"}
    view.mine = 0
    stand.serve()
    assert cell.task is not None
    assert set(cell.task.leased) == {"high", "plain"}


def test_who_waited_under_another_coordinator_has_waited_all_the_same() -> None:
    stand = Stand(prefetch=0)
    stand.clock.advance(5000.0)
    view = full(stand, 1)
    early, late = cell_of("early"), cell_of("late")
    for cell, ready_at in ((early, 3000.0), (late, 4000.0)):
        assert cell.task is not None
        cell.task.runs["n0"].ready_at = ready_at
    stand.offer(late)
    stand.offer(early)

    assert order_of(stand, view, 2) == ["early", "late"]


# Places.


def test_who_was_called_while_its_commit_was_on_the_way_keeps_its_place() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    first, second, third = (cell_of(f"t{number}") for number in range(3))
    for cell in (first, second, third):
        stand.offer(cell)
    first.flight = Flight(first, *[None] * 5)  # type: ignore[arg-type]

    assert order_of(stand, view, 1) == ["t1"]
    first.flight = None
    stand.dispatcher.landed(first)

    assert order_of(stand, view, 2) == ["t0", "t2"]


def test_who_is_dropped_while_its_commit_is_on_the_way_waits_no_more() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 1)
    gone, other = cell_of("gone"), cell_of("other")
    for cell in (gone, other):
        stand.offer(cell)
    gone.flight = Flight(gone, *[None] * 5)  # type: ignore[arg-type]
    order_of(stand, view, 1)
    gone.dead, gone.flight = True, None
    stand.dispatcher.forget(gone)
    stand.dispatcher.landed(gone)

    assert order_of(stand, view, 2) == []
    assert stand.dispatcher.waiting_for("work") == 0


def test_who_is_called_in_vain_is_called_once_a_round_and_keeps_its_place() -> None:
    """Somebody else may hold its nodes back, though there is room."""
    stand = Stand(prefetch=0)
    view = full(stand, 2)
    held, other = cell_of("held"), cell_of("other")
    for cell in (held, other):
        stand.offer(cell)
    view.mine = 0

    called = []
    for cell in stand.dispatcher.serve():
        called.append(cell)
        if cell is other:
            stand.offer(cell)
        else:
            stand.dispatcher.wait_to_begin(cell, cell.task.graph.root_lanes)  # type: ignore[union-attr]

    assert called == [held, other]
    assert stand.dispatcher.waiting_for("work") == 1


def test_a_cell_with_nothing_ready_any_more_is_not_called() -> None:
    stand = Stand(prefetch=0)
    view = full(stand, 2)
    cell = cell_of("t")
    stand.offer(cell)
    assert cell.task is not None
    cell.task.unset_ready("n0")

    view.mine = 0
    assert list(stand.dispatcher.serve()) == []
    assert not cell.waiting
