"""Graphs are read once, however many ask, and the cache counts what it holds."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator import graphs as module
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.off_loop import SWITCH_SEC
from flowkit.core.dialect import normalise, parse_graph
from flowkit.errors import Corrupt, GraphError
from flowkit.wire.codec import dumps
from tests.core.builders import graph, node


class Counting(MemoryStore):
    """Counts what is read, and takes a moment to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        self.read.append(ref)
        await asyncio.sleep(0)
        return await super().get_blob(ref, kind=kind)


def text(size: int, name: str = "g") -> bytes:
    return dumps(graph(*(node(f"n{n}") for n in range(size)), name=name))


async def stored(store: MemoryStore, data: bytes) -> str:
    read = await module.read_raw(module.loads(data))
    await Graphs(store).put(read)
    return read.ref


class Puts(MemoryStore):
    """Notes when which graph was put."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[str, float]] = []

    async def put_blob(self, ref: str, data: bytes, *, kind: str, at: float = 0.0, **more: Any) -> None:
        self.puts.append((ref, at))
        await super().put_blob(ref, data, kind=kind, at=at, **more)


async def test_a_graph_that_is_known_is_put_anew_once_an_hour_and_only_by_those_who_begin_tasks_of_it() -> None:
    store, clock, raw = Puts(), ManualClock(100.0), module.loads(text(3))
    graphs = Graphs(store, clock)
    ref, _ = await graphs.take(raw)
    at = [100.0]
    for seconds in (0.0, module.PUT_AGAIN_SEC - 1, 2.0, 10.0):
        clock.advance(seconds)
        assert (await graphs.take(raw))[0] == ref
        await graphs.get(ref)
        if seconds == 2.0:
            at.append(clock.now)

    assert store.puts == [(ref, when) for when in at]

    reader = Graphs(store, clock)
    await reader.get(ref)
    assert len(store.puts) == 2
    await reader.take(raw)
    assert len(store.puts) == 3, "that it was read says nothing of how long it will stand"


async def test_many_who_ask_at_once_read_once_and_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_NODES", 10)
    store = Counting()
    refs = [await stored(store, text(4, name)) for name in "ab"]
    graphs = Graphs(store)

    for ref in refs:
        found = await asyncio.gather(*[graphs.get(ref) for _ in range(50)])
        assert all(one is found[0] for one in found)

    assert store.read == refs
    assert all(graphs.known(ref) is not None for ref in refs)  # eight nodes in all: there is room for both


async def test_putting_what_is_being_read_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_NODES", 7)
    store = Counting()
    data = text(4)
    ref = await stored(store, data)
    other = await stored(store, text(3, "other"))
    graphs = Graphs(store)

    await asyncio.gather(graphs.get(ref), graphs.put(await module.read_raw(module.loads(data))))
    await graphs.get(other)

    assert graphs.known(ref) is not None


async def test_one_who_gives_up_does_not_take_the_graph_from_the_others() -> None:
    store = Counting()
    ref = await stored(store, text(1))
    graphs = Graphs(store)

    first, second = asyncio.ensure_future(graphs.get(ref)), asyncio.ensure_future(graphs.get(ref))
    await asyncio.sleep(0)
    first.cancel()

    assert list((await second).nodes) == ["n0"]


async def test_a_graph_that_is_not_there_is_looked_for_again() -> None:
    store = Counting()
    graphs = Graphs(store)
    answers: list[Any] = await asyncio.gather(*[graphs.get("r") for _ in range(3)], return_exceptions=True)
    assert [type(answer) for answer in answers] == [Corrupt] * 3

    with pytest.raises(Corrupt):
        await graphs.get("r")
    assert store.read == ["r", "r"]


@pytest.mark.parametrize("size", [3, module.LARGE_NODES + 1])
async def test_a_graph_is_stored_as_its_normal_form_and_read_back_the_same(size: int) -> None:
    interval = sys.getswitchinterval()
    raw = graph(*(node(f"n{n}") for n in range(size)), edges=[["n0", "n1"]])

    read = await module.read_raw(raw)

    assert module.loads(read.text) == normalise(raw)
    assert await module.parse_text(read.text) == read.graph == parse_graph(raw)
    assert sys.getswitchinterval() == interval


async def test_while_a_large_graph_is_read_the_loop_is_let_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    seen = []
    monkeypatch.setattr(module, "_read_raw", lambda *_: seen.append(sys.getswitchinterval()))
    large = {"nodes": [{}] * (module.LARGE_NODES + 1)}

    await asyncio.gather(module.read_raw(large), module.read_raw(large))

    assert seen == [pytest.approx(SWITCH_SEC)] * 2
    assert sys.getswitchinterval() == before


async def test_a_graph_that_comes_again_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read_graph = module.read_graph
    monkeypatch.setattr(module, "read_graph", lambda raw: reads.append(raw) or read_graph(raw))
    graphs = Graphs(Counting())

    first = await graphs.take(graph(node("a")))
    again = await graphs.take(graph(node("a")))
    other = await graphs.take(graph(node("b")))

    assert first == again != other
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("good", "bad"),
    [({"x": None}, {"x": float("nan")}), ({"1": 0}, {1: 0}), ({"x": []}, {"x": set()}), ({"x": "YQ=="}, {"x": b"a"})],
)
async def test_what_must_be_refused_is_not_taken_for_what_was_accepted(good: Any, bad: Any) -> None:
    graphs = Graphs(Counting())
    await graphs.take(graph(node("a", inputs=good)))

    with pytest.raises(GraphError):
        await graphs.take(graph(node("a", inputs=bad)))


async def test_what_cannot_even_be_looked_at_is_refused_by_whoever_reads_it() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(GraphError):
        await Graphs(Counting()).take(graph(node("a", inputs={"x": deep})))


SENSELESS = graph(
    node("nap", type="sleep", inputs={"seconds": 1, "unit": "s"}),
    node("call", losers="cancel"),
    output={"$stream": "call"},
)
"""What can be read, and is refused by those who ask whether it means something."""


async def test_what_an_earlier_version_accepted_goes_on_though_this_one_would_refuse_it() -> None:
    store = MemoryStore()
    with pytest.raises(GraphError):
        await Graphs(store).take(SENSELESS)
    await store.put_blob("old", dumps(SENSELESS), kind="graph", at=0.0)
    found = await Graphs(store).get("old")
    assert list(found.nodes) == ["nap", "call"]
    assert found.nodes["nap"].inputs == {"seconds": 1, "unit": "s"}

    graphs = Graphs(store)
    ref, part = await graphs.take(SENSELESS, accepted=True)
    assert list((await Graphs(store).get(ref)).nodes) == list(part.nodes)
    with pytest.raises(GraphError):
        await graphs.take(SENSELESS)  # that it was known as a part of another makes it no better


@pytest.mark.parametrize("broken", [
    {"nodes": [{"node_id": "a", "type": "t", "inputs": {"$from": "b"}}], "edges": []},
    {"nodes": [{"node_id": "a", "type": "t"}], "edges": [["a", "b"]]},
    {"nodes": [{"node_id": "a", "type": "t", "timeout_sec": "soon"}], "edges": []},
    {"nodes": [{"type": "t"}], "edges": []},
])  # fmt: skip
async def test_what_cannot_be_read_is_told_whoever_accepted_it(broken: dict[str, Any]) -> None:
    store = MemoryStore()
    await store.put_blob("broken", dumps(broken), kind="graph", at=0.0)
    with pytest.raises(GraphError, match=r"nodes|edges"):
        await Graphs(store).get("broken")


async def test_what_never_made_sense_is_corrupt_and_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_sense(raw: Any, **_: Any) -> Any:
        raise KeyError("code")

    monkeypatch.setattr(module, "parse_graph", no_sense)
    monkeypatch.setattr(module, "read_graph", no_sense)
    store = MemoryStore()
    await store.put_blob("never", text(1), kind="graph", at=0.0)
    graphs = Graphs(store)
    with pytest.raises(Corrupt, match="makes no sense: KeyError"):
        await graphs.get("never")
    with pytest.raises(Corrupt, match="makes no sense: KeyError"):
        await graphs.take(module.loads(text(1)), accepted=True)
