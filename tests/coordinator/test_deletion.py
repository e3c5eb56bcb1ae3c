"""Deleting tasks: who sees what meanwhile, what a death half-way leaves, and what is left in the end: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.coordinator.cell import Item
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.deletion import GRACE_SEC, HINT_SEC, POINTER_SEC
from flowkit.coordinator.ids import id_of_key, id_of_life, new_id
from flowkit.coordinator.lives import Lives
from flowkit.coordinator.offsets import OffsetTracker
from flowkit.core import facts as f
from flowkit.core.reports import Requested, Started
from flowkit.errors import IdempotencyConflict, RequestRefused, StoreUnavailable, TaskNotFound
from flowkit.ports import DELETED, Commit, HeadFilter, Outcome, Request
from flowkit.wire.tombstone import TOMBSTONE
from tests.coordinator.yard import CREATED, LONG, NOTHING, NOW, RAW, RESTARTED, Died, Yard, finished


@pytest.fixture
def yard() -> Yard:
    return Yard()


@pytest.fixture
def naps(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """A nap takes no time, and during each one of these happens."""
    happens: list[Callable[[], None]] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        yard.clock.advance(seconds)
        if seconds and happens:
            happens.pop(0)()
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    return happens


# What is seen.


async def test_a_deleted_task_is_there_for_nobody(yard: Yard) -> None:
    await yard.runtime.bus.ensure_topics(yard.runtime.topics.specs())
    await yard.ended("t")
    await yard.ended("other")

    assert await yard.delete("t") == ["t"]

    assert await yard.state("t") == "gone"
    assert [head.task_id for head in await yard.store.list_heads(HeadFilter(), limit=9)] == ["other"]
    for ask in (yard.runtime.api.get, yard.runtime.api.wait, yard.runtime.api.explain, yard.runtime.api.restart):
        with pytest.raises(TaskNotFound):
            await ask("t")  # type: ignore[operator]
    with pytest.raises(TaskNotFound):
        async for _ in yard.runtime.api.watch("t"):
            pass
    assert await yard.runtime.api.cancel("t") is False
    assert await yard.state("other") == "whole"


async def test_deleting_it_again_or_what_nobody_knows_or_anothers_is_nothing(yard: Yard) -> None:
    await yard.ended("t")
    await yard.ended("theirs", tenant="acme")

    assert await yard.delete("nobody") == []
    assert await yard.delete("theirs") == []
    assert await yard.delete("t") == ["t"]
    assert await yard.delete("t") == []
    assert await yard.runtime.api.delete("t") is False
    assert (await yard.history.load(["theirs"]))["theirs"].task is not None
    assert await yard.delete("theirs", "acme") == ["theirs"]


async def test_a_reader_that_has_read_the_head_before_finds_the_tombstone(yard: Yard) -> None:
    head = await yard.ended("t")
    await yard.delete("t")
    yard.store.data.heads["t"] = head  # as it was read

    assert await yard.history.load(["t"]) == {}
    assert [past.deleted for batch in [b async for b in yard.history.batches(["t"])] for past in batch] == [True]


async def test_with_a_snapshot_too(yard: Yard) -> None:
    head = await yard.ended("t")
    await yard.delete("t")
    yard.store.data.heads["t"] = replace(head, snapshot="1:t.c.1")

    assert await yard.history.load(["t"]) == {}


async def test_one_who_watches_when_it_is_deleted_sees_its_last_event(yard: Yard) -> None:
    await yard.runtime.bus.ensure_topics(yard.runtime.topics.specs())
    await yard.task("t", CREATED)
    seen: list[str] = []
    watching = yard.runtime.api.watch("t")
    seen.append((await anext(watching)).type)
    await yard.commit("t", 2, finished())
    yard.store.data.commits["t"][3] = Commit("t", 3, "x", "", NOW, "me", TOMBSTONE)
    yard.runtime.hub.something_changed()
    seen += [event.type async for event in watching]

    assert seen == ["created", "leased", "succeeded", "ended"]


# What is refused.


@pytest.mark.parametrize(("facts", "status"), [([], "queued"), ([CREATED], "running")])
async def test_what_has_not_ended_is_refused_with_what_to_do(yard: Yard, facts: Any, status: str) -> None:
    await yard.task("t", *facts)

    with pytest.raises(RequestRefused, match=f"it is {status}; cancel it first"):
        await yard.delete("t")

    assert yard.store.writes == []


async def test_an_ended_task_whose_head_lags_is_deleted_once_the_head_follows(
    yard: Yard, naps: list[Callable[[], None]]
) -> None:
    behind = await yard.task("t", CREATED, finished(), head_seq=1)
    now = replace(behind, seq=2, published_seq=2, active=False, status="finished")
    naps += [lambda: None, lambda: yard.store.data.heads.update(t=now)]

    assert await yard.delete("t") == ["t"]
    assert naps == []


@pytest.mark.usefixtures("naps")
async def test_one_whose_events_nobody_publishes_is_refused_after_a_while(yard: Yard) -> None:
    await yard.task("t", CREATED, finished(), head_seq=1)

    with pytest.raises(RequestRefused, match="its last events are not out"):
        await yard.delete("t")

    assert yard.clock.wall() - NOW > 9
    assert yard.store.writes == []


async def test_one_that_cannot_be_read_can_be_deleted(yard: Yard) -> None:
    await yard.task("t", CREATED, finished(), head_seq=1)
    yard.store.data.commits["t"][2] = replace(yard.store.data.commits["t"][2], prev="another")

    assert await yard.delete("t") == ["t"]
    assert await yard.state("t") == "gone"


async def test_but_not_one_of_a_newer_version(yard: Yard) -> None:
    await yard.task("t", CREATED)
    yard.store.data.commits["t"][1] = replace(yard.store.data.commits["t"][1], body='[["teleported"]]')

    with pytest.raises(RequestRefused, match="newer version"):
        await yard.delete("t")


# Against a restart.


async def test_a_task_that_was_restarted_in_time_is_kept(yard: Yard) -> None:
    """The restart is committed, and its head does not say so yet."""
    head = await yard.ended("t")
    await yard.commit("t", 3, RESTARTED)

    assert await yard.deletion.bury([head]) == []

    assert await yard.state("t") == "whole"
    assert yard.store.data.heads["t"] == head


async def test_the_verb_refuses_it_then_and_takes_its_mark_back(yard: Yard, naps: list[Callable[[], None]]) -> None:
    head = await yard.ended("t")
    await yard.commit("t", 3, RESTARTED)
    marks: list[float | None] = []

    def owner_follows() -> None:
        marks.append(yard.store.data.heads["t"].remove_at)
        yard.store.data.heads["t"] = replace(head, seq=3, status="running", active=True)

    naps.append(owner_follows)
    with pytest.raises(RequestRefused, match="it is running"):
        await yard.delete("t")

    assert marks == [None]
    assert yard.store.writes == ["schedule_removal", "insert_commits", "schedule_removal"]


async def test_a_restart_that_comes_too_late_fails_at_the_tombstone(yard: Yard) -> None:
    await yard.ended("t")
    await yard.delete("t")

    assert await yard.commit("t", 3, RESTARTED) is Outcome.DUPLICATE
    assert await yard.commit("t", 1, CREATED) is Outcome.DUPLICATE, "nor does anybody begin it anew"


# Half-way.


async def dies(yard: Yard, place: int, after: bool) -> bool:
    """Delete `t`, and die at this write; whether there was one."""
    yard.store.dies_at, yard.store.dies_after = place, after
    try:
        await yard.delete("t")
    except Died:
        return True
    return False


@pytest.mark.parametrize("after", [False, True])
async def test_a_deletion_that_dies_half_way_leaves_it_whole_or_gone_and_is_finished_by_the_owner(after: bool) -> None:
    for place in range(10):
        yard = Yard()
        await yard.ended("t", artifact="r")
        if not await dies(yard, place, after):
            assert yard.store.writes == ["schedule_removal", "insert_commits", "update_heads"], "all were tried"
            return
        state = await yard.state("t")
        touched = yard.store.data.heads["t"].remove_at is not None

        await yard.look(HINT_SEC + 31)
        assert await yard.state("t") == ("gone" if touched else "whole")
        assert touched or state == "whole"

        await yard.look(LONG)
        await yard.look(LONG)
        assert (yard.left() == NOTHING) is touched
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("after", [False, True])
async def test_a_removal_that_dies_half_way_leaves_nothing_to_see_and_is_finished_by_the_next(after: bool) -> None:
    for place in range(10):
        yard = Yard()
        await yard.ended("t", artifact="r")
        await yard.delete("t")
        yard.clock.advance(GRACE_SEC + 1)
        yard.store.writes.clear()
        yard.store.dies_at, yard.store.dies_after = place, after
        owner = yard.coordinator(yard.store)
        yard.clock.advance(10)
        try:
            for _ in range(9):
                await owner.retention.step()
        except Died:
            pass
        else:
            assert yard.store.writes == ["delete_history", "collect_artifacts", "delete_heads"], "all were tried"
            return
        assert await yard.state("t") == "gone"
        # Whoever loads it meanwhile, for a message that came late, begins nothing.
        cell = yard.runtime.engine.get("t", 0)
        await yard.runtime.loader.step()
        assert cell.dead or cell.loading

        await yard.look()
        assert yard.left() == NOTHING
    pytest.fail("it never came to its end")


async def test_a_deletion_that_was_announced_and_overtaken_by_a_restart_is_called_off(yard: Yard) -> None:
    head = await yard.ended("t")
    await yard.deletion.announce(head)
    await yard.commit("t", 3, RESTARTED)

    await yard.look(HINT_SEC + 31)

    assert yard.store.data.heads["t"].remove_at is None
    assert await yard.state("t") == "whole"


@pytest.mark.parametrize("outcome", ["before", "after"])
async def test_a_mark_that_the_store_did_not_confirm_is_written_again(
    yard: Yard, naps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    await yard.ended("t")
    update_heads, calls = yard.store.update_heads, []

    async def unclear(updates: Any) -> list[Outcome]:
        calls.append(updates)
        if len(calls) > 1:
            return await update_heads(updates)
        if outcome == "after":
            await update_heads(updates)
        return [Outcome.UNKNOWN]

    monkeypatch.setattr(yard.store, "update_heads", unclear)

    assert await yard.delete("t") == ["t"]
    assert len(calls) == (2 if outcome == "before" else 1)
    assert yard.store.data.heads["t"].status == DELETED


@pytest.mark.usefixtures("naps")
async def test_a_deletion_that_cannot_be_confirmed_is_said_to_be_so(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.ended("t")

    async def unclear(updates: Any) -> list[Outcome]:
        return [Outcome.UNKNOWN]

    monkeypatch.setattr(yard.store, "update_heads", unclear)
    with pytest.raises(StoreUnavailable, match="could not be confirmed; ask again"):
        await yard.delete("t")

    assert await yard.state("t") == "gone"
    await yard.look(HINT_SEC + 31)
    assert yard.store.data.heads["t"].status == DELETED


async def test_the_owners_next_update_calls_it_off_too(yard: Yard) -> None:
    head = await yard.ended("t")
    announced = await yard.deletion.announce(head)
    assert announced is not None
    cell = yard.runtime.engine.get("t", 0)
    await yard.runtime.loader.step()
    yard.runtime.engine.feed(cell, Item(Requested(1, "r", "restart")))
    yard.runtime.engine.pump_dirty()
    await yard.runtime.engine.commits.step()
    await yard.runtime.engine.heads.step()

    assert yard.store.data.heads["t"].status == "running"
    assert yard.store.data.heads["t"].remove_at is None


# What is left.


async def test_nothing_is_left_of_it_after_a_while(yard: Yard) -> None:
    await yard.ended("t", artifact="r", labels={"a": "b"})
    await yard.store.insert_request(Request("t", 1, "r", "pause", "{}", 0, "default", "me", NOW, applied=True))
    await yard.store.put_blob("t.c.1", b"state", kind="snapshot")
    await yard.delete("t")

    await yard.look(GRACE_SEC - 60)
    assert yard.left()["commits"] == ["t"], "for a while the commits keep their places"
    assert await yard.commit("t", 3, RESTARTED) is Outcome.DUPLICATE

    await yard.look(120)
    assert yard.left() == NOTHING
    assert yard.runtime.telemetry.counts["TasksRemoved"] == 1


async def test_an_artifact_of_two_tasks_goes_with_the_second(yard: Yard) -> None:
    for task in ("a", "b"):
        await yard.ended(task, artifact="r")
    await yard.delete("a")
    await yard.look(LONG)
    assert yard.left()["blobs"] == ["r"]

    await yard.delete("b")
    await yard.look(LONG)
    assert yard.left() == NOTHING


# What comes late.


async def test_what_comes_for_a_deleted_task_is_counted_and_dropped(yard: Yard) -> None:
    await yard.ended("t")
    await yard.delete("t")
    engine, tracker = yard.runtime.engine, OffsetTracker()
    letters: list[str] = []
    yard.runtime.publisher.dead = lambda record, why, task_id="": letters.append(why)  # type: ignore[method-assign]
    engine.feed(engine.get("t", 0), Item(Started("a", 1, "k"), tracker.read(7, 1)))

    await yard.runtime.loader.step()

    assert engine.cells == {}
    assert tracker.to_commit() == 8, "it is done with"
    assert yard.runtime.telemetry.counts["reports_of_deleted_tasks"] == 1
    assert letters == []


@pytest.mark.parametrize(
    ("task_id", "dropped"), [(new_id(NOW - 7200), 1), (new_id(NOW), 0), ("nobody", 0)], ids=["old", "new", "none"]
)
async def test_of_what_is_not_there_at_all_the_age_of_its_id_tells(yard: Yard, task_id: str, dropped: int) -> None:
    engine = yard.runtime.engine
    letters: list[str] = []
    yard.runtime.publisher.dead = lambda record, why, task_id="": letters.append(why)  # type: ignore[method-assign]
    engine.feed(engine.get(task_id, 0), Item(Started("a", 1, "k")))

    for _ in range(9):
        if (cell := engine.cells.get(task_id)) is not None:
            engine.loaded(cell, None)

    assert engine.cells == {}
    assert yard.runtime.telemetry.counts["reports_of_deleted_tasks"] == dropped
    assert letters == ["no such task"] * (1 - dropped)


async def test_a_cell_of_a_task_that_was_removed_leaves_memory(yard: Yard) -> None:
    """Of an owner that was frozen all the while, say."""
    await yard.task("t", CREATED)
    engine = yard.runtime.engine
    cell = engine.get("t", 0)
    await yard.runtime.loader.step()
    cell.acked, cell.stored = 2, (1, 1)
    engine.heads.touch(cell)
    del yard.store.data.heads["t"]

    await engine.heads.step()
    assert cell.dead
    for _ in range(9):
        if (again := engine.cells.get("t")) is not None:
            engine.loaded(again, None)

    assert engine.cells == {}
    await yard.look(120)
    assert yard.left() == NOTHING, "and what it wrote is removed"


async def test_what_was_written_behind_a_removal_is_removed_too(yard: Yard) -> None:
    """A request whose head was read before, and the artifact of a worker that came late."""
    await yard.store.insert_request(Request("t", 1, "r", "restart", "{}", 0, "default", "me", NOW))
    await yard.store.put_blob("r", b"data", kind="artifact", for_task="t")
    engine = yard.runtime.engine
    await yard.runtime.sweeper.step()
    for _ in range(9):
        if (cell := engine.cells.get("t")) is not None:
            engine.loaded(cell, None)
    assert yard.left() != NOTHING

    await yard.look(55)
    assert yard.left() != NOTHING, "a head that was not found is looked for again first"
    await yard.look(60)
    assert yard.left() == NOTHING


async def test_but_not_where_the_head_is_found_after_all(yard: Yard) -> None:
    await yard.ended("t", artifact="r")
    yard.runtime.retention.add_stray("t")

    await yard.look(120)

    assert await yard.state("t") == "whole"
    assert yard.left()["blobs"] == ["r"]


# Children.


async def test_children_are_deleted_with_their_parent(yard: Yard) -> None:
    await yard.ended("p", artifact="r")
    for child, parent in (("c", "p"), ("d", "p"), ("cc", "c")):
        await yard.ended(child, parent=parent, artifact=f"r-{child}")

    assert sorted(await yard.delete("p")) == ["c", "cc", "d", "p"]

    assert [await yard.state(task) for task in ("p", "c", "d", "cc")] == ["gone"] * 4
    await yard.look(LONG)
    assert yard.left() == NOTHING


async def test_a_child_that_runs_keeps_its_parent(yard: Yard) -> None:
    await yard.ended("p")
    await yard.task("c", CREATED, parent="p")

    with pytest.raises(RequestRefused, match="its child c is running"):
        await yard.delete("p")

    assert await yard.state("p") == "whole"


async def test_a_child_is_not_deleted_without_its_parent(yard: Yard) -> None:
    await yard.ended("p")
    await yard.ended("c", parent="p")

    with pytest.raises(RequestRefused, match="a child of task p"):
        await yard.delete("c")

    yard.store.data.heads.pop("p")
    assert await yard.delete("c") == ["c"], "one that was left over may go"


async def test_children_that_a_dead_process_left_go_before_their_parent(yard: Yard) -> None:
    parent = await yard.ended("p")
    await yard.ended("c", parent="p")
    await yard.deletion.bury([parent])
    assert await yard.state("c") == "whole"

    await yard.look(LONG)
    assert await yard.state("c") == "gone"
    assert yard.left()["heads"] == ["c", "p"]

    await yard.look(LONG)
    await yard.look(LONG)
    assert yard.left() == NOTHING


# An idempotency key that comes again.

ASKED = Creation(RAW, {"n": 1}, idempotency_key="order-17")
FIRST = id_of_key("default", "order-17")


async def create(yard: Yard, asked: Creation = ASKED) -> str:
    [task_id] = await yard.runtime.api.create([asked])
    return task_id


async def end(yard: Yard, task_id: str) -> None:
    """As its owner does."""
    yard.runtime.engine.forget_task(task_id)
    head = yard.store.data.heads[task_id]
    for seq, part in enumerate((CREATED, finished()), 1):
        await yard.commit(task_id, seq, part)
    done = {"seq": 2, "published_seq": 2, "active": False, "ended_at": yard.clock.wall()}
    yard.store.data.replace_head(head, status="finished", **done)


async def test_a_key_whose_task_was_deleted_makes_another_task(yard: Yard) -> None:
    first = await create(yard)
    await end(yard, first)
    await yard.delete(first)

    second = await create(yard)

    assert (first, second) == (FIRST, id_of_life(FIRST, 1))
    assert await create(yard) == second, "and that again and again"
    with pytest.raises(IdempotencyConflict):
        await create(yard, replace(ASKED, params={"n": 2}))
    assert yard.store.data.heads[second].params == '{"n":1}'
    assert len({first, second, await create(yard, replace(ASKED, idempotency_key="another"))}) == 3


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("asked", [ASKED, replace(ASKED, params={"n": 2})])
async def test_it_does_so_too_where_the_deletion_died_half_way(yard: Yard, place: int, asked: Creation) -> None:
    first = await create(yard)
    await end(yard, first)
    yard.store.dies_at = place
    with pytest.raises(Died):
        await yard.delete(first)

    assert await create(yard, asked) == id_of_life(FIRST, 1)


async def test_and_where_one_died_that_nobody_had_announced(yard: Yard) -> None:
    """Of a task whose retention was over."""
    first = await create(yard)
    await end(yard, first)
    yard.store.dies_at = 1
    with pytest.raises(Died):
        await yard.deletion.bury([yard.store.data.heads[first]])
    assert yard.store.data.heads[first].remove_at is None

    assert await create(yard) == id_of_life(FIRST, 1)


async def test_but_a_task_that_only_ended_is_the_same_task(yard: Yard) -> None:
    first = await create(yard)
    await end(yard, first)

    assert await create(yard) == first


async def test_it_does_so_however_often(yard: Yard) -> None:
    seen = []
    for _ in range(4):
        task_id = await create(yard)
        seen.append(task_id)
        await end(yard, task_id)
        await yard.delete(task_id)
        await yard.look(100)

    assert seen == [id_of_life(FIRST, life) for life in range(4)]


async def test_the_first_head_stays_for_as_long_as_a_later_task_is_found_by_it(yard: Yard) -> None:
    first = await create(yard)
    await end(yard, first)
    await yard.delete(first)
    second = await create(yard)
    await end(yard, second)

    await yard.look(LONG)
    assert yard.left()["heads"] == sorted([first, second])
    assert yard.left()["commits"] == [second]
    assert await create(yard) == second
    await yard.look(POINTER_SEC + 60)
    assert await create(yard) == second

    await yard.delete(second)
    await yard.look(LONG)
    assert yard.left()["heads"] == [first]
    await yard.look(POINTER_SEC + 60)
    assert yard.left() == NOTHING
    assert await create(yard) == first


async def test_two_who_come_with_the_key_at_once_get_one_task(yard: Yard) -> None:
    first = await create(yard)
    await end(yard, first)
    await yard.delete(first)
    lives = Lives(yard.store, yard.clock)

    ids = [await lives.id_now(first), await lives.id_now(first)]
    assert ids == [id_of_life(first, 1)] * 2


async def test_a_removal_does_not_take_the_head_that_a_key_has_just_been_given_by(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked for the later task before that was there."""
    first = await create(yard)
    await end(yard, first)
    await yard.delete(first)
    yard.clock.advance(LONG)
    store = MemoryStore(yard.store.data)
    delete_heads, second = store.delete_heads, ""

    async def late(heads: Any) -> Outcome:
        nonlocal second
        second = await create(yard)
        return await delete_heads(heads)

    monkeypatch.setattr(store, "delete_heads", late)
    owner = yard.coordinator(store)
    yard.clock.advance(10)
    for _ in range(5):
        await owner.retention.step()

    assert second == id_of_life(first, 1)
    assert yard.left()["heads"] == sorted([first, second])
    assert yard.store.data.heads[first].status == DELETED
    assert await create(yard) == second


async def test_a_task_of_another_key_is_created_beside_one_that_begins_anew(yard: Yard) -> None:
    first = await create(yard)
    await end(yard, first)
    await yard.delete(first)

    ids = await yard.runtime.api.create([replace(ASKED, idempotency_key="x"), ASKED, Creation(RAW)])

    assert ids[1] == id_of_life(FIRST, 1)
    assert set(ids) <= set(yard.store.data.heads)


def test_facts_and_a_tombstone_are_never_taken_for_one_another() -> None:
    assert TOMBSTONE == '[["deleted"]]'
    assert "deleted" not in f.TAGS
