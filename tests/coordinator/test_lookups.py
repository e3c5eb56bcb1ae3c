"""Single tasks that are asked for at the same time share a read, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from flowkit.coordinator import lookups
from flowkit.coordinator.history import History, Past
from flowkit.coordinator.lookups import Lookups
from flowkit.errors import StoreUnavailable
from flowkit.ports import Head
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry


class Library(History):
    """Knows every task but those that begin with `x`; `reads` are what it was asked for. A read of a task that begins
    with `l` waits for `opened` after all others are there."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.opened = asyncio.Event()
        self.error: Exception | None = None

    async def batches(self, task_ids: Sequence[str], *, whole: bool = False) -> AsyncIterator[list[Past]]:
        self.reads.append(list(task_ids))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        yield [past(name) for name in task_ids if name[0] not in "xl"]
        for name in task_ids:
            if name[0] == "l":
                await self.opened.wait()
                yield [past(name)]


def past(name: str) -> Past:
    return Past(Head(name, 0, "g"), None, deleted=name[0] == "d")


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    found = Supervisor("test", Telemetry())
    yield found
    await found.stop()


async def names_of(reading: Lookups, *names: str) -> list[str | None]:
    found = await asyncio.gather(*(reading.past(name) for name in names))
    return [None if one is None else one.head.task_id for one in found]


async def test_who_asks_at_the_same_time_is_answered_by_one_read(library: Library, supervisor: Supervisor) -> None:
    reading = Lookups(library, supervisor)

    assert await names_of(reading, "a", "b", "x", "d", "a") == ["a", "b", None, None, "a"]
    assert library.reads == [["a", "b", "x", "d"]]


async def test_no_read_is_of_more_than_it_may_be(
    library: Library, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "BATCH", 2)
    monkeypatch.setattr(lookups, "AT_ONCE", 1)

    assert await names_of(Lookups(library, supervisor), *"abcef") == list("abcef")
    assert library.reads == [["a", "b"], ["c", "e"], ["f"]]


async def test_many_are_read_by_several_at_a_time_and_by_no_more_than_may_be(
    library: Library, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "BATCH", 1)
    monkeypatch.setattr(lookups, "AT_ONCE", 3)
    reading = Lookups(library, supervisor)
    large = [asyncio.create_task(reading.past(f"l{place}")) for place in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert library.reads == [["l0"], ["l1"], ["l2"]]

    library.opened.set()
    await asyncio.gather(*large)


async def test_a_question_is_never_answered_by_a_read_that_began_before_it(
    library: Library, supervisor: Supervisor
) -> None:
    reading = Lookups(library, supervisor)
    first = asyncio.create_task(reading.past("la"))
    while not library.reads:
        await asyncio.sleep(0)
    second = asyncio.create_task(reading.past("la"))
    library.opened.set()
    await asyncio.gather(first, second)

    assert library.reads == [["la"], ["la"]]


async def test_a_large_task_holds_up_nobody(library: Library, supervisor: Supervisor) -> None:
    reading = Lookups(library, supervisor)
    large = asyncio.create_task(reading.past("large"))

    assert await names_of(reading, "a", "b") == ["a", "b"]
    assert await names_of(reading, "c") == ["c"]
    assert not large.done()

    library.opened.set()
    assert await large is not None


async def test_all_who_asked_are_told_what_went_wrong_and_the_next_read_is_tried(
    library: Library, supervisor: Supervisor
) -> None:
    reading = Lookups(library, supervisor)
    library.error = StoreUnavailable("away")
    failed = await asyncio.gather(reading.past("a"), reading.past("b"), return_exceptions=True)
    assert [str(one) for one in failed] == ["away", "away"]

    library.error = None
    assert await names_of(reading, "a") == ["a"]


async def test_nobody_waits_for_ever_when_reading_is_stopped(library: Library, supervisor: Supervisor) -> None:
    reading = Lookups(library, supervisor)
    asked = [asyncio.create_task(reading.past(name)) for name in ("la", "lb", "lc", "ld", "le", "lf")]
    for _ in range(5):
        await asyncio.sleep(0)
        asked.append(asyncio.create_task(reading.past("lg")))
    await asyncio.sleep(0)
    await supervisor.stop()

    told = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) for one in told)


async def test_who_gave_up_waiting_spoils_nothing(library: Library, supervisor: Supervisor) -> None:
    reading = Lookups(library, supervisor)
    given_up = asyncio.create_task(reading.past("a"))
    other = asyncio.create_task(reading.past("a"))
    await asyncio.sleep(0)
    given_up.cancel()

    assert (await other) is not None


async def test_a_reader_that_is_stopped_before_it_begins_leaves_nobody_waiting(
    library: Library, supervisor: Supervisor
) -> None:
    reading = Lookups(library, supervisor)
    asked = asyncio.create_task(reading.past("a"))
    await asyncio.sleep(0)
    await supervisor.stop()

    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(5):
            await asked
    assert await names_of(reading, "b") == ["b"]
