"""Whose turn it is: tenants in turn by weight, each one's own by key; nobody is forgotten, nor looked at twice."""

from __future__ import annotations

import gc
import math
import weakref
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flowkit.coordinator.fair_queue import FairQueue, Place

WEIGHTS = {"a": 1.0, "b": 1.0, "c": 3.0, "d": 0.25}
MOST_COST = 3


def queue_of(**waiting: int) -> FairQueue[str]:
    """A queue in which each tenant has so many items waiting, named `a0`, `a1`, in order."""
    queue: FairQueue[str] = FairQueue(lambda tenant: WEIGHTS.get(tenant, 1.0))
    order = count()
    for tenant, number in waiting.items():
        for n in range(number):
            queue.push(tenant, (0.0, next(order)), f"{tenant}{n}")
    return queue


def take(queue: FairQueue[str], cost: int = 1) -> str:
    """Serve whose turn it is, with one unit."""
    head = queue.head()
    assert head is not None
    item = head.item
    queue.remove(head)
    queue.charge(head.tenant, cost)
    return item


def take_all(queue: FairQueue[str]) -> list[str]:
    return [take(queue) for _ in range(len(queue))]


# One tenant.


def test_of_one_tenant_the_least_key_comes_first() -> None:
    queue: FairQueue[str] = FairQueue(lambda tenant: 1.0)
    for key, item in [((2.0, 0), "late"), ((1.0, 2), "second"), ((1.0, 1), "first")]:
        queue.push("a", key, item)

    assert take_all(queue) == ["first", "second", "late"]
    assert queue.head() is None


def test_who_gave_its_place_up_is_not_served_and_not_counted() -> None:
    queue: FairQueue[str] = FairQueue(lambda tenant: 1.0)
    places = [queue.push("a", (0.0, n), str(n)) for n in range(3)]

    queue.remove(places[0])
    queue.remove(places[0])

    assert len(queue) == 2
    assert sorted(place.item for place in queue) == ["1", "2"]
    assert take_all(queue) == ["1", "2"]


def test_who_comes_back_has_its_old_place() -> None:
    queue: FairQueue[str] = FairQueue(lambda tenant: 1.0)
    places = [queue.push("a", (0.0, n), str(n)) for n in range(3)]

    for place in places[:2]:
        item = place.item
        queue.remove(place)
        queue.push("a", place.key, item)

    assert take_all(queue) == ["0", "1", "2"]


def test_a_place_that_was_given_up_lets_its_item_go_at_once() -> None:
    class Item:
        pass

    queue: FairQueue[Item] = FairQueue(lambda tenant: 1.0)
    gc.disable()  # it would find cycles
    try:
        for others in (0, 1):
            for number in range(others):
                queue.push("a", (0.0, number), Item())
            item = Item()
            watched, place = weakref.ref(item), queue.push("a", (1.0, others), item)
            del item
            queue.remove(place)
            assert watched() is None
        line = weakref.ref(place)
        queue.remove(next(iter(queue)))
        assert queue.head() is None  # the tenant's line goes with its last place
        del place
        assert line() is None
    finally:
        gc.enable()


def test_places_that_were_given_up_do_not_pile_up() -> None:
    queue: FairQueue[int] = FairQueue(lambda tenant: 1.0)
    queue.push("a", (-1.0, 0), 0)  # the head: nobody looks further
    given_up = []
    for n in range(1000):
        place = queue.push("a", (0.0, n), n)
        given_up.append(weakref.ref(place))
        queue.remove(place)
        del place
    gc.collect()

    assert sum(one() is not None for one in given_up) < 100


# Several tenants.


def test_tenants_take_turns_however_much_each_has_waiting() -> None:
    assert "".join(item[0] for item in take_all(queue_of(a=6, b=3))) == "abababaaa"


def test_turns_follow_the_weights() -> None:
    queue = queue_of(a=1000, c=1000, d=1000)

    served = Counter(take(queue)[0] for _ in range(425))

    assert served == {"a": 100, "c": 300, "d": 25}


def test_what_a_turn_cost_counts_too() -> None:
    queue = queue_of(a=1000, b=1000)

    got: Counter[str] = Counter()
    for _ in range(300):
        cost = 5 if queue.head().item.startswith("a") else 1  # type: ignore[union-attr]
        got[take(queue, cost)[0]] += cost

    assert abs(got["a"] - got["b"]) <= 5


def test_who_comes_late_is_next_and_then_takes_turns_like_the_others() -> None:
    queue = queue_of(a=1000)
    for _ in range(500):
        take(queue)
    for n in range(1000):
        queue.push("b", (0.0, n), f"b{n}")

    assert "".join(take(queue)[0] for _ in range(6)) == "bababa"


def test_nobody_saves_up_turns_by_not_waiting() -> None:
    queue = queue_of(a=1000, b=1)
    take(queue), take(queue)
    for _ in range(500):
        take(queue)
    for n in range(1000):
        queue.push("b", (0.0, n), f"b{n}")

    assert Counter(take(queue)[0] for _ in range(100)) == {"a": 50, "b": 50}


def test_nobody_gains_by_coming_back_again_and_again() -> None:
    queue = queue_of(a=1000)
    got: Counter[str] = Counter()
    for n in range(300):
        if n % 2 == 0:
            queue.push("b", (0.0, n), "b")  # one at a time, gone when it is served
        got[take(queue)[0]] += 1

    assert abs(got["a"] - got["b"]) <= 2


def test_what_a_tenant_got_elsewhere_delays_its_turn_here() -> None:
    queue = queue_of(a=100, b=100)

    queue.charge("a", 10)

    assert "".join(take(queue)[0] for _ in range(13)) == "b" * 10 + "aba"


def test_what_a_tenant_got_before_it_waited_here_counts_as_well() -> None:
    queue = queue_of(a=100)
    queue.charge("b", 3)
    queue.push("b", (0.0, 1000), "b0")

    assert "".join(take(queue)[0] for _ in range(5)) == "aaaba"


def test_what_others_got_elsewhere_never_puts_one_who_waits_behind_those_who_come_later() -> None:
    queue = queue_of(a=100)
    queue.charge("b", 1000)
    queue.push("c", (0.0, 1000), "c0")

    assert "c0" in [take(queue) for _ in range(2)]
    assert queue.lag <= 1.0


def test_the_lag_is_how_far_the_next_turn_lies_ahead() -> None:
    queue = queue_of(a=2, b=1)
    assert queue.lag == 0.0
    take(queue), take(queue)

    assert queue.lag == 1.0
    take(queue)
    assert queue.lag == 0.0


def test_a_tenant_that_is_gone_is_forgotten_once_its_time_has_come() -> None:
    queue = queue_of(a=100)
    for wave in range(20):
        for n in range(100):
            queue.push(f"t{wave}.{n}", (0.0, n), "once")
        for _ in range(102):
            take(queue)

    assert len(queue._ahead) + len(queue._lines) < 400


@pytest.mark.parametrize("tenants", [1, 1000])
def test_a_turn_costs_no_more_than_the_logarithm_of_those_who_wait(tenants: int) -> None:
    """Comparisons of keys, counted: with 64 times as many waiting, a turn may cost six more per heap, not 64 times."""
    costs = []
    for waiting in (1_000, 64_000):
        queue: FairQueue[int] = FairQueue(lambda tenant: 1.0)
        for n in range(waiting):
            queue.push(f"t{n % tenants}", (_Counted(n * 7919 % waiting), n), n)
        _Counted.compared = 0
        for n in range(500):
            head = queue.head()
            assert head is not None
            queue.remove(head)
            queue.charge(head.tenant, 1)
            queue.push(head.tenant, (_Counted(waiting + n), waiting + n), n)
        costs.append(_Counted.compared / 500)

    assert costs[1] <= costs[0] + 8 * math.log2(64)


class _Counted(float):
    compared = 0

    def __lt__(self, other: float) -> bool:
        _Counted.compared += 1
        return float(self) < float(other)

    def __eq__(self, other: object) -> bool:
        _Counted.compared += 1
        return float(self) == other

    __hash__ = float.__hash__


# Whatever happens.


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from("abcd"), min_size=2), st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_while_all_wait_nobody_gets_more_than_a_turn_ahead_of_its_weight(waiting: set[str], costs: list[int]) -> None:
    queue = queue_of(**dict.fromkeys(sorted(waiting), 300))
    most = max(costs)
    got: Counter[str] = Counter()
    for n in range(250):
        cost = costs[n % len(costs)]
        got[take(queue, cost)[0]] += cost

    for one in waiting:
        for other in waiting:
            apart = got[one] / WEIGHTS[one] - got[other] / WEIGHTS[other]
            assert abs(apart) <= most / WEIGHTS[one] + most / WEIGHTS[other] + 1e-9


class Waiting(RuleBasedStateMachine):
    """Items come, are served, give up, and get things elsewhere, against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(WEIGHTS.__getitem__)
        self.places: dict[int, Place[int]] = {}
        self.order = count()
        # What the others got since a tenant that still waits had its last turn.
        self.passed: dict[str, Counter[str]] = {}

    @rule(tenant=st.sampled_from("abcd"), since=st.integers(0, 5))
    def come(self, tenant: str, since: int) -> None:
        number = next(self.order)
        self.places[number] = self.queue.push(tenant, (float(since), number), number)

    @precondition(lambda self: self.places)
    @rule(cost=st.integers(1, MOST_COST))
    def serve(self, cost: int) -> None:
        head = self.queue.head()
        assert head is not None
        own = self.waiting(head.tenant)
        assert head.key == min(place.key for place in own)
        self.leave(head.item)
        self.queue.charge(head.tenant, cost)
        for passed in self.passed.values():
            passed[head.tenant] += cost
        if self.waiting(head.tenant):
            self.passed[head.tenant] = Counter()

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(sorted(self.places))))

    @rule(tenant=st.sampled_from("abcd"), cost=st.integers(1, MOST_COST))
    def get_elsewhere(self, tenant: str, cost: int) -> None:
        self.queue.charge(tenant, cost)
        self.passed.pop(tenant, None)  # its turn is moved on by what it got

    def leave(self, number: int) -> None:
        place = self.places.pop(number)
        self.queue.remove(place)
        if not self.waiting(place.tenant):
            self.passed.pop(place.tenant, None)

    def waiting(self, tenant: str) -> list[Place[int]]:
        return [place for place in self.places.values() if place.tenant == tenant]

    @invariant()
    def nobody_is_passed_by_more_than_a_turn(self) -> None:
        for tenant, passed in self.passed.items():
            if self.waiting(tenant):
                for other, got in passed.items():
                    assert got <= WEIGHTS[other] * MOST_COST / WEIGHTS[tenant] + MOST_COST

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.queue) == len(self.places)
        assert sorted(place.item for place in self.queue) == sorted(self.places)
        assert (self.queue.head() is None) == (not self.places)
        assert self.queue.lag >= 0.0

    def teardown(self) -> None:
        """From now on nobody comes: all are served, each once."""
        served = []
        while (head := self.queue.head()) is not None:
            served.append(head.item)
            self.queue.remove(head)
            self.queue.charge(head.tenant, 1)
        assert sorted(served) == sorted(self.places)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1.0, 2.0, 0.5]))
def test_one_item_waits_for_no_more_than_a_turn_of_each_of_the_others(others: int, weight: float) -> None:
    queue: FairQueue[str] = FairQueue(lambda tenant: weight)
    for n in range(200 * others):
        queue.push(f"t{n % others}", (0.0, n), "flood")
    for _ in range(50):
        take(queue)

    queue.push("late", (99.0, 10_000), "late")

    assert "late" in [take(queue) for _ in range(others + 1)]
