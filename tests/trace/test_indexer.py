"""Ended attempts on their way into the index: behind their commits, once, and healed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.core import facts as f
from flowkit.errors import StoreUnavailable
from flowkit.monitor_ports import HOUR_SEC, AttemptQuery, AttemptRecord, Seen
from flowkit.ports import Head, HeadUpdate, Outcome
from flowkit.telemetry import Telemetry
from flowkit.trace.history import histograms_of
from flowkit.trace.indexer import FRESH_SEC, LATE_SEC, MANY_SEEN, MOST_SEEN, PAGE, RECORDS, ROUND_SEC, Indexer
from flowkit.trace.task_trace import Recorded, read_ended
from tests.core.builders import graph, node
from tests.trace.histories import failed, finish, leased, recorded, succeeded
from tests.worker.stand import LoopClock, virtual

RAW = graph(node("a"), name="one")
ALL = AttemptQuery("default", 0.0, 4e9)


class Office:
    """An indexer over histories in memory; of those in `unreadable` nothing can be read."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.histories: dict[str, Recorded] = {}
        self.unreadable: set[str] = set()
        self.owned = [0]
        self.loads: list[list[str]] = []
        self.telemetry = Telemetry()
        self.clock = LoopClock()
        self.indexer = self.fresh()

    def fresh(self, **options: Any) -> Indexer:
        return Indexer(
            load=self.load, store=self.store, traces=self.store.traces, clock=self.clock, telemetry=self.telemetry,
            owned=lambda: self.owned, **options,
        )  # fmt: skip

    async def load(self, task_ids: Sequence[str]) -> Mapping[str, Recorded]:
        self.loads.append(list(task_ids))
        return {one: self.histories[one] for one in task_ids if one not in self.unreadable}

    async def end(self, task_id: str, *more: tuple[float, list[f.Fact]], **head: Any) -> None:
        commits = [
            (0.0, [f.TaskCreated(), leased("a")]),
            (1.0, [succeeded("a", 0.5), f.TaskEnded("finished")]),
            *more,
        ]
        self.histories[task_id] = history = recorded(RAW, *commits, task_id=task_id, **head)
        await self.store.insert_heads([history.head])
        seq = len(commits)
        await self.store.update_heads([HeadUpdate(task_id, "finished", seq, seq, False, None, 1.0, ended_at=1.0 + seq)])

    async def end_wide(self, task_id: str, names: Sequence[str]) -> None:
        """A task whose nodes all began and ended together."""
        commits = [(0.0, [f.TaskCreated(), *map(leased, names)])]
        commits += [(1.0, [*(succeeded(name, 0.5) for name in names), f.TaskEnded("finished")])]
        self.histories[task_id] = history = recorded(graph(*map(node, names)), *commits, task_id=task_id)
        await self.store.insert_heads([history.head])
        await self.store.update_heads([HeadUpdate(task_id, "finished", 2, 2, False, None, 1.0, ended_at=2.0)])

    async def found(self) -> list[AttemptRecord]:
        return sorted(await self.store.traces.slowest_attempts(ALL, limit=9999), key=lambda one: (one.task_id, one.seq))

    async def counted(self) -> int:
        """How many attempts were counted, which is how many there were."""
        hours = histograms_of(await self.store.traces.rollups(ALL, span=HOUR_SEC), None, HOUR_SEC)
        return sum(sum(bins.values()) for hour in hours for bins in hour.outcomes.values())

    async def rest(self, seconds: float) -> None:
        """Let the time go by, with the steps that come in it."""
        for _ in range(int(seconds / 0.1)):
            await self.indexer.step()
            await asyncio.sleep(0.1)


@virtual
async def test_what_is_noted_is_indexed_once() -> None:
    office = Office()
    await office.end("t1")
    await office.end("t2")
    for name in ("t1", "t2", "t1", "nobody"):
        office.indexer.note(name)
    await office.rest(2)

    assert [(one.task_id, one.node, one.run_sec) for one in await office.found()] == [
        ("t1", "a", 0.5),
        ("t2", "a", 0.5),
    ]
    office.indexer.note("t1")
    await office.rest(2)
    assert office.loads == [["t1", "t2"]]
    assert office.telemetry.counts["attempts_indexed"] == 2


@virtual
async def test_a_task_that_has_run_again_adds_what_is_new() -> None:
    office = Office()
    await office.end("t1")
    await office.indexer.index(["t1"])
    again = [
        (10.0, [f.TaskRestarted(1), leased("a", 2)]),
        (12.0, [failed("a", 1.5, 2), f.TaskEnded("failed")]),
    ]
    await office.end("t1", *again)
    await office.indexer.index(["t1"])

    assert [(one.attempt, one.generation, one.outcome) for one in await office.found()] == [
        (1, 0, "succeeded"), (2, 1, "failed"),
    ]  # fmt: skip
    assert office.telemetry.counts["attempts_indexed"] == 2


@virtual
async def test_what_nobody_noted_is_found_among_the_heads_with_its_children() -> None:
    office = Office()
    for number in range(PAGE + 50):
        await office.end(f"t{number}")
    await office.end("child", parent="t7")
    await office.end("grandchild", parent="child")
    await office.store.insert_heads([Head("running", 0, "g"), Head("foreign", 1, "g")])
    await office.rest(60)

    assert len(await office.found()) == PAGE + 52
    loads = len(office.loads)
    await office.rest(60)
    assert len(office.loads) == loads  # the next round is far, and would find nothing missing


@virtual
async def test_who_died_half_way_is_made_good_without_doubles() -> None:
    office = Office()
    for number in range(5):
        await office.end(f"t{number}")
    count = office.store.traces.count_attempts

    async def dies(marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        raise ConnectionError("gone")

    office.store.traces.count_attempts = dies  # type: ignore[method-assign]
    office.indexer.note("t1")
    try:
        await office.indexer.step()
    except ConnectionError:
        pass
    else:
        raise AssertionError("it did not die")
    assert len(await office.found()) == 1

    office.store.traces.count_attempts = count  # type: ignore[method-assign]
    office.indexer = office.fresh()
    await office.rest(20)
    assert [one.task_id for one in await office.found()] == [f"t{number}" for number in range(5)]
    assert await office.counted() == 5


@virtual
async def test_a_task_that_cannot_be_read_is_not_read_for_ever() -> None:
    office = Office()
    await office.end("t1")
    await office.end("t2")
    office.unreadable.add("t1")
    await office.rest(2000)

    assert [one.task_id for one in await office.found()] == ["t2"]
    assert sum("t1" in load for load in office.loads) == 1


@virtual
async def test_a_task_of_many_attempts_is_counted_in_pieces_that_end_with_a_commit() -> None:
    office = Office()
    names = [f"a{number}" for number in range(3 * RECORDS)]
    halves = [names[start : start + RECORDS // 2] for start in range(0, len(names), RECORDS // 2)]
    commits = [(0.0, [f.TaskCreated(), *map(leased, names)])]
    commits += [(float(n), [succeeded(name, 0.5) for name in half]) for n, half in enumerate(halves, 1)]
    commits += [(9.0, [f.TaskEnded("finished")])]
    office.histories["t1"] = history = recorded(graph(*map(node, names)), *commits, task_id="t1")
    await office.store.insert_heads([history.head])
    await office.store.update_heads([HeadUpdate("t1", "finished", 8, 8, False, None, 1.0, ended_at=9.0)])
    sizes: list[tuple[int, tuple[int, int]]] = []
    count = office.store.traces.count_attempts

    async def look(marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        sizes.append((len(records), marks["t1"]))
        return await count(marks, records)

    office.store.traces.count_attempts = look  # type: ignore[method-assign]
    await office.indexer.index(["t1"])

    assert sizes == [(RECORDS, (0, 3)), (RECORDS, (3, 5)), (RECORDS, (5, 8))]
    assert await office.counted() == len(await office.found()) == len(names)


@virtual
async def test_where_somebody_counted_some_meanwhile_the_others_are_counted() -> None:
    office = Office()
    for number in range(4):
        await office.end(f"t{number}")
    indexed, other = office.store.traces.indexed, office.fresh()
    meanwhile = True

    async def late(task_ids: Sequence[str]) -> dict[str, int]:
        nonlocal meanwhile
        found = await indexed(task_ids)
        if meanwhile:
            meanwhile = False
            await other.index(["t2"])
        return found

    office.store.traces.indexed = late  # type: ignore[method-assign]
    await office.indexer.index([f"t{number}" for number in range(4)])

    assert await office.counted() == 4
    assert office.telemetry.counts["attempts_indexed"] == 4


def seen(history: Recorded) -> Seen:
    """The attempts as their coordinator saw them."""
    return Seen(0, history.seq, finish(read_ended(history)))


@virtual
async def test_what_its_coordinator_saw_of_a_task_is_counted_without_reading_it() -> None:
    office, reading = Office(), Office()
    for number in range(3):
        for one in (office, reading):
            await one.end(f"t{number}", (2.0, [f.TaskRestarted(1), leased("a", 2)]), (3.0, [failed("a", 0.1, 2)]))
            one.histories[f"t{number}"].head.seq = 4
        office.indexer.note(f"t{number}", seen(office.histories[f"t{number}"]))
        reading.indexer.note(f"t{number}")
    await office.rest(2)
    await reading.rest(2)

    assert (office.loads, reading.loads) == ([], [["t0", "t1", "t2"]])
    assert await office.found() == await reading.found()
    assert await office.counted() == await reading.counted() == 6
    assert await office.store.traces.indexed(["t0"]) == {"t0": 4}


@virtual
async def test_what_somebody_has_counted_of_it_is_not_counted_from_what_was_seen() -> None:
    office = Office()
    for number in range(3):
        await office.end(f"t{number}")
    await office.fresh().index(["t1"])
    for number in range(3):
        office.indexer.note(f"t{number}", seen(office.histories[f"t{number}"]))
    await office.rest(2)

    assert await office.counted() == 3
    assert len(await office.found()) == 3
    assert office.loads == [["t1"], ["t0", "t2"]]


@virtual
async def test_of_what_was_seen_no_more_is_counted_at_once_than_of_what_is_read() -> None:
    office = Office()
    names = [f"a{number}" for number in range(RECORDS // 2 + 1)]
    for task_id in ("t1", "t2", "t3"):
        await office.end_wide(task_id, names)
    await office.fresh().index(["t2"])
    sizes: list[int] = []
    count = office.store.traces.count_attempts

    async def look(marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        sizes.append(len(records))
        return await count(marks, records)

    office.store.traces.count_attempts = look  # type: ignore[method-assign]
    office.loads.clear()
    for one in office.histories:
        office.indexer.note(one, seen(office.histories[one]))
    await office.rest(2)

    assert sizes == [len(names)] * 3
    assert await office.counted() == 3 * len(names)
    assert office.loads == []


@virtual
async def test_of_a_task_that_has_gone_on_since_it_was_seen_the_rest_is_counted_too() -> None:
    office = Office()
    await office.end("t1")
    office.indexer.note("t1", seen(office.histories["t1"]))
    await office.store.delete_heads([office.histories["t1"].head])
    await office.end("t1", (10.0, [f.TaskRestarted(1), leased("a", 2)]), (12.0, [failed("a", 1.5, 2)]))
    await office.rest(2)
    assert ([one.attempt for one in await office.found()], office.loads) == ([1], [])

    office.indexer.note("t1")
    await office.rest(2)
    assert office.loads == [["t1"]]
    assert [one.attempt for one in await office.found()] == [1, 2]
    assert await office.counted() == 2


@virtual
async def test_what_was_seen_long_ago_of_a_task_that_was_deleted_is_not_counted() -> None:
    office = Office()
    await office.end("t1")
    office.indexer.note("t1", seen(office.histories["t1"]))
    await office.store.update_heads([HeadUpdate("t1", "deleted", 3, 3, False, None, 1.0, remove_at=1.0)])
    await asyncio.sleep(FRESH_SEC + 1)
    await office.rest(2)

    assert (await office.found(), await office.counted()) == ([], 0)
    assert office.indexer.idle


@virtual
async def test_more_than_may_be_kept_in_mind_is_read() -> None:
    office, names = Office(), [f"a{number}" for number in range(MOST_SEEN // 2)]
    for task_id in ("t1", "t2", "t3"):
        await office.end_wide(task_id, names)
        office.indexer.note(task_id, seen(office.histories[task_id]))
    office.indexer.note("t1", seen(office.histories["t1"]))  # once more is not more
    await office.rest(30)

    assert office.loads == [["t3"]]
    assert await office.counted() == 3 * len(names)
    assert office.indexer._attempts == 0


class Long:
    """A task that goes on for `commits` commits, each of which ends `ends` attempts, told in portions of one each."""

    def __init__(self, office: Office, commits: int = 5, ends: int = 3) -> None:
        self._office = office
        names = [f"a{number}" for number in range(commits * ends)]
        self.count = len(names)
        told: list[tuple[float, list[f.Fact]]] = [(0.0, [f.TaskCreated(), *map(leased, names)])]
        for turn in range(commits):
            some = names[turn * ends : (turn + 1) * ends]
            told.append((1.0 + turn, [succeeded(name, 0.5) for name in some]))
        told[-1][1].append(f.TaskEnded("finished"))
        office.histories["long"] = self.history = recorded(graph(*map(node, names)), *told, task_id="long")
        self.records = finish(read_ended(self.history))
        self.portions = [
            Seen(seq - 1 if seq > 2 else 0, seq, [one for one in self.records if one.seq == seq])
            for seq in range(2, commits + 2)
        ]

    async def begin(self) -> None:
        await self._office.store.insert_heads([replace(self.history.head, status="running")])

    async def end(self) -> None:
        seq = self.history.seq
        await self._office.store.update_heads(
            [HeadUpdate("long", "finished", seq, seq, False, None, 1.0, ended_at=self._office.clock.wall())]
        )

    async def whole(self) -> bool:
        """Each attempt is counted and recorded, once."""
        found = sorted(await self._office.found(), key=lambda one: one.node)
        return found == sorted(self.records, key=lambda one: one.node) and await self._office.counted() == self.count


@virtual
async def test_a_long_task_is_counted_while_it_goes_on_and_never_read() -> None:
    office = Office()
    long = Long(office)
    await long.begin()
    for number, portion in enumerate(long.portions[:-1], 1):
        assert office.indexer.see("long", portion)
        if number != 3:  # the third waits for the fourth
            await office.rest(2)
            assert await office.counted() == 3 * number
    await long.end()
    office.indexer.note("long", long.portions[-1])
    await office.rest(2)

    assert await long.whole()
    assert await office.store.traces.indexed(["long"]) == {"long": 6}
    assert (office.loads, office.indexer.idle, office.indexer._attempts) == ([], True, 0)


@virtual
async def test_what_is_seen_while_some_of_it_is_being_counted_is_counted_next() -> None:
    office = Office()
    long = Long(office)
    await long.begin()
    count, late = office.store.traces.count_attempts, long.portions[1:]

    async def meanwhile(marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        if late:
            assert office.indexer.see("long", late.pop(0))
        return await count(marks, records)

    office.store.traces.count_attempts = meanwhile  # type: ignore[method-assign]
    assert office.indexer.see("long", long.portions[0])
    await office.rest(10)
    await long.end()
    office.indexer.note("long", Seen(6, 6, []))
    await office.rest(2)

    assert await long.whole()
    assert (office.loads, office.indexer._attempts) == ([], 0)


@pytest.mark.parametrize("missing", range(5))
@pytest.mark.parametrize("how", ["not heard of", "unknown", "unavailable"])
@virtual
async def test_where_a_portion_of_a_long_task_is_missing_it_is_read_at_its_end(missing: int, how: str) -> None:
    office = Office()
    long = Long(office)
    await long.begin()
    count = office.store.traces.count_attempts

    async def lost(marks: Mapping[str, tuple[int, int]], records: Sequence[AttemptRecord]) -> Outcome:
        if how == "unavailable":
            raise StoreUnavailable("for a moment")
        return Outcome.UNKNOWN

    for number, portion in enumerate(long.portions):
        heard = number != missing or how != "not heard of"
        if number == missing and heard:
            office.store.traces.count_attempts = lost  # type: ignore[method-assign]
        if portion is long.portions[-1]:
            await long.end()
            office.indexer.note("long", portion if heard else None)
        elif heard:
            office.indexer.see("long", portion)
        with suppress(StoreUnavailable):
            await office.rest(2)
        office.store.traces.count_attempts = count  # type: ignore[method-assign]
        await office.rest(2)
    await office.rest(ROUND_SEC + 10)

    assert await long.whole()
    assert len(office.loads) == (how != "unavailable")


@virtual
async def test_who_takes_a_long_task_over_counts_what_the_one_before_has_not() -> None:
    office = Office()
    long = Long(office)
    await long.begin()
    heir = office.fresh()
    assert office.indexer.see("long", long.portions[0])
    await office.rest(2)
    assert await office.counted() == 3
    await long.end()
    heir.note("long")
    await heir.step()
    for portion in long.portions[1:]:  # the one before has seen more, and is late
        office.indexer.see("long", portion)
        await office.rest(2)

    assert await long.whole()


@virtual
async def test_a_portion_of_a_long_task_is_never_counted_with_others() -> None:
    office = Office()
    long = Long(office)
    await long.begin()
    for number in range(3):
        await office.end(f"t{number}")
    await office.fresh().index(["t1"])
    assert office.indexer.see("long", long.portions[0])
    await office.rest(2)
    for number in range(3):
        office.indexer.note(f"t{number}", seen(office.histories[f"t{number}"]))
    assert office.indexer.see("long", long.portions[1])
    await office.rest(2)

    assert await office.store.traces.indexed(["long"]) == {"long": 3}


@virtual
async def test_many_attempts_that_were_seen_do_not_wait_for_others_and_more_are_not_kept() -> None:
    office = Office()
    office.indexer = office.fresh(records=False, linger_sec=1e6)
    office.indexer._round_at = 1e9
    long = Long(office, commits=2 * MOST_SEEN // MANY_SEEN + 1, ends=MANY_SEEN // 2)
    await long.begin()
    assert office.indexer.see("long", long.portions[0])
    await office.rest(30)
    assert await office.counted() == 0
    assert office.indexer.see("long", long.portions[1])
    await office.rest(1)
    assert (await office.counted(), office.indexer._attempts) == (MANY_SEEN, 0)

    kept = [office.indexer.see("long", portion) for portion in long.portions[2:]]
    assert kept == [True, True, True]
    assert not office.indexer.see("long", Seen(6, 7, long.records[:MANY_SEEN]))


@virtual
async def test_without_records_attempts_are_counted_only_and_wait_for_one_another() -> None:
    office = Office()
    office.indexer = office.fresh(records=False, linger_sec=30.0)
    for number in range(3):
        await office.end(f"t{number}")
        office.indexer.note(f"t{number}")
        office.indexer._round_at = 1e9
        await office.rest(5)
    assert await office.counted() == 0
    await office.rest(20)

    assert (await office.found(), await office.counted()) == ([], 3)
    assert office.loads == [["t0", "t1", "t2"]]


@virtual
async def test_a_round_looks_at_what_ended_since_the_one_before_and_at_all_where_partitions_came() -> None:
    office = Office()
    await office.end("old")
    ended = office.store.ended_heads
    asked: list[float | None] = []

    async def look(owned: Any, status: str, now: float, *, limit: int, after: tuple[float, str] | None) -> list[Head]:
        asked.append(None if after is None else after[0])
        return await ended(owned, status, now, limit=limit, after=after)

    office.store.ended_heads = look  # type: ignore[method-assign]
    began = office.clock.wall()
    await office.rest(10)
    assert set(asked) == {None}

    asked.clear()
    await office.rest(ROUND_SEC + 10)
    assert asked and all(at is not None and abs(at - (began + 5 - LATE_SEC)) < 2 for at in asked)

    asked.clear()
    office.owned = [0, 1]
    await office.rest(ROUND_SEC + 10)
    assert set(asked) == {None}
