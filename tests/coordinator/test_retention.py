"""Which tasks are let go of, when, and how little that takes of a coordinator's time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.coordinator import retention as module
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.deletion import GRACE_SEC
from flowkit.coordinator.graphs import IDLE_SEC
from flowkit.coordinator.publisher import Parcel
from flowkit.coordinator.retention import BATCH, FIRST_LOOK_SEC, LATE_SEC, LATE_SHARE, LOOK_SEC, SHARE
from flowkit.errors import StoreUnavailable
from flowkit.ports import Head, Outcome, Record, Request
from flowkit.wire.events import decode_event
from tests.coordinator.yard import CREATED, DAY, LONG, NOTHING, NOW, RAW, RESTARTED, Yard


def yard_of(**settings: Any) -> Yard:
    return Yard(**{"retention_sec": DAY, **settings})


async def kept(yard: Yard) -> list[str]:
    """The tasks that are there."""
    return [task for task in sorted(yard.store.data.heads) if await yard.state(task) == "whole"]


# When.


async def test_a_task_is_kept_for_so_long_after_its_end() -> None:
    yard = yard_of()
    await yard.ended("t")

    await yard.look(DAY - 60)
    assert await kept(yard) == ["t"]

    await yard.look(120)
    assert await kept(yard) == []
    assert yard.runtime.telemetry.counts["TasksDeleted"] == 1
    await yard.look(LONG)
    assert yard.left() == NOTHING


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, []),
        ({"retention_failed_sec": 3 * DAY}, ["failed"]),
        ({"retention_failed_sec": float("inf")}, ["failed"]),
        ({"retention_sec": None}, ["cancelled", "failed", "finished"]),
        ({"retention_sec": float("inf"), "retention_failed_sec": DAY}, ["cancelled", "finished"]),
        ({"retention_sec": 3 * DAY, "retention_failed_sec": 0}, ["cancelled", "finished"]),
    ],
)
async def test_those_that_failed_may_be_kept_for_another_time(settings: dict[str, Any], left: list[str]) -> None:
    yard = yard_of(**settings)
    for status in ("finished", "failed", "cancelled"):
        await yard.ended(status, status=status)

    await yard.look(2 * DAY)

    assert await kept(yard) == left


async def test_what_has_not_ended_and_what_is_not_out_yet_is_kept() -> None:
    yard = yard_of(retention_sec=0)
    await yard.task("runs", CREATED)
    await yard.ended("unpublished", published_seq=1, active=True)
    await yard.ended("old")

    await yard.look(2 * DAY)

    assert await kept(yard) == ["runs", "unpublished"]


async def test_only_the_owner_of_a_partition_lets_go_of_its_tasks() -> None:
    yard = yard_of()
    await yard.ended("mine")
    await yard.ended("theirs", partition=3)
    yard.runtime.engine.owned = {0, 1}

    await yard.look(2 * DAY)
    await yard.look(LONG)
    assert yard.left()["heads"] == ["theirs"]

    yard.runtime.engine.owned = set()
    await yard.look(2 * DAY)
    assert await kept(yard) == ["theirs"]


async def test_the_first_look_is_soon_for_processes_that_do_not_live_long() -> None:
    yard = yard_of(retention_sec=1)
    await yard.ended("t")

    await yard.look(FIRST_LOOK_SEC - 0.1)
    assert await kept(yard) == ["t"]
    await yard.look(0.2)
    assert await kept(yard) == []


# Against a restart.


async def test_a_task_that_somebody_has_asked_to_run_again_is_kept() -> None:
    yard = yard_of()
    await yard.ended("t")
    await yard.ended("other")
    await yard.store.insert_request(Request("t", 1, "r", "restart", "{}", 0, "default", "me", NOW))

    await yard.look(2 * DAY)

    assert await kept(yard) == ["t"]


async def test_a_task_whose_restart_is_committed_is_kept_though_its_head_lags() -> None:
    yard = yard_of()
    await yard.ended("t")
    await yard.commit("t", 3, RESTARTED)

    await yard.look(2 * DAY)

    assert await kept(yard) == ["t"]
    assert yard.store.data.heads["t"].remove_at is None


async def test_a_restart_is_applied_or_answered_as_of_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is written after it was looked for, and before the tombstone."""
    yard = yard_of()
    await yard.ended("t")
    store = MemoryStore(yard.store.data)
    parents_among = store.parents_among

    async def late(task_ids: Any) -> set[str]:
        await store.insert_request(Request("t", 1, "r", "restart", "{}", 0, "default", "me", NOW))
        return await parents_among(task_ids)

    monkeypatch.setattr(store, "parents_among", late)
    yard.runtime = yard.coordinator(store)
    await yard.look(2 * DAY)
    assert await kept(yard) == []

    await yard.runtime.sweeper.step()
    await yard.runtime.loader.step()
    assert yard.runtime.engine.cells == {}
    await yard.look(LONG)
    assert yard.left() == NOTHING


# Families.


async def test_children_go_when_their_parent_does_and_not_before() -> None:
    yard = yard_of()
    await yard.ended("c", parent="p")
    yard.clock.advance(DAY / 2)
    await yard.ended("p")

    await yard.look(0.7 * DAY)
    assert await kept(yard) == ["c", "p"]

    await yard.look(0.7 * DAY)
    assert await kept(yard) == []
    await yard.look(LONG)
    assert yard.left() == NOTHING


async def test_a_child_that_runs_on_keeps_its_parent_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    yard = yard_of()
    for parent in ("a", "b"):
        await yard.ended(parent)
        await yard.task(f"{parent}-child", CREATED, parent=parent)
    yard.clock.advance(1)
    await yard.ended("c")

    await yard.look(2 * DAY)
    assert await kept(yard) == ["a", "a-child", "b", "b-child"]

    child = yard.store.data.heads["a-child"]
    yard.store.data.replace_head(child, status="failed", active=False, ended_at=NOW)
    await yard.look()
    assert await kept(yard) == ["b", "b-child"]


# Slices.


async def test_each_slice_is_one_batch_and_is_followed_by_the_next() -> None:
    yard = yard_of()
    for n in range(2 * BATCH + 10):
        await yard.ended(f"t{n}", partition=n % 8)
    yard.clock.advance(2 * DAY)
    for _ in range(4):  # each kind has looked once
        await yard.runtime.retention.step()
    assert len(await kept(yard)) == BATCH + 10

    await yard.runtime.retention.step()
    assert len(await kept(yard)) == 10
    await yard.runtime.retention.step()
    assert await kept(yard) == []

    for _ in range(3):
        await yard.look(LONG)
    assert yard.left() == NOTHING
    assert yard.runtime.telemetry.counts["TasksRemoved"] == 3


class Slow(MemoryStore):
    """Every look for ended tasks takes a tenth of a second."""

    def __init__(self, yard: Yard) -> None:
        super().__init__(yard.store.data)
        self.looks: list[float] = []
        self.clock = yard.clock

    async def ended_heads(self, *args: Any, **more: Any) -> list[Head]:
        self.looks.append(self.clock.now)
        self.clock.advance(0.1)
        return await super().ended_heads(*args, **more)


@pytest.mark.parametrize(("late_sec", "share"), [(LATE_SEC - 30, SHARE), (LATE_SEC + 1, LATE_SHARE)])
async def test_it_takes_no_more_than_its_share_of_the_time_and_more_of_it_if_it_is_late(
    late_sec: float, share: float
) -> None:
    yard = yard_of(retention_failed_sec=float("inf"))
    for n in range(2 * BATCH):
        await yard.ended(f"t{n}")
    yard.clock.advance(DAY + late_sec)
    store = Slow(yard)
    runtime = yard.coordinator(store)
    yard.clock.advance(FIRST_LOOK_SEC)
    began = yard.clock.now

    while yard.clock.now < began + 10:
        await runtime.retention.step()
        yard.clock.advance(0.01)

    # Those that were cancelled, of whom there are none, and at once a page of those that finished; then the next two.
    gaps = [later - earlier for earlier, later in zip(store.looks, store.looks[1:], strict=False)]
    assert gaps == pytest.approx([0.1, 0.1 + 0.2 / share, 0.1 + 0.1 / share], abs=0.03)


async def test_what_is_deleted_is_an_event_for_the_world_with_its_tombstone() -> None:
    yard = yard_of()
    await yard.ended("t")
    await yard.ended("c", parent="t")
    runtime = yard.runtime
    await runtime.bus.ensure_topics(runtime.topics.specs())
    await runtime.bus.tail(runtime.topics.events)
    parcels: list[Parcel] = []
    runtime.publisher.send = parcels.append  # type: ignore[method-assign]
    told = runtime.hub.listen("t")

    await yard.look(2 * DAY)

    events = [decode_event(parcel.record.value) for parcel in parcels]
    assert [(event.task_id, event.tenant, event.status) for event in events] == [
        ("t", "default", "deleted"), ("c", "default", "deleted"),
    ]  # fmt: skip
    [*_, stone] = await yard.store.read_commits(["t"])
    assert (events[0].seq, events[0].commit_id) == (stone.seq, stone.id)
    heard = await told.next(1)
    assert heard is not None
    assert heard.status == "deleted"


@pytest.mark.parametrize("answers", [True, False])
async def test_whoever_deletes_a_task_by_hand_tells_the_world_as_well(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = yard_of()
    await yard.ended("t")
    runtime, published = yard.runtime, list[Record]()

    async def publish(records: Sequence[Record]) -> list[bool]:
        published.extend(records)
        return [answers] * len(records)

    monkeypatch.setattr(runtime.bus, "publish", publish)

    assert await runtime.api.delete("t")

    [event] = [decode_event(record.value) for record in published if record.topic == runtime.topics.events]
    assert (event.task_id, event.status) == ("t", "deleted")
    assert runtime.telemetry.counts["deletions_untold"] == (0 if answers else 1)


async def test_of_a_deletion_that_somebody_else_did_nobody_is_told_again() -> None:
    yard = yard_of()
    head = await yard.ended("t")
    await yard.deletion.bury([head])
    parcels: list[Parcel] = []
    yard.runtime.publisher.send = parcels.append  # type: ignore[method-assign]

    await yard.look(2 * DAY)

    assert parcels == []


async def test_what_fails_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = yard_of()
    await yard.ended("t")
    store = MemoryStore(yard.store.data)
    yard.runtime = yard.coordinator(store)
    ended_heads = store.ended_heads

    async def away(*args: Any, **more: Any) -> list[Head]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "ended_heads", away)
    yard.clock.advance(2 * DAY)
    with pytest.raises(StoreUnavailable):
        for _ in range(9):
            await yard.runtime.retention.step()
            yard.clock.advance(0.001)
    monkeypatch.setattr(store, "ended_heads", ended_heads)

    await yard.look()
    assert await kept(yard) == []


async def test_a_store_that_answers_no_clear_yes_leaves_it_for_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = yard_of()
    await yard.ended("t", artifact="r")
    await yard.look(2 * DAY)
    store = MemoryStore(yard.store.data)
    yard.runtime = yard.coordinator(store)
    delete_history = store.delete_history

    async def unclear(task_ids: Any) -> Outcome:
        await delete_history(task_ids)
        return Outcome.UNKNOWN

    monkeypatch.setattr(store, "delete_history", unclear)
    await yard.look(LONG)
    assert yard.left() == {**NOTHING, "heads": ["t"], "blobs": ["r"], "claims": ["r"]}
    assert await yard.state("t") == "gone"

    monkeypatch.setattr(store, "delete_history", delete_history)
    await yard.look()
    assert yard.left() == NOTHING


# Graphs.


async def test_a_graph_goes_a_while_after_its_last_task() -> None:
    yard = yard_of()
    await yard.ended("t")
    await yard.look(2 * DAY)
    await yard.look(GRACE_SEC)
    await yard.look(LONG)
    assert yard.left() == NOTHING
    assert ("graph", "g") in yard.store.data.blobs, "it was used when it was last looked at"

    await yard.look(IDLE_SEC)
    assert yard.store.data.blobs == {}


async def test_a_graph_that_is_used_stays_however_old_it_is() -> None:
    yard = yard_of(retention_sec=None)
    await yard.ended("t")

    for _ in range(5):
        await yard.look(3 * IDLE_SEC)

    assert await kept(yard) == ["t"]


async def test_a_graph_that_a_process_knows_is_put_anew_before_it_can_go() -> None:
    """Its cache outlives the last task of the graph."""
    yard = yard_of()
    for _ in range(3):
        [task_id] = await yard.runtime.api.create([Creation(RAW)])
        await yard.runtime.api.get(task_id)
        head = yard.store.data.heads.pop(task_id)
        yard.store.data.of_graph[head.graph_ref] -= 1
        await yard.look(IDLE_SEC + LOOK_SEC)
        assert yard.store.data.blobs == {}
        yard.store.data.by_age.clear()


# What a process is told.


async def test_strays_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STRAYS", 3)
    yard = yard_of()
    for n in range(10):
        yard.runtime.retention.add_stray(f"t{n}")

    assert len(yard.runtime.retention._strays) == 3
    await yard.look(120)
    assert yard.runtime.retention._strays == {}


async def test_a_cell_that_lingers_is_dropped_with_its_task() -> None:
    yard = yard_of()
    head = await yard.ended("t")
    cell = yard.runtime.engine.get("t", 0)
    await yard.runtime.loader.step()
    assert cell.live

    await yard.look(2 * DAY)
    assert cell.dead

    cell = yard.runtime.engine.get("t", 0)
    cell.head, cell.loading, cell.quarantine = replace(head), False, "another process deleted it"
    await yard.look(LONG)
    assert cell.dead
