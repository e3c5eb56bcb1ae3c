"""Graphs as older code writes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit.errors import GraphError
from tests.compat.conftest import House

OLDEST = {"retry_policy": {"max": 2, "backoff_sec": 300, "permanent_on": ["bad_input", "schema_mismatch"]}}
LEFT_BEHIND = {
    "status": "queued", "attempt_epoch": 0, "lease": {}, "stats": {}, "streaming": {}, "started_at": None,
    "finished_at": None, "last_event_recv_ms": 0, "next_retry_at_ms": None,
}  # fmt: skip


class Order:
    """Notes which node ran when."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def __call__(self, ctx: Any) -> str:
        self.ran.append(ctx.node_id)
        return str(ctx.node_id)


def node(node_id: str, *parents: str, **more: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "it", **({"depends_on": list(parents)} if parents else {}), **more}


async def ran(house: House, *nodes: dict[str, Any], **more: Any) -> list[str]:
    order = Order()
    result = await house.run({"schema_version": "1.0", "nodes": list(nodes), "edges": [], **more}, {"it": order})
    assert result.status == "finished", result.error
    return order.ran


async def test_a_graph_of_edges_alone_runs_in_their_order(any_house: House) -> None:
    nodes = [node("z"), node("x"), node("y")]

    assert await ran(any_house, *nodes, edges=[["x", "y"], ["y", "z"]]) == ["x", "y", "z"]


async def test_dependencies_and_edges_mean_the_same(house: House) -> None:
    assert await ran(house, node("c", "b"), node("b"), node("a"), edges=[["a", "b"], ["b", "c"]]) == ["a", "b", "c"]


async def test_what_a_run_left_behind_is_ignored(house: House) -> None:
    assert await ran(house, node("a", **LEFT_BEHIND), node("b", "a", **{**LEFT_BEHIND, "status": None})) == ["a", "b"]


async def test_every_documented_key_is_accepted(house: House) -> None:
    io = {"input_inline": {"data": 1}, "input_ref": {"uri": "x"}, "batching": {"size": 2}, "start_when": "ready"}

    async def it(data: int) -> int:
        return data

    nodes = [node("a", io=io, fan_in="all", **OLDEST)]
    result = await house.run({"schema_version": "1.0", "nodes": nodes, "edges": [], "edges_ex": []}, {"it": it})

    assert result.output == 1


@pytest.mark.parametrize("fan_in", ["any", "count:1", "count:2"])
async def test_a_join_starts_with_as_many_as_it_says(house: House, fan_in: str) -> None:
    blocked = asyncio.Event()
    need = 2 if fan_in == "count:2" else 1

    async def parent(ctx: Any) -> str:
        if int(ctx.node_id) >= need:
            await blocked.wait()
        return str(ctx.node_id)

    async def join(inputs: Any) -> list[str]:
        blocked.set()
        return sorted(inputs)

    graph = {
        "nodes": [{"node_id": str(i), "type": "parent"} for i in range(3)]
        + [{"node_id": "join", "type": "join", "depends_on": ["0", "1", "2"], "fan_in": fan_in}],
        "edges": [],
    }

    result = await house.run(graph, {"parent": parent, "join": join})

    assert result.status == "finished"
    assert result.outputs["join"] == [str(i) for i in range(need)]


async def test_routing_leads_to_one_side_or_the_other(house: House) -> None:
    async def good() -> str:
        return "good"

    async def bad() -> None:
        raise ValueError("bad")

    async def fine(ctx: Any) -> str:
        return str(ctx.node_id)

    def graph(kind: str) -> dict[str, Any]:
        routing = {"on_success": ["next"], "on_failure": ["repair"]}
        return {"nodes": [{"node_id": "a", "type": kind, "routing": routing}, {"node_id": "next", "type": "fine"},
                          {"node_id": "repair", "type": "fine"}]}  # fmt: skip

    handlers = {"good": good, "bad": bad, "fine": fine}
    well, badly = await house.run(graph("good"), handlers), await house.run(graph("bad"), handlers)

    assert (well.status, well.outputs) == ("finished", {"a": "good", "next": "next"})
    assert (badly.status, badly.outputs) == ("finished", {"repair": "repair"}), "the failure was handled"


async def test_inline_input_that_looks_like_a_reference_is_taken_as_it_is(house: House) -> None:
    async def it(inputs: Any) -> Any:
        return inputs

    io = {"input_inline": {"query": {"$from": "orders"}, "price": {"$gt": 3}}}

    result = await house.run({"nodes": [{"node_id": "a", "type": "it", "io": io}]}, {"it": it})

    assert result.output == io["input_inline"]


@pytest.mark.parametrize(
    ("nodes", "edges", "code"),
    [
        ([node("a"), node("a")], [], "E_NODE_DUPLICATE_ID"),
        ([node("a", "b")], [], "E_PARENT_UNKNOWN"),
        ([node("a", "b"), node("b", "a")], [], "E_CYCLE"),
        ([node("a"), node("b")], [["a", "b"], ["b", "a"]], "E_CYCLE"),
    ],
)
async def test_what_could_never_run_is_refused(house: House, nodes: Any, edges: Any, code: str) -> None:
    async with house.coordinator() as coordinator:
        with pytest.raises(GraphError) as caught:
            await coordinator.create_task(params={}, graph={"nodes": nodes, "edges": edges})

    assert code in {problem.code for problem in caught.value.problems}
