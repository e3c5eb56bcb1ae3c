"""Flows: versions are counted and never change, tags move, names mean what they say, and tenants do not meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryData, MemoryStore
from flowkit.client import Client
from flowkit.clock import ManualClock
from flowkit.coordinator import flows as module
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.core.graph_diff import Change, NodeChange
from flowkit.errors import (
    FlowNameError,
    FlowNotFound,
    GraphError,
    IdempotencyConflict,
    StoreUnavailable,
)
from flowkit.ports import FlowTag, FlowVersion, Outcome
from tests.core.builders import graph, node


class Moody(MemoryStore):
    """A store whose next writes end as they are told to: `lost`, `late` (done, and not said so), or as they do."""

    def __init__(self, data: MemoryData | None = None) -> None:
        super().__init__(data)
        self.moods: list[str] = []
        self.between: Any = None
        self.inserts = 0

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        self.inserts += 1
        return await self._in_a_mood(super().insert_flow_version, version)

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        return await self._in_a_mood(super().put_flow_tag, tag)

    async def _in_a_mood(self, write: Any, document: Any) -> Outcome:
        mood = self.moods.pop(0) if self.moods else ""
        if mood == "lost":
            return Outcome.UNKNOWN
        outcome: Outcome = await write(document)
        if self.between is not None:
            between, self.between = self.between, None
            await between()
        return Outcome.UNKNOWN if mood == "late" else outcome


def flows(store: MemoryStore | None = None, tenant: str = "t", principal: str = "ann") -> Flows:
    store = store if store is not None else MemoryStore()
    return Flows(store=store, graphs=Graphs(store), clock=ManualClock(100.0), tenant=tenant, principal=principal)


def etl(number: int) -> dict[str, Any]:
    return graph(node("a", inputs={"n": number}))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE_SEC", 0.0)


# Versions.


async def test_versions_are_counted_from_one_and_keep_their_graphs() -> None:
    some = flows()
    assert [await some.put("etl", etl(n), note=f"n {n}") for n in (7, 8, 9)] == [1, 2, 3]

    first = await some.get("etl@1")

    assert (first.name, first.version, first.note, first.principal, first.created_at) == (
        "etl",
        1,
        "n 7",
        "ann",
        100.0,
    )
    assert first.graph == {
        "schema_version": "2",
        "nodes": [{"node_id": "a", "type": "work", "inputs": {"n": 7}}],
        "edges": [],
    }
    assert first.tags == ()


async def test_the_graph_of_the_newest_version_makes_no_other() -> None:
    some = flows()
    assert await some.put("etl", graph(node("a"), node("b", "a"))) == 1
    assert await some.put("etl", graph(node("a"), node("b"), edges=[["a", "b"]]), note="the same") == 1
    assert await some.put("etl", etl(1)) == 2
    assert await some.put("etl", graph(node("a"), node("b", "a"))) == 3
    assert (await some.get("etl@1")).note == ""


async def test_a_graph_that_is_wrong_makes_no_version() -> None:
    some = flows()
    with pytest.raises(GraphError):
        await some.put("etl", graph(node("a", "nobody")))
    with pytest.raises(FlowNotFound):
        await some.get("etl")


async def test_those_who_put_at_once_have_versions_of_their_own() -> None:
    data = MemoryData()
    numbers = await asyncio.gather(*(flows(MemoryStore(data)).put("etl", etl(n)) for n in range(12)))
    assert sorted(numbers) == list(range(1, 13))
    some = flows(MemoryStore(data))
    for n, version in enumerate(numbers):
        assert (await some.get(f"etl@{version}")).graph["nodes"][0]["inputs"] == {"n": n}


async def test_those_who_put_one_graph_at_once_have_one_version() -> None:
    data = MemoryData()
    assert await asyncio.gather(*(flows(MemoryStore(data)).put("etl", etl(1)) for _ in range(12))) == [1] * 12


@pytest.mark.parametrize("mood", ["lost", "late"])
async def test_what_became_of_a_put_is_found_out(mood: str) -> None:
    store = Moody()
    some = flows(store)
    await some.put("etl", etl(0))
    store.moods = [mood]
    assert await some.put("etl", etl(1)) == 2
    assert (await some.versions("etl")).versions[0].version == 2


async def test_a_put_that_was_done_in_silence_is_recognised_below_another() -> None:
    store = Moody()
    some, other = flows(store), flows(MemoryStore(store.data))
    store.moods = ["late"]
    store.between = lambda: other.put("etl", etl(2))

    assert await some.put("etl", etl(1)) == 1
    assert [one.version for one in (await some.versions("etl")).versions] == [2, 1]
    assert store.inserts == 1


async def test_a_put_that_nobody_confirms_says_so() -> None:
    store = Moody()
    store.moods = ["lost"] * module.TRIES
    with pytest.raises(StoreUnavailable, match="'etl' could not be confirmed; put the graph again"):
        await flows(store).put("etl", etl(1))


# Tags and names.


async def test_a_name_means_its_default_else_its_newest() -> None:
    some = flows()
    await some.put("etl", etl(1))
    await some.put("etl", etl(2))
    assert [await some.resolve("t", name) for name in ("etl", "etl@default", "etl@latest", "etl@1")] == [
        ("etl", 2, (await some.get("etl@2")).graph_ref),
        ("etl", 2, (await some.get("etl@2")).graph_ref),
        ("etl", 2, (await some.get("etl@2")).graph_ref),
        ("etl", 1, (await some.get("etl@1")).graph_ref),
    ]

    assert await some.tag("etl", 1, "default") == 1
    await some.put("etl", etl(3))
    assert [str(await some.resolve("t", name)) for name in ("etl", "etl@default", "etl@latest")] == [
        "etl@1",
        "etl@1",
        "etl@3",
    ]

    assert await some.untag("etl", "default") is True
    assert str(await some.resolve("t", "etl")) == "etl@3"
    assert await some.untag("etl", "default") is False


async def test_a_tag_is_set_by_put_moved_and_shown() -> None:
    some = flows()
    await some.put("etl", etl(1), tags=("prod", "default"))
    await some.put("etl", etl(2), tags="test")
    assert (await some.get("etl@prod")).tags == ("default", "prod")
    assert (await some.get("etl@test")).tags == ("test", "latest")

    assert await some.tag("etl", "test", "prod") == 2
    assert (await some.get("etl@prod")).tags == ("prod", "test", "latest")
    assert await some.put("etl", etl(2), tags=["default"]) == 2
    assert str(await some.resolve("t", "etl")) == "etl@2"


async def test_a_wrong_tag_stores_no_version() -> None:
    some = flows()
    with pytest.raises(FlowNameError):
        await some.put("etl", etl(1), tags=["good", "latest"])
    assert (await some.list()).flows == []


@pytest.mark.parametrize("mood", ["lost", "late"])
async def test_what_became_of_a_tag_is_found_out(mood: str) -> None:
    store = Moody()
    some = flows(store)
    await some.put("etl", etl(1), tags=["prod"])
    await some.put("etl", etl(2))
    store.moods = [mood]
    assert await some.tag("etl", 2, "prod") == 2
    assert str(await some.resolve("t", "etl@prod")) == "etl@2"


async def test_a_late_move_of_a_tag_undoes_none_after_it() -> None:
    store = Moody()
    some = flows(store)
    for n in (1, 2, 3):
        await some.put("etl", etl(n))
    await some.tag("etl", 1, "prod")
    late = FlowTag("t", "etl", "prod", 2, 2, 100.0, "ann")  # of somebody who has given up
    await some.tag("etl", 3, "prod")

    assert await store.put_flow_tag(late) is Outcome.NO_MATCH
    assert str(await some.resolve("t", "etl@prod")) == "etl@3"


async def test_those_who_move_a_tag_at_once_all_get_their_turn() -> None:
    data = MemoryData()
    some = flows(MemoryStore(data))
    for n in range(8):
        await some.put("etl", etl(n))
    await asyncio.gather(*(flows(MemoryStore(data)).tag("etl", n, "prod") for n in range(1, 9)))
    assert data.flow_tags["t", "etl"]["prod"].revision == 8


async def test_a_tag_that_nobody_confirms_says_so() -> None:
    store = Moody()
    some = flows(store)
    await some.put("etl", etl(1))
    store.moods = ["lost"] * module.TRIES
    with pytest.raises(StoreUnavailable, match="the tag 'prod' of flow 'etl' could not be confirmed"):
        await some.tag("etl", 1, "prod")


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ("elt", "there is no flow 'elt' (did you mean 'etl'?)"),
        ("zzzzzz@2", "there is no flow 'zzzzzz'"),
        ("etl@9", "flow 'etl' has no version 9: its newest is 1"),
        ("etl@prd", "flow 'etl' has no tag 'prd' (did you mean 'prod'?); it has: latest, prod"),
        ("etl@gone", "flow 'etl' has no tag 'gone'; it has: latest, prod"),
    ],
)
async def test_what_is_not_there_is_told_with_what_is_near(flow: str, said: str) -> None:
    some = flows()
    await some.put("etl", etl(1), tags=["prod", "gone"])
    await some.untag("etl", "gone")
    for ask in (some.get(flow), some.resolve("t", flow), some.diff("etl", flow)):
        with pytest.raises(FlowNotFound) as caught:
            await ask
        assert str(caught.value) == said
        assert caught.value.code == "E_FLOW_UNKNOWN"


async def test_a_flow_must_be_there_to_be_tagged() -> None:
    some = flows()
    await some.put("etl", etl(1))
    with pytest.raises(FlowNotFound, match="no version 2"):
        await some.tag("etl", 2, "prod")
    with pytest.raises(FlowNotFound, match="no flow 'x'"):
        await some.untag("x", "prod")
    with pytest.raises(FlowNotFound, match="no flow 'x'"):
        await some.versions("x")


@pytest.mark.parametrize("name", ["a b", "etl@1", "", "a/b", None])
async def test_a_bad_name_is_refused_before_anything_is_stored(name: Any) -> None:
    store = MemoryStore()
    with pytest.raises(FlowNameError):
        await flows(store).put(name, etl(1))
    assert not store.data.blobs


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (1, "E_TYPE at note: expected text, found 1"),
        ("x" * 4001, "E_VALUE at note: 4001 characters, at most 4000"),
        ("\ud800", "E_VALUE at note: a lone surrogate"),
    ],
)
async def test_a_note_that_cannot_be_kept_is_refused(note: Any, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        await flows().put("etl", etl(1), note=note)
    assert said in str(caught.value)


# Lists and differences.


async def test_flows_are_listed_by_name_page_by_page() -> None:
    some = flows()
    for name, count in {"b": 1, "a": 3, "c": 2}.items():
        for n in range(count):
            await some.put(name, etl(n), note=f"{name}{n}")
    await some.tag("a", 2, "default")
    await some.tag("a", 1, "old")
    await some.tag("c", 1, "gone")
    await some.untag("c", "gone")

    first = await some.list(limit=2)
    rest = await some.list(limit=2, cursor=first.cursor)

    told = [(f.name, f.newest, f.default, f.count, f.tags, f.note) for f in [*first.flows, *rest.flows]]
    assert told == [
        ("a", 3, 2, 3, {"default": 2, "old": 1, "latest": 3}, "a2"),
        ("b", 1, 1, 1, {"latest": 1}, "b0"),
        ("c", 2, 2, 2, {"latest": 2}, "c1"),
    ]
    assert rest.cursor is None


async def test_versions_are_listed_newest_first_page_by_page() -> None:
    some = flows()
    for n in range(5):
        await some.put("etl", etl(n))
    await some.tag("etl", 4, "default")

    pages = [await some.versions("etl", limit=2)]
    while (cursor := pages[-1].cursor) is not None:
        pages.append(await some.versions("etl", limit=2, cursor=cursor))

    assert [[one.version for one in page.versions] for page in pages] == [[5, 4], [3, 2], [1]]
    assert [one.tags for one in pages[0].versions] == [("latest",), ("default",)]
    with pytest.raises(ValueError, match="'x' is not a cursor"):
        await some.versions("etl", cursor="x")


async def test_two_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    some = flows()
    await some.put("etl", etl(1))
    await some.put("etl", etl(2), tags=["prod"])

    found = await some.diff("etl@1", "etl@prod")

    assert (found.old, found.new) == ("etl@1", "etl@2")
    assert found.nodes_changed == (NodeChange("a", (Change("inputs.n", "changed", 1, 2),)),)
    monkeypatch.setattr(module, "LARGE_NODES", 0)
    assert await some.diff("etl@1", "etl@prod") == found
    assert (await some.diff("etl@prod", "etl")).same


async def test_what_a_caller_does_to_a_graph_that_it_got_changes_nothing() -> None:
    some = flows()
    await some.put("etl", etl(1))
    (await some.get("etl")).graph["nodes"].clear()
    assert len((await some.get("etl")).graph["nodes"]) == 1


# Tenants.


async def test_tenants_do_not_see_each_others_flows() -> None:
    store = MemoryStore()
    ours, theirs = flows(store), flows(store, tenant="u")
    assert await ours.put("etl", etl(1), tags=["prod"]) == 1
    assert await ours.put("etl", etl(2)) == 2
    await ours.put("secret", etl(3))

    assert (await theirs.list()).flows == []
    for ask in (theirs.get("etl"), theirs.get("secret"), theirs.versions("etl"), theirs.tag("etl", 1, "x")):
        with pytest.raises(FlowNotFound):
            await ask
    with pytest.raises(FlowNotFound) as caught:
        await theirs.get("secre")
    assert "secret" not in str(caught.value)

    assert await theirs.put("etl", etl(5)) == 1
    assert [flow.name for flow in (await ours.list()).flows] == ["etl", "secret"]
    assert (await ours.get("etl@prod")).version == 1
    assert str(await ours.resolve("u", "etl")) == "etl@1"
    assert (await ours.resolve("u", "etl")).graph_ref == (await theirs.get("etl")).graph_ref


# Tasks of flows.


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(db=tmp_path / "flow.db") as client:
        yield client


async def test_a_task_is_pinned_to_the_version_that_its_flow_meant(client: Client) -> None:
    await client.put_flow("etl", etl(1) | {"name": "of the graph"})
    await client.put_flow("etl", etl(2), tags=["prod"])
    await client.put_flow("etl", etl(3))

    ids = [await client.create_task(flow=flow) for flow in ("etl@1", "etl@prod", "etl")]
    await client.tag_flow("etl", 1, "default")
    ids.append(await client.create_task(flow="etl"))

    views = [await client.get_task(task_id) for task_id in ids]
    assert [view.flow for view in views] == ["etl@1", "etl@2", "etl@3", "etl@1"]
    assert [view.name for view in views] == ["of the graph", "", "", "of the graph"]
    assert views[1].graph == (await client.get_flow("etl@2")).graph_ref

    async def listed(flow: str) -> list[str]:
        return [head.task_id for head in (await client.list_tasks(flow=flow)).heads]

    assert await listed("etl") == ids[::-1]
    assert await listed("etl@1") == [ids[3], ids[0]]
    assert await listed("etl@prod") == [ids[1]]
    with pytest.raises(FlowNameError):
        await listed("etl@")


async def test_tasks_that_are_created_together_run_one_version_of_a_flow(client: Client) -> None:
    await client.put_flow("etl", etl(1))
    ids = await client.create_tasks([{"flow": "etl"}, {"graph": etl(1)}, {"flow": "etl", "params": {"x": 1}}])
    assert [(await client.get_task(task_id)).flow for task_id in ids] == ["etl@1", "", "etl@1"]


async def test_a_task_is_of_a_graph_or_of_a_flow(client: Client) -> None:
    await client.put_flow("etl", etl(1))
    with pytest.raises(GraphError, match="E_KEY_CONFLICT at graph: give a graph or a flow, not both"):
        await client.create_task(graph=etl(1), flow="etl")
    with pytest.raises(GraphError, match="E_KEY_MISSING at graph: a task needs a graph, or a flow such as 'etl@3'"):
        await client.create_task()
    with pytest.raises(FlowNotFound, match="did you mean 'etl'"):
        await client.create_task(flow="elt")
    with pytest.raises(FlowNameError):
        await client.create_task(flow="e t l")
    assert (await client.list_tasks()).heads == []


async def test_a_key_gives_the_same_task_though_a_tag_has_moved(client: Client) -> None:
    await client.put_flow("etl", etl(1))
    task_id = await client.create_task(flow="etl", idempotency_key="k")
    await client.put_flow("etl", etl(2), tags=["default"])

    assert await client.create_task(flow="etl", idempotency_key="k") == task_id
    assert (await client.get_task(task_id)).flow == "etl@1"
    for other in ({"flow": "etl@1"}, {"graph": etl(1)}, {"flow": "etl", "params": {"x": 1}}):
        with pytest.raises(IdempotencyConflict):
            await client.create_task(**other, idempotency_key="k")  # type: ignore[arg-type]


async def test_a_graph_is_validated_without_being_stored(client: Client) -> None:
    await client.validate_graph(etl(1))
    await client.validate_graph(etl(1), params={"a": 1})
    with pytest.raises(GraphError, match="E_PARENT_UNKNOWN"):
        await client.validate_graph(graph(node("a", "nobody")))
    with pytest.raises(GraphError, match="E_VALUE at params"):
        await client.validate_graph(etl(1), params={"a": float("nan")})

    (count,) = await client.backend.store._file.read("SELECT count(*) FROM blobs", [], lambda row: row, few=True)  # type: ignore[attr-defined]
    assert count == (0,)
