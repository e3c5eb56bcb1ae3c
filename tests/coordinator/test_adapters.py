"""Coordinator functions by name: the built-in ones, and those of the user's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flowkit.coordinator.adapters import AdapterError, CoordinatorAdapters, default_adapters
from flowkit.core.functions import FUNCTIONS
from flowkit.errors import ConfigError


def echo(task_id: str, **kv: Any) -> Any:
    return kv


def calls(name: Any, **io: Any) -> dict[str, Any]:
    return {"node_id": "n", "type": "coordinator_fn", "io": {"fn": name, **io}}


EXTENDED = CoordinatorAdapters({**default_adapters(db=None, clock=None), "vars.echo": echo, "noop": echo})


def test_the_built_in_functions_are_there_by_default() -> None:
    adapters = CoordinatorAdapters()

    assert tuple(adapters) == FUNCTIONS == tuple(adapters.keys()) == tuple(adapters.names)
    assert len(adapters) == len(FUNCTIONS)
    assert "vars.set" in adapters
    assert adapters.own == {}
    graph = {"nodes": [calls("noop")]}
    assert adapters.resolve(graph) is graph


def test_what_is_given_replaces_them() -> None:
    adapters = CoordinatorAdapters({"vars.echo": echo})

    assert list(adapters) == adapters.names == ["vars.echo"]
    assert adapters["vars.echo"] is echo
    assert adapters.own == {"coordinator_fn.vars.echo": echo}


def test_a_built_in_function_may_be_overridden() -> None:
    assert EXTENDED.own == {"coordinator_fn.vars.echo": echo, "coordinator_fn.own.noop": echo}
    assert {"vars.set", "vars.echo", "own.noop"} <= set(EXTENDED.names)
    assert "noop" not in EXTENDED.names


def test_nodes_that_call_an_overridden_function_are_told_apart() -> None:
    others = [{"node_id": "b", "type": "greet"}, calls("vars.set"), calls("vars.echo")]
    graph = {"nodes": [calls("noop", fn_args={"k": {"$from": "b"}}), *others], "edges": []}
    before = copy.deepcopy(graph)

    resolved = EXTENDED.resolve(graph)

    assert graph == before
    assert resolved == {"nodes": [calls("own.noop", fn_args={"k": {"$from": "b"}}), *others], "edges": []}


def test_graphs_inside_graphs_are_looked_at_too() -> None:
    graph = {"nodes": [{"node_id": "child", "type": "task", "graph": {"nodes": [calls("noop")]}}]}

    assert EXTENDED.resolve(graph)["nodes"][0]["graph"] == {"nodes": [calls("own.noop")]}


@pytest.mark.parametrize(
    "graph", [None, [], {}, {"nodes": None}, {"nodes": [None, 3, {}]}, {"nodes": [{"type": "coordinator_fn"}]},
              {"nodes": [{"type": "coordinator_fn", "io": 3}]}, {"nodes": [calls(3)]}, {"nodes": [calls("vars.set")]}]
)  # fmt: skip
def test_what_is_no_graph_is_left_to_the_reader(graph: Any) -> None:
    assert EXTENDED.resolve(graph) is graph


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        ({"": echo}, "has a name"),
        ({3: echo}, "has a name"),
        ({"a:b": echo}, "has a name"),
        ({"x": 3}, "must be a"),
        ([echo], "a name for each function"),
    ],
)
def test_what_cannot_be_called_is_refused(functions: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CoordinatorAdapters(functions)


def test_a_detector_belongs_to_the_coordinator() -> None:
    with pytest.raises(ConfigError, match="sensitive_detector"):
        default_adapters(detector=echo)


def test_a_built_in_function_cannot_be_called_from_outside() -> None:
    with pytest.raises(AdapterError, match=r"vars.set is a part of deciding about its task") as caught:
        default_adapters()["vars.set"]("task", a=1)
    assert caught.value.code == "not_callable"
