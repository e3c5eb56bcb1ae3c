"""Values too large to travel, wherever a graph lets them go: lists to map over, items, conditions, sub-graphs."""

from __future__ import annotations

from typing import Any

import pytest

import flowkit

BLOB = "x" * 70_000
ROWS = 2000


async def items(n: int) -> list[dict[str, Any]]:
    return [{"i": i, "pad": "p" * 40} for i in range(n)]


async def table() -> dict[str, Any]:
    return {"ok": True, "rows": [{"v": [k, k + 1, k + 2], "pad": "z" * 50} for k in range(ROWS)]}


async def double(i: int) -> int:
    return 2 * i


async def big(i: int) -> dict[str, Any]:
    return {"i": i, "blob": BLOB}


async def total(parts: list[int]) -> int:
    return sum(parts)


async def check(parts: list[dict[str, Any]]) -> list[int]:
    assert all(part["blob"] == BLOB for part in parts)
    return [part["i"] for part in parts]


async def give(inputs: Any) -> Any:
    return inputs


HANDLERS = [items, table, double, big, total, check, give]
LIST = {"node_id": "list", "type": "items"}
TABLE = {"node_id": "table", "type": "table", "inputs": {}}
SUM = {"node_id": "sum", "type": "total", "inputs": {"parts": {"$from": "map"}}}


def mapped(role: str, source: Any = "list", item: str = "i", name: str = "map", **more: Any) -> dict[str, Any]:
    inputs = {"parts" if role == "total" else "i": {"$item": item}}
    return {"node_id": name, "type": role, "foreach": {"$from": source}, "inputs": inputs, **more}


async def output_of(nodes: list[dict[str, Any]], params: Any = None, **more: Any) -> Any:
    result = await flowkit.arun({"nodes": nodes, **more}, handlers=HANDLERS, params=params or {}, timeout=50)
    return result.output


async def test_a_map_over_a_list_that_is_an_artifact() -> None:
    assert await output_of([LIST, mapped("double"), SUM], {"n": 1500}) == 1500 * 1499


async def test_a_map_over_a_part_of_an_artifact() -> None:
    nodes = [TABLE, mapped("total", "table.rows", "v"), SUM]
    assert await output_of(nodes) == sum(3 * k + 3 for k in range(ROWS))


async def test_items_whose_outputs_are_artifacts_reach_who_joins_them_and_who_asked() -> None:
    joined = {"node_id": "check", "type": "check", "inputs": {"parts": {"$from": "map"}}}
    assert await output_of([LIST, mapped("big"), joined], {"n": 20}) == list(range(20))
    assert await output_of([LIST, mapped("big")], {"n": 3}) == [{"i": i, "blob": BLOB} for i in range(3)]


async def test_a_map_of_what_a_map_gave() -> None:
    twice = mapped("double", "map", "", "again")
    last = {"node_id": "sum", "type": "total", "inputs": {"parts": {"$from": "again"}}}
    assert await output_of([LIST, mapped("double"), twice, last], {"n": 300}) == 4 * sum(range(300))
    twice = mapped("double", "map", "i", "again")
    assert await output_of([LIST, mapped("big"), twice, last], {"n": 12}) == 2 * sum(range(12))


async def test_a_map_over_single_values_that_are_artifacts() -> None:
    node = {"node_id": "map", "type": "give", "foreach": [{"$from": "table.rows[5]"}, {"$from": "b"}, 7]}
    first, second, third = await output_of([TABLE, {"node_id": "b", "type": "big", "inputs": {"i": 3}}, node])
    assert (first["v"], second, third) == ([5, 6, 7], {"i": 3, "blob": BLOB}, 7)


async def test_maps_inside_maps_by_sub_graphs() -> None:
    inner = {"nodes": [mapped("double", item="", name="in") | {"foreach": {"$param": "xs"}}]}
    outer = {"node_id": "map", "type": "task", "graph": inner, "foreach": {"$param": "xss"}}
    xss = [list(range(k, k + 20)) for k in range(15)]
    found = await output_of([{**outer, "inputs": {"xs": {"$item": ""}}}], {"xss": xss})
    assert found == [[2 * x for x in xs] for xs in xss]

    large = {"nodes": [mapped("big", item="", name="in") | {"foreach": {"$param": "xs"}}]}
    nodes = [{**outer, "graph": large, "inputs": {"xs": {"$item": ""}}}]
    found = await output_of(nodes, {"xss": [[1, 2], [3], []]})
    assert found == [[{"i": i, "blob": BLOB} for i in xs] for xs in ([1, 2], [3], [])]


async def test_the_params_of_a_sub_graph_may_be_an_artifact() -> None:
    inner = {"nodes": [{"node_id": "in", "type": "give", "inputs": {"$param": ""}}]}
    child = {"node_id": "c", "type": "task", "graph": inner, "inputs": {"rows": {"$from": "table.rows"}}}
    assert await output_of([TABLE, child], output={"$from": "c.rows[3].v"}) == [3, 4, 5]


async def test_conditions_see_large_outputs() -> None:
    nodes = [
        TABLE,
        {"node_id": "yes", "type": "give", "inputs": {"n": {"$expr": "size(nodes['table'].output.rows)"}}},
        {"node_id": "no", "type": "give", "inputs": {}},
        {"node_id": "own", "type": "give", "inputs": {}, "when": "nodes['table'].output.rows[7].v[1] == 8"},
    ]
    edges = [
        {"from": "table", "to": "yes", "when": f"output.ok && size(output.rows) == {ROWS}"},
        {"from": "table", "to": "no", "otherwise": True},
    ]
    assert await output_of(nodes, edges=edges) == {"yes": {"n": ROWS}, "own": {}}

    after = {"node_id": "after", "type": "give", "inputs": {"x": 1}}
    edge = {"from": "map", "to": "after", "when": "size(output) == 9 && output[7].i == 7"}
    assert await output_of([LIST, mapped("big"), after], {"n": 9}, edges=[edge]) == {"x": 1}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_map_over_the_most_items_whose_list_is_an_artifact() -> None:
    graph = {"nodes": [LIST, mapped("double"), SUM]}
    async with flowkit.Embedded(handlers=HANDLERS) as engine:
        task = await engine.submit(graph, params={"n": 100_000})
        assert (await task.result(timeout=280)).output == 100_000 * 99_999
        view = await task.view()
        assert (len(view.nodes), view.nodes["map[99999]"].output) == (100_003, 199_998)
        assert await task.explain() == []
