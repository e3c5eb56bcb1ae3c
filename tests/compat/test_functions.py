"""Coordinator functions as older graphs call them."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.worker import EchoHandler
from tests.compat.conftest import House

ECHO = {"echo": EchoHandler()}


def call(name: str, fn: str, /, *parents: str, **fn_args: Any) -> dict[str, Any]:
    io = {"fn": fn, "fn_args": fn_args}
    return {"node_id": name, "type": "coordinator_fn", "depends_on": list(parents), "io": io}


def says(node_id: str, value: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "echo", "io": {"input_inline": value}}


async def test_variables_are_set_merged_counted_and_removed(any_house: House) -> None:
    graph = {
        "nodes": [
            call("set", "vars.set", kv={"run": {"mode": "full", "tries": 1}, "tag.color": "red"}),
            call("merge", "vars.merge", "set", data={"run": {"owner": "me"}}, block_sensitive=True),
            call("incr", "vars.incr", "merge", key="run.tries", by=2),
            call("unset", "vars.unset", "incr", keys=["tag.color", "run.mode"]),
        ],
        "output": {"run": {"$var": "run"}, "tag": {"$var": "tag", "default": "gone"}},
    }

    result = await any_house.run(graph, ECHO)

    assert result.status == "finished", result.error
    assert result.outputs == {
        "set": {"ok": True, "touched": 3},
        "merge": {"ok": True, "touched": 1},
        "incr": {"ok": True, "key": "run.tries", "by": 2},
        "unset": {"ok": True, "touched": 2},
    }
    assert result.output == {"run": {"tries": 3, "owner": "me"}, "tag": "gone"}


async def test_outputs_are_merged_and_metrics_added_up(house: House) -> None:
    graph = {
        "nodes": [
            says("a", {"metrics": {"rows": 3}, "x": 1}),
            says("b", {"metrics": {"rows": 4}, "y": 2}),
            call("merge", "merge.generic", "a", "b", from_nodes=["a", "b"], target={"node_id": "merge"}),
            call("sum", "metrics.aggregate", "merge", node_id="a"),
            call("mean", "metrics.aggregate", "merge", node_id="b", mode="mean"),
            call("nothing", "noop", "sum", "mean"),
        ]
    }

    outputs = (await house.run(graph, ECHO)).outputs

    assert outputs["merge"] == {"ok": True, "meta": {"metrics": {"rows": 4}, "x": 1, "y": 2}}
    assert outputs["sum"] == {"ok": True, "mode": "sum", "stats": {"rows": 3}}
    assert outputs["mean"] == {"ok": True, "mode": "mean", "stats": {"rows": 4}}
    assert outputs["nothing"] == {"ok": True}


async def test_variables_may_choose_the_way(house: House) -> None:
    graph = {
        "nodes": [
            call("choose", "vars.set", route="left"),
            {"node_id": "left", "type": "echo", "inputs": {"went": {"$var": "route"}}},
            {"node_id": "right", "type": "echo", "inputs": {}},
        ],
        "edges": [
            {"from": "choose", "to": "left", "when": "vars.route == 'left'"},
            {"from": "choose", "to": "right", "otherwise": True},
        ],
    }

    result = await house.run(graph, ECHO)

    assert result.outputs == {"choose": {"ok": True, "touched": 1}, "left": {"went": "left"}}


@pytest.mark.parametrize(
    ("fn", "fn_args", "code"),
    [
        ("vars.set", {"$where": 1}, "bad_path"),
        ("vars.set", {"kv": {"a..b": 1}}, "bad_path"),
        ("vars.set", {"kv": {"x" * 129: 1}}, "bad_path"),
        ("vars.set", {"kv": {f"v{i}": i for i in range(257)}}, "too_many_paths"),
        ("vars.set", {"text": "x" * 70_000}, "value_too_large"),
        ("vars.incr", {"key": "text"}, "not_a_number"),
        ("vars.incr", {"key": "n", "by": "2"}, "bad_amount"),
        ("merge.generic", {"from_nodes": ["nobody"]}, "no_output"),
    ],
)
async def test_a_function_that_cannot_do_it_fails_its_node_at_once(
    house: House, fn: str, fn_args: dict[str, Any], code: str
) -> None:
    graph = {"nodes": [call("first", "vars.set", text="no number"), call("it", fn, "first", **fn_args)]}

    result = await house.run(graph, ECHO)

    assert (result.status, result.error["code"], result.error["node_id"]) == ("failed", code, "it")


class Blocks:
    def is_sensitive(self, key_path: str, value: Any) -> bool:
        return key_path == "db.password"


class Breaks:
    def is_sensitive(self, key_path: str, value: Any) -> bool:
        raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("detector", "value", "block", "code"),
    [
        (None, "tR7xq2LmV9sKd04ZbWcE", True, "sensitive_value"),
        (None, "tR7xq2LmV9sKd04ZbWcE", False, None),
        (None, "hunter2", True, None),
        (Blocks(), "hunter2", True, "sensitive_value"),
        (Blocks, "hunter2", True, "sensitive_value"),
        (lambda key_path, value: value == "hunter2", "hunter2", True, "sensitive_value"),
        (lambda key_path, value: False, "tR7xq2LmV9sKd04ZbWcE", True, None),
        (Breaks(), "hunter2", True, "sensitive_detector"),
    ],
)
async def test_secrets_are_kept_out_of_variables_where_that_is_asked_for(
    house: House, detector: Any, value: str, block: bool, code: str | None
) -> None:
    graph = {"nodes": [call("set", "vars.set", kv={"db": {"password": value}}, block_sensitive=block)]}

    result = await house.run(graph, ECHO, sensitive_detector=detector)

    assert (result.error or {}).get("code") == code
    assert value not in str(result.error)


async def test_a_detector_counts_after_a_restart_of_the_task_too(house: House) -> None:
    asked = []

    def detector(key_path: str, value: Any) -> bool:
        asked.append(key_path)
        return len(asked) > 1

    graph = {"nodes": [call("set", "vars.set", kv={"a": 1}, block_sensitive=True)]}
    async with house.coordinator(sensitive_detector=detector) as coordinator:
        task_id = await coordinator.create_task(params={}, graph=graph)
        assert (await coordinator.wait_task(task_id, timeout=60)).status == "finished"
        await coordinator.restart_task(task_id)
        result = await coordinator.wait_task(task_id, timeout=60)

    assert (result.status, result.error["code"]) == ("failed", "sensitive_value")
    assert asked == ["a", "a"]


async def test_a_built_in_function_may_be_replaced_by_ones_own(house: House) -> None:
    async def vars_set(task_id: str, **kv: Any) -> list[str]:
        return sorted(kv)

    graph = {"nodes": [call("set", "vars.set", a=1, b=2)]}

    assert (await house.run(graph, ECHO, adapters={"vars.set": vars_set})).output == ["a", "b"]


async def test_it_is_replaced_in_flows_and_restarts_too(house: House) -> None:
    async def noop(task_id: str, **kv: Any) -> str:
        return "mine"

    graph = {"nodes": [call("it", "noop")]}
    async with house.coordinator(adapters={"noop": noop}) as coordinator:
        await coordinator.put_flow("older", graph)
        task_id = await coordinator.create_task(params={}, flow="older")
        assert (await coordinator.wait_task(task_id, timeout=60)).output == "mine"

        edited = {"nodes": [call("it", "noop"), call("more", "noop", "it")]}
        await coordinator.restart_task(task_id, graph=edited)
        assert (await coordinator.wait_task(task_id, timeout=60)).outputs == {"it": "mine", "more": "mine"}


async def test_many_tasks_may_call_functions_of_ones_own(house: House) -> None:
    async def noop(task_id: str, n: int) -> int:
        return n

    graphs = [{"nodes": [call("it", "noop", n=n)]} for n in range(3)]
    async with house.coordinator(adapters={"noop": noop}) as coordinator:
        task_ids = await coordinator.create_tasks([{"graph": graph} for graph in graphs])
        results = [await coordinator.wait_task(task_id, timeout=60) for task_id in task_ids]

    assert [result.output for result in results] == [0, 1, 2]
