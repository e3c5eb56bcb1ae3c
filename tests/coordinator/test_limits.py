"""The owner of limits: what it records before it says so, and what it does when somebody else has been there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator.limits import ASK_IDLY_SEC, LOOK_AGAIN_SEC, UNHEARD_SEC, Limits
from flowkit.core.permits import PermitAsked, PermitDelayed, PermitGranted, PermitOver, PermitWanted, ToTask
from flowkit.ports import LimitSwap, Outcome
from flowkit.telemetry import LimitReloaded, LimitUnreadable, Telemetry
from flowkit.wire.topics import partition_of

DB = "limit:db"
PARTITIONS = 8


class Doubtful(MemoryStore):
    """Writes, and says what it is told to say."""

    says: Outcome | None = None

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        outcomes = await super().swap_limits(swaps)
        return outcomes if self.says is None else [self.says] * len(outcomes)


class Office:
    def __init__(self, store: MemoryStore | None = None, name: str = "c1") -> None:
        self.store = store if store is not None else Doubtful()
        self.clock = ManualClock(1000.0)
        self.telemetry = Telemetry()
        self.happened: list[Any] = []
        self.telemetry.subscribe(self.happened.append)
        self.owned = set(range(PARTITIONS))
        self.sent: list[ToTask] = []
        self.limits = Limits(
            store=self.store, clock=self.clock, telemetry=self.telemetry, owned=lambda: self.owned,
            partitions=PARTITIONS, coordinator_id=name,
        )  # fmt: skip
        self.limits.send = lambda task_id, partition, tenant, letter: self.sent.append(letter)

    def want(self, *nodes: str, most: int = 1, **more: Any) -> None:
        said: dict[str, Any] = {"weight": 1, "rate": 0.0, "per_sec": 1.0, "burst": 1, "priority": 0, **more}
        for node in nodes:
            self.limits.hear(DB, "default", PermitWanted("t", 3, node, (0, 1, 0), most, **said))

    def over(self, node: str) -> None:
        self.limits.hear(DB, "default", PermitOver("t", node, (0, 1, 0)))

    async def step(self, seconds: float = 0.0) -> list[ToTask]:
        """What it says after so long."""
        self.clock.advance(seconds)
        await self.limits.step()
        sent, self.sent = self.sent, []
        return sent


def granted(letters: list[ToTask]) -> list[str]:
    return [letter.node for letter in letters if isinstance(letter, PermitGranted)]


def asked(letters: list[ToTask]) -> list[str]:
    return [letter.node for letter in letters if isinstance(letter, PermitAsked)]


async def test_a_permit_is_given_once_its_holder_is_recorded() -> None:
    office = Office()
    office.want("a", "b")
    assert granted(await office.step(2)) == ["a"]
    [record] = await office.store.read_limits([DB])
    assert record.partition == partition_of(DB, PARTITIONS)
    assert '"a"' in record.body
    assert '"b"' not in record.body


async def test_a_release_and_the_next_grant_are_one_write() -> None:
    office = Office()
    office.want("a", "b")
    await office.step(2)
    [before] = await office.store.read_limits([DB])
    office.over("a")
    assert granted(await office.step()) == ["b"]
    [after] = await office.store.read_limits([DB])
    assert after.stamp != before.stamp
    assert '"a"' not in after.body


async def test_where_it_is_unknown_whether_it_was_written_nothing_is_given_and_the_record_tells() -> None:
    store = Doubtful()
    store.says = Outcome.UNKNOWN
    office = Office(store)
    office.want("a", "b")
    assert granted(await office.step(2)) == []
    store.says = None
    assert granted(await office.step(2)) == ["a"]
    assert [type(one) for one in office.happened] == [LimitReloaded]


async def test_of_two_owners_the_one_that_is_behind_gives_nothing() -> None:
    one = Office()
    other = Office(one.store, "c2")
    one.want("a")
    await one.step(2)
    one.over("a")
    await one.step(2)
    one.want("b")
    other.want("c")
    assert granted(await one.step()) == ["b"]
    assert granted(await other.step(2)) == []
    one.over("b")
    await one.step(2)  # the record is gone: nobody holds anything
    one.want("d")
    assert granted(await one.step(2)) == ["d"]
    assert granted(await other.step(2)) == []
    assert granted(await one.step(2)) == []


async def test_who_takes_over_finds_the_holders_and_asks_them() -> None:
    one = Office()
    one.want("a")
    await one.step(2)
    other = Office(one.store, "c2")
    assert await other.step(2) == []
    assert asked(await other.step(2)) == ["a"]
    other.want("b")
    assert granted(await other.step()) == []
    other.over("a")
    assert granted(await other.step()) == ["b"]


async def test_who_takes_over_finds_what_the_one_before_wrote_meanwhile() -> None:
    before = Office()
    after = Office(before.store, "c2")
    assert await after.step(2) == []  # nobody held anything yet
    before.want("a")
    assert granted(await before.step(2)) == ["a"]

    assert asked(await after.step(LOOK_AGAIN_SEC - 2)) == []
    assert asked(await after.step(3)) + asked(await after.step(1)) == ["a"]


async def test_holders_are_asked_now_and_then() -> None:
    office = Office()
    office.want("a")
    await office.step(2)
    assert asked(await office.step(2)) == []
    assert asked(await office.step(ASK_IDLY_SEC)) == ["a"]


async def test_when_nobody_holds_or_waits_nothing_is_left() -> None:
    office = Office()
    office.want("a")
    await office.step(2)
    office.over("a")
    for _ in range(3):
        await office.step(2)
    assert await office.store.read_limits([DB]) == []
    assert office.limits.meters == {}


async def test_those_that_wait_are_told_their_places() -> None:
    office = Office()
    office.want("a", "b", "c")
    await office.step(2)
    delayed = [letter for letter in await office.step(2) if isinstance(letter, PermitDelayed)]
    assert [(letter.node, letter.place, letter.held) for letter in delayed] == [("b", 0, 1), ("c", 1, 1)]


async def test_who_waits_and_is_not_heard_of_any_more_is_passed_over() -> None:
    office = Office()
    office.want("a", "b")
    await office.step(2)
    await office.step(UNHEARD_SEC + 1)
    office.over("a")
    office.want("c")
    assert granted(await office.step()) == ["c"]


async def test_what_could_never_be_granted_holds_nobody_up() -> None:
    office = Office()
    office.want("a", most=2, weight=3)
    office.limits.hear(DB, "default", PermitWanted("t", 3, "z", (0, 1, 0), None, 1, 0.0, 1.0, 1, 0))
    office.want("b")
    assert granted(await office.step(2)) == ["b"]
    assert office.telemetry.counts["permits_wanted_in_vain"] == 2


async def test_a_record_that_cannot_be_read_gives_nothing_and_says_so() -> None:
    office = Office()
    await office.store.swap_limits([LimitSwap(DB, partition_of(DB, PARTITIONS), "", "s", "[9]")])
    office.want("a")
    assert await office.step(2) == []
    assert [type(one) for one in office.happened] == [LimitUnreadable]
    office.want("a")
    assert await office.step(2) == []


async def test_a_limit_of_a_partition_that_left_is_forgotten() -> None:
    office = Office()
    office.want("a")
    await office.step(2)
    office.owned = set()
    assert await office.step(2) == []
    assert office.limits.meters == {}
    office.want("b")
    assert await office.step(2) == []


async def test_a_point_of_priority_is_worth_a_minute_of_waiting_whoever_owns_the_limit() -> None:
    """`low` is ready ten minutes before `high`; then the limit gets another owner, who hears of both anew."""
    one = Office()
    one.want("holder", "low")
    assert granted(await one.step(2)) == ["holder"]
    other = Office(one.store, "c2")
    other.want("low", waited=600.0)
    other.want("higher", priority=11)
    other.want("high", priority=9)
    await other.step(2)
    turns = []
    for node in ("holder", "higher", "low"):
        other.over(node)
        turns += granted(await other.step(1))
    assert turns == ["higher", "low", "high"]


async def test_who_asks_again_later_has_waited_no_longer_for_it() -> None:
    office = Office()
    office.want("holder", "early")
    await office.step(2)
    office.want("late", waited=1.0)
    office.want("early", waited=2.0)
    await office.step(1)
    office.want("late", waited=500.0)
    office.over("holder")
    assert granted(await office.step(1)) == ["early"]


async def test_with_an_ageing_of_nothing_priorities_mean_nothing() -> None:
    office = Office()
    office.limits._ageing_sec = 0.0
    office.want("holder", "low")
    await office.step(2)
    office.want("high", priority=1000)
    office.over("holder")
    assert granted(await office.step(1)) == ["low"]
