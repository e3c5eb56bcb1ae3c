"""Who gets a limit's permits, and when: by value, and against a road that loses, doubles and reorders."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.core.limiter import MOST_HOLDERS, SLACK_SEC, Holder, Limiter, Want, Who
from flowkit.core.permits import PermitWanted
from tests.thorough import at_night

NOW = 1_700_000_000.0
MONO = 5_000.0
AGEING = 60.0


def want(task: str, node: str = "n", *, tenant: str = "t", most: int | None = 3, weight: int = 1, priority: int = 0,
         rate: float = 0.0, per_sec: float = 1.0, burst: int = 1, attempt: int = 1,
         since: float = MONO) -> Want:  # fmt: skip
    said = PermitWanted(task, 0, node, (0, attempt, 0), most, weight, rate, per_sec, burst, priority)
    return Want(tenant, said, since, priority * AGEING)


def limiter(*wants: Want) -> Limiter:
    limit = Limiter.of(())
    for one in wants:
        assert limit.want(one)
    return limit


def tasks(granted: list[Want]) -> list[str]:
    return [one.said.task_id for one in granted]


class TestHolding:
    def test_no_more_than_max_are_granted(self) -> None:
        limit = limiter(*(want(f"t{n}") for n in range(5)))
        assert tasks(limit.grant(NOW, MONO)) == ["t0", "t1", "t2"]
        assert limit.grant(NOW, MONO) == []
        assert limit.held == 3

    def test_a_permit_that_is_free_again_goes_to_the_next(self) -> None:
        limit = limiter(*(want(f"t{n}") for n in range(5)))
        first, *_ = limit.grant(NOW, MONO)
        assert limit.release(first.who)
        assert tasks(limit.grant(NOW, MONO)) == ["t3"]

    def test_who_holds_a_permit_and_asks_again_holds_one(self) -> None:
        limit = limiter(want("a"))
        limit.grant(NOW, MONO)
        assert not limit.want(want("a"))
        assert limit.grant(NOW, MONO) == []
        assert limit.held == 1

    def test_the_next_attempt_is_another_holder(self) -> None:
        limit = limiter(want("a"))
        limit.grant(NOW, MONO)
        assert limit.want(want("a", attempt=2))
        assert len(limit.grant(NOW, MONO)) == 1

    def test_a_release_of_what_nobody_holds_changes_nothing(self) -> None:
        limit = limiter(want("a"))
        limit.grant(NOW, MONO)
        assert not limit.release(want("b").who)
        assert limit.release(want("a").who)
        assert not limit.release(want("a").who)
        assert limit.held == 0

    def test_who_is_over_before_its_turn_leaves_the_line(self) -> None:
        limit = limiter(want("a", most=1), want("b", most=1), want("c", most=1))
        first = limit.grant(NOW, MONO)
        assert not limit.release(want("b").who)
        limit.release(first[0].who)
        assert tasks(limit.grant(NOW, MONO)) == ["c"]

    def test_the_heavy_one_is_waited_for(self) -> None:
        limit = limiter(want("a"), want("b"), want("heavy", weight=3), want("light"))
        a, b = limit.grant(NOW, MONO)
        limit.release(a.who)
        assert limit.grant(NOW, MONO) == []  # two are free, but it is not the light one's turn
        limit.release(b.who)
        assert tasks(limit.grant(NOW, MONO)) == ["heavy"]

    def test_each_keeps_to_its_own_max(self) -> None:
        limit = limiter(want("a", most=2), want("b", most=2))
        assert len(limit.grant(NOW, MONO)) == 2
        assert limit.want(want("narrow", most=2))
        assert limit.want(want("wide", most=5))
        assert limit.grant(NOW, MONO) == []
        limit.release(want("a").who)
        assert tasks(limit.grant(NOW, MONO)) == ["narrow", "wide"]

    def test_there_is_an_end_to_how_many_hold(self) -> None:
        limit = limiter(*(want(f"t{n}", most=1_000_000) for n in range(MOST_HOLDERS + 5)))
        assert len(limit.grant(NOW, MONO)) == MOST_HOLDERS
        assert limit.wake_at(NOW) is None

    def test_who_held_before_a_takeover_holds_after_it(self) -> None:
        limit = Limiter.of([Holder(want("a").who, 0, "t", 2)])
        assert limit.held == 2
        limit.want(want("b"))
        limit.want(want("c"))
        assert tasks(limit.grant(NOW, MONO)) == ["b"]


class TestTurns:
    def test_tenants_take_turns(self) -> None:
        crowd = [want(f"a{n}", tenant="a", most=1) for n in range(4)]
        assert order(limiter(*crowd, want("b0", tenant="b", most=1), want("c0", tenant="c", most=1))) == [
            "a0", "b0", "c0", "a1", "a2", "a3",
        ]  # fmt: skip

    def test_tasks_of_a_tenant_take_turns(self) -> None:
        wide = [want("wide", f"n{n}", most=1) for n in range(3)]
        assert order(limiter(*wide, want("x", most=1), want("y", most=1))) == ["wide", "x", "y", "wide", "wide"]

    def test_the_higher_priority_goes_first(self) -> None:
        limit = limiter(want("low", most=1), want("high", most=1, priority=5), want("lowest", most=1, priority=-1))
        assert order(limit) == ["high", "low", "lowest"]

    def test_priorities_are_those_of_one_tenant(self) -> None:
        loud = [want(f"loud{n}", tenant="loud", most=1, priority=1000) for n in range(3)]
        assert order(limiter(*loud, want("low", tenant="t", most=1, priority=-9)))[:2] == ["loud0", "low"]

    def test_a_minute_of_waiting_is_worth_a_point(self) -> None:
        old = want("old", most=1, since=MONO - 5 * AGEING - 1)
        young = want("young", most=1, since=MONO - 5 * AGEING + 1)
        assert order(limiter(young, want("high", most=1, priority=5), old)) == ["old", "high", "young"]

    @pytest.mark.parametrize("points", [1, 5, 10])
    def test_a_low_one_is_overtaken_for_as_long_as_the_points_are_worth_and_no_longer(self, points: int) -> None:
        """One permit, taken for a second each; every second somebody higher comes, so there is no end to them."""
        limit, second = limiter(want("low", most=1, since=0.0)), 0
        while True:
            limit.want(want(f"high{second}", most=1, priority=points, since=float(second)))
            [served] = limit.grant(NOW + second, float(second))
            limit.release(served.who)
            if served.said.task_id == "low":
                break
            second += 1
        assert second == points * AGEING

    def test_who_had_its_turn_waits_anew_whatever_its_other_claims_have_waited(self) -> None:
        wide = [want("wide", f"n{n}", most=1, since=MONO - 1000) for n in range(3)]
        limit = limiter(*wide, want("x", most=1, since=MONO - 500))
        assert order(limit) == ["wide", "x", "wide", "wide"]

    def test_a_takeover_keeps_the_order_whoever_is_heard_first(self) -> None:
        """Wants are not recorded: each is said again, with how long it has waited."""
        wants = [want("a", "n1", since=MONO - 50), want("b", since=MONO - 70), want("a", "n0", since=MONO - 90),
                 want("c", priority=1, since=MONO - 40)]  # fmt: skip
        served = [one.who[:2] for one in drain(limiter(*wants))]
        assert served == [("c", "n"), ("a", "n0"), ("b", "n"), ("a", "n1")]
        for turn in range(1, 4):
            assert [one.who[:2] for one in drain(limiter(*wants[turn:], *wants[:turn]))] == served

    def test_asking_again_keeps_the_place(self) -> None:
        limit = limiter(want("a", most=1), want("b", most=1))
        limit.want(want("a", most=1))
        assert order(limit) == ["a", "b"]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.integers(0, 3),
                st.integers(0, 2),
                st.sampled_from([0, 30, 60, 90, 120]),
                st.booleans(),
            ),
            max_size=30,
        )
    )
    def test_the_places_that_are_told_are_the_turns_that_come(
        self, rows: list[tuple[str, int, int, int, bool]]
    ) -> None:
        limit = Limiter.of(())
        for number, (tenant, task, priority, waited, leaves) in enumerate(rows):
            since = MONO - waited
            one = want(f"{tenant}{task}", f"n{number}", tenant=tenant, priority=priority, most=1, since=since)
            limit.want(one)
            if leaves:
                limit.release(one.who)
        told = list(limit.line.in_order(MONO))
        assert [one.who for one in drain(limit)] == told


def drain(limit: Limiter) -> list[Want]:
    served: list[Want] = []
    while granted := limit.grant(NOW, MONO):
        served += granted
        for one in granted:
            limit.release(one.who)
    return served


def order(limit: Limiter) -> list[str]:
    return tasks(drain(limit))


class TestRates:
    def test_without_a_burst_permits_are_evenly_spaced(self) -> None:
        limit = limiter(*(want(f"t{n}", most=None, rate=10, per_sec=60) for n in range(3)))
        assert len(limit.grant(NOW, MONO)) == 1
        assert limit.grant(NOW + 5.5, MONO) == []
        assert limit.wake_at(NOW + 5.5) == pytest.approx(NOW + 6.0, rel=0, abs=1e-3)
        assert limit.grant(NOW + 5.99, MONO) == []
        assert len(limit.grant(NOW + 6.0, MONO)) == 1

    @pytest.mark.parametrize("burst", [1, 3])
    def test_after_a_pause_no_more_than_the_burst_begin_at_once(self, burst: int) -> None:
        limit, now, number = Limiter.of(()), NOW, 0
        for _ in range(3):
            for _ in range(burst + 5):
                number += 1
                limit.want(want(f"t{number}", most=None, rate=100, burst=burst))
            assert len(limit.grant(now, MONO)) == burst
            for tick in range(1, 20):  # and who comes on time finds one each time
                limit.grant(now + tick / 100 + 1e-6, MONO)
            assert not limit.line
            now += 10

    def test_an_owner_that_is_late_makes_up_for_it_a_little(self) -> None:
        limit = limiter(*(want(f"t{n}", most=None, rate=100) for n in range(90)))
        assert len(limit.grant(NOW, MONO)) == 1
        assert len(limit.grant(NOW + 0.0501, MONO)) == 5
        assert len(limit.grant(NOW + 5, MONO)) == 1 + 100 * SLACK_SEC

    def test_a_burst_comes_at_once_and_then_the_rate(self) -> None:
        limit = limiter(*(want(f"t{n}", most=None, rate=1, per_sec=10, burst=3) for n in range(9)))
        assert len(limit.grant(NOW, MONO)) == 3
        assert limit.grant(NOW + 9.8, MONO) == []
        assert len(limit.grant(NOW + 10, MONO)) == 1

    def test_a_heavy_one_takes_so_many(self) -> None:
        limit = limiter(*(want(f"t{n}", most=None, rate=1, per_sec=1, burst=4, weight=2) for n in range(9)))
        assert len(limit.grant(NOW, MONO)) == 2
        assert len(limit.grant(NOW + 2, MONO)) == 1

    @pytest.mark.parametrize(("rate", "per_sec", "burst"), [(10, 60, 1), (10, 60, 10), (7, 1, 3), (100, 1, 1)])
    def test_over_a_minute_the_rate_is_kept_within_two_percent(self, rate: int, per_sec: int, burst: int) -> None:
        """Its owner is up to 20 ms late each time, and somebody always waits."""
        limit, given_at, now, number = Limiter.of(()), [], NOW, 0
        while now < NOW + 180:
            while len(limit.line) < 30:
                number += 1
                limit.want(want(f"t{number}", most=None, rate=rate, per_sec=per_sec, burst=burst))
            for one in limit.grant(now, MONO):
                given_at.append(now)
                limit.release(one.who)
            now = max(now + 0.001, limit.wake_at(now) or now) + 0.02 * (number % 7) / 7
        steady = sum(NOW + 63 < at <= NOW + 123 for at in given_at)  # none is due at the ends of these 60 s
        ideal = 60 * rate / per_sec
        assert steady == pytest.approx(ideal, rel=0.02)
        worst = max(bisect_right(given_at, at + 60) - first for first, at in enumerate(given_at))
        assert worst <= burst + (60 + SLACK_SEC) * rate / per_sec

    def test_a_rate_is_blank_again_once_its_time_has_passed(self) -> None:
        limit = limiter(want("a", most=None, rate=1, per_sec=10))
        [one] = limit.grant(NOW, MONO)
        assert not limit.blank(NOW + 60)
        limit.release(one.who)
        assert not limit.blank(NOW + 5)
        assert limit.blank(NOW + 10)


# ---------------------------------------------------------------------------------------------- a hostile road


@settings(max_examples=at_night(200), deadline=None)
@given(st.data())
def test_whatever_is_lost_doubled_or_late_never_more_is_held_and_all_are_served(data: st.DataObject) -> None:
    """Claims ask, and say when they are over; each letter may come never, twice, or long after. What is recorded
    survives, the line does not. At the end everybody says so again."""
    most = data.draw(st.integers(1, 4))
    claims = [
        want(f"t{n % 5}", f"n{n}", tenant="ab"[n % 2], most=most, weight=data.draw(st.integers(1, most)))
        for n in range(data.draw(st.integers(1, 12)))
    ]
    waiting, using, over = {one.who: one for one in claims}, dict[Who, Want](), dict[Who, Want]()
    limit, recorded = Limiter.of(()), list[Holder]()
    late: list[tuple[str, Want]] = []

    def serve() -> None:
        for one in limit.grant(NOW, MONO):
            if waiting.pop(one.who, None) is not None:
                using[one.who] = one
        assert limit.held == sum(holder.weight for holder in limit.holders.values()) <= most
        assert sum(one.said.weight for one in using.values()) <= most
        assert set(using) <= set(limit.holders)

    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["want", "end", "late", "takeover"])):
            case "want":
                letter = ("want", data.draw(st.sampled_from(claims)))
            case "end" if using:
                one = using.pop(data.draw(st.sampled_from(sorted(using))))
                over[one.who] = one
                letter = ("over", one)
            case "late" if late:
                letter = late[data.draw(st.integers(0, len(late) - 1))]
            case "takeover":
                recorded = list(limit.holders.values())
                limit = Limiter.of(recorded)
                continue
            case _:
                continue
        late.append(letter)
        for _ in range(data.draw(st.sampled_from([0, 1, 1, 2]))):
            deliver(limit, letter)
        serve()

    for _ in range(3 * len(claims)):
        for who in list(limit.holders):  # each holder is asked whether it still is one
            if who in over:
                limit.release(who)
            elif who in waiting:
                using[who] = waiting.pop(who)
        for one in waiting.values():
            limit.want(one)
        serve()
        for who in list(using):
            over[who] = using.pop(who)
    assert not waiting
    assert len(over) == len(claims)


def deliver(limit: Limiter, letter: tuple[str, Want]) -> None:
    what, one = letter
    if what == "want":
        limit.want(one)
    else:
        limit.release(one.who)


def test_nobody_starves_in_a_crowd() -> None:
    limit = Limiter.of(())
    served: Counter[str] = Counter()
    for number in range(600):
        limit.want(want("crowd", f"c{number}", tenant="loud", most=1))
        if number % 10 == 0:
            limit.want(want(f"quiet{number}", tenant="quiet", most=1))
        for one in limit.grant(NOW, MONO):
            served[one.tenant] += 1
            limit.release(one.who)
    assert served["quiet"] == 60
