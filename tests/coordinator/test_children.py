"""Sub-graphs: made together, looked after together, and their parents told until they have heard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import children
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.history import Past
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import ChildEnded, Fetched, Succeeded, TimeReached
from flowkit.ports import Head, HeadFilter, Outcome, Record, Request
from flowkit.wire.codec import dumps, loads
from flowkit.wire.messages import Told, decode_facts_batch
from flowkit.wire.topics import partition_of
from tests.core.builders import Play, graph, new_task, node

CHILDREN = 40
INNER = graph(node("in", inputs={}))
PARENT = graph(node("many", type="task", graph=INNER, foreach=list(range(CHILDREN)), inputs={}))

OF_A_FLOW = {"nodes": [{"node_id": "one", "type": "task", "flow": "late"}]}


class Counting(MemoryStore):
    """Says which heads were asked for, and how often commits were."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.reads = 0

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        self.asked.append(list(task_ids))
        return await super().read_heads(task_ids)

    async def read_commits(self, task_ids: Any, *, after: int = 0) -> Any:
        self.reads += 1
        return await super().read_commits(task_ids, after=after)


class Deaf(MemoryBus):
    """Takes what is published from the third time on."""

    def __init__(self) -> None:
        super().__init__()
        self.tries: list[Record] = []

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        self.tries += records
        return [len(self.tries) > 2] * len(records)


class Stand:
    """A coordinator that owns the partitions of a parent, or of none of its children's parents."""

    def __init__(self, *, bus: MemoryBus | None = None) -> None:
        self.store = Counting()
        self.clock = ManualClock(100.0)
        self.runtime = CoordinatorRuntime(
            store=self.store, bus=bus or MemoryBus(), clock=self.clock, cfg=CoordinatorConfig()
        )
        self.engine = self.runtime.engine
        self.children = self.runtime.children

    def load(self, head: Head, raw: Any) -> Cell:
        self.engine.owned.add(head.partition)
        cell = self.engine.get(head.task_id, head.partition)
        self.engine.loaded(cell, Past(head, new_task(raw)))
        return cell

    async def commit(self, cell: Cell) -> None:
        """Let what the cell decides be acknowledged, until there is no more to decide."""
        self.engine.pump_dirty()
        while cell.flight is not None:
            flight = cell.flight
            await self.store.insert_commits([flight.commits[0]])
            self.engine.outcome(flight, Outcome.OK)
            self.engine.pump_dirty()

    async def parent(self) -> Cell:
        """One whose children are wanted."""
        cell = self.load(Head("p", 0, "ref", active=True), PARENT)
        await self.store.insert_heads([cell.head])
        await self.commit(cell)
        return cell


async def test_the_children_of_one_graph_are_made_together_and_stay_until_they_are() -> None:
    stand = Stand()
    cell = await stand.parent()
    assert cell.unborn == CHILDREN
    cell.stirred_at = -1000.0
    stand.engine.eviction.maybe(cell)
    assert not cell.dead

    taken = 0
    take = stand.runtime.graphs.take

    async def counted(raw: Any, **how: Any) -> Any:
        nonlocal taken
        taken += 1
        return await take(raw, **how)

    stand.runtime.graphs.take = counted  # type: ignore[method-assign]
    await stand.children.step()
    assert (taken, cell.unborn) == (1, 0)
    heads = await stand.store.list_heads(HeadFilter(parent="p"), limit=1000)
    assert sorted(head.parent_node for head in heads) == sorted(f"many[{n}]" for n in range(CHILDREN))


@pytest.mark.parametrize(
    ("own", "inner", "bound"), [(5, None, 5), (5, 3, 3), (5, 9, 5), (None, 9, 9), (None, None, None)]
)
async def test_the_time_of_one_attempt_bounds_the_child_that_it_is(
    own: float | None, inner: float | None, bound: float | None
) -> None:
    stand = Stand()
    child = INNER | ({"timeout_sec": inner} if inner else {})
    said = {"timeout_sec": own} if own else {}
    cell = stand.load(Head("p", 0, "ref", active=True), graph(node("c", type="task", graph=child, **said)))
    await stand.commit(cell)
    await stand.children.step()

    [head] = await stand.store.list_heads(HeadFilter(parent="p"), limit=10)
    assert head.timeout_sec == bound


async def test_a_flow_that_is_not_seen_yet_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RETRY_SEC", 0.0)
    stand = Stand()
    cell = stand.load(Head("p", 0, "ref", active=True), OF_A_FLOW)
    await stand.commit(cell)
    await stand.children.step()
    assert await stand.store.list_heads(HeadFilter(parent="p"), limit=10) == []

    await stand.runtime.flows.put("late", {"nodes": [{"node_id": "a", "type": "work"}]})
    async with asyncio.timeout(10):
        await stand.children.step()
    [head] = await stand.store.list_heads(HeadFilter(parent="p"), limit=10)
    assert head.flow == "late@1"


async def test_a_flow_that_does_not_exist_fails_its_node_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RETRY_SEC", 0.0)
    stand = Stand()
    cell = stand.load(Head("p", 0, "ref", active=True), OF_A_FLOW)
    await stand.commit(cell)
    async with asyncio.timeout(10):
        for _ in range(children.MOST_MISSES + 1):
            assert cell.task is not None and cell.task.runs["one"].error is None
            await stand.children.step()
    await stand.commit(cell)
    assert (cell.task.runs["one"].error or {})["code"] == "E_FLOW_UNKNOWN"


async def test_a_child_that_a_crash_left_unmade_is_made_with_what_a_large_output_says() -> None:
    """What was read of it for the decision is gone with whoever decided."""
    inputs = {"n": {"$expr": "nodes['big'].output.n"}, "more": {"$from": "big.nope", "default": 0}}
    play = Play(graph(node("big"), node("sub", type="task", graph=INNER, inputs=inputs)))
    play.place("big")
    play.tell(Succeeded(*play.attempt_of("big"), Payload(None, Artifact("large", 100_000, "json"))))
    play.tell(Fetched("large", {"n": 5}))
    stand = Stand()
    await stand.store.put_blob("large", dumps({"n": 5}), kind="artifact", for_task="p")
    stand.engine.owned.add(0)
    cell = stand.engine.get("p", 0)
    stand.engine.loaded(cell, Past(Head("p", 0, "ref", active=True), play.task, seq=1))

    await stand.children._check(cell)
    await stand.children.step()
    [head] = await stand.store.list_heads(HeadFilter(parent="p"), limit=10)
    assert (head.parent_node, loads(head.params)) == ("sub", {"n": 5, "more": 0})
    assert cell.task is not None
    assert cell.task.runs["sub"].error is None


async def test_a_parent_leaves_memory_only_when_none_of_its_children_has_ended_for_a_while() -> None:
    stand = Stand()
    cell = await stand.parent()
    await stand.children.step()
    cell.stored = (cell.acked, cell.acked)
    cell.published = cell.acked
    stand.engine.eviction.maybe(cell)
    assert not cell.dead

    stand.clock.advance(stand.runtime.cfg.evict_after_sec + 1)
    stand.engine.eviction.maybe(cell)
    assert cell.dead


async def test_the_ended_children_of_a_loaded_task_are_read_together() -> None:
    stand = Stand()
    cell = await stand.parent()
    await stand.children.step()
    assert cell.task is not None
    for child in cell.task.children.values():  # they ended while nobody had the parent
        stored = stand.store.data.heads[child]
        stand.store.data.heads[child] = replace(stored, status="finished")
    stand.store.asked.clear()
    stand.store.reads = 0

    await stand.children._check(cell)
    assert [len(ids) for ids in stand.store.asked] == [CHILDREN, CHILDREN]
    assert stand.store.reads == 1


@pytest.mark.parametrize("held", [True, False])
async def test_whoever_looks_after_children_pauses_those_of_paused_nodes_and_lets_the_others_go_on(
    *, held: bool
) -> None:
    """What a crash left unsaid."""
    stand = Stand()
    cell = stand.load(Head("p", 0, "ref", active=True), graph(node("c", type="task", graph=INNER)))
    await stand.commit(cell)
    await stand.children.step()
    assert cell.task is not None
    (child,) = cell.task.children.values()
    if held:
        cell.task.held = {"c": None}
    status, said = ("running", "pause") if held else ("paused", "resume")
    head = stand.store.data.heads[child] = replace(stand.store.data.heads[child], status=status)
    if not held:
        paused = Request(child, 1, "pause-p-1", "pause", "{}", head.partition, head.tenant, "ada", 1.0)
        assert await stand.store.insert_request(paused) is Outcome.OK
    steered: list[Any] = []
    stand.children.carry_out = lambda _, effect: steered.append(effect)  # type: ignore[method-assign]

    await stand.children._check(cell)
    assert [(effect.name, effect.kind) for effect in steered] == [("c", said)]


async def test_a_parent_that_was_loaded_stays_until_its_children_were_looked_for_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their heads may lag behind when it is loaded: one that says `running` may have ended long ago."""
    monkeypatch.setattr(children, "HEADS_SEC", 0.0)
    stand = Stand()
    first = await stand.parent()
    await stand.children.step()
    assert first.task is not None
    assert first.head is not None
    stand.engine.drop(first)
    stand.store.asked.clear()

    cell = stand.engine.get("p", 0)
    stand.engine.loaded(cell, Past(first.head, first.task, seq=first.acked))
    cell.stored, cell.published = (cell.acked, cell.acked), cell.acked
    cell.queue.clear()
    stand.engine.eviction.maybe(cell)
    assert not cell.dead, "nothing moves it, and it has something to find out"

    for _ in range(20):
        await asyncio.sleep(0)
    assert [len(ids) for ids in stand.store.asked] == [CHILDREN, CHILDREN]
    stand.engine.eviction.maybe(cell)
    assert cell.dead


async def test_a_parent_elsewhere_is_told_until_the_bus_has_taken_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "RETRY_SEC", 0.0)
    bus = Deaf()
    stand = Stand(bus=bus)
    partition = partition_of("elsewhere", stand.runtime.topics.partitions)
    own = (partition + 1) % stand.runtime.topics.partitions
    head = Head("c", own, "ref", parent="elsewhere", parent_node="many[3]", parent_attempt=1, params=dumps({}).decode())
    cell = stand.load(head, graph(node("only", type="sleep", inputs={"seconds": 0})))
    await stand.commit(cell)
    stand.clock.advance(1.0)
    for due in await stand.runtime.timers.due():
        stand.engine.feed(due, Item(TimeReached()))
    await stand.commit(cell)
    assert cell.task is not None
    assert cell.task.ended
    for seq in range(1, cell.acked + 1):
        stand.engine.event_acknowledged(cell, seq)
    assert cell.published == cell.acked - 1, "its head must not say that all is done: a crash now would lose the news"

    await asyncio.gather(*stand.runtime.supervisor._tasks)
    assert cell.published == cell.acked
    assert len(bus.tries) == 3
    (told,) = decode_facts_batch(bus.tries[-1].value).items
    assert isinstance(told, Told)
    assert isinstance(told.report, ChildEnded)
    assert (told.task_id, told.report.node, told.report.status) == ("elsewhere", "many[3]", "finished")
