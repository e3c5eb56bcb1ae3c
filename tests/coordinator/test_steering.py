"""What callers say of a restart, before anything is asked of the task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import flowkit
from flowkit.errors import GraphError
from tests.core.builders import graph, node


@pytest.fixture
async def ended() -> AsyncIterator[Any]:
    async with flowkit.Embedded(handlers={"work": lambda: 1}) as engine:
        task = await engine.submit(graph(node("a"), node("b", "a")))
        await task.wait(timeout=60)
        yield task


async def test_a_misspelt_option_is_refused_and_nothing_runs_again(ended: Any) -> None:
    with pytest.raises(TypeError, match=r"a restart has no option 'form_node' \(did you mean 'from_node'\?\)"):
        await ended.restart(form_node="b")
    with pytest.raises(TypeError, match="there are deadline, failed_only, from_node, graph, inputs, params"):
        await ended.plan_restart(x=1)

    assert (await ended.view()).generation == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"from_node": "a", "failed_only": True}, "E_KEY_CONFLICT at from_node"),
        ({"inputs": ["a"]}, "E_TYPE at inputs"),
        ({"inputs": {"a": {}}, "graph": "{}"}, "E_TYPE at graph"),
        ({"inputs": {"c": {}}}, "E_NODE_UNKNOWN at inputs['c']"),
        ({"params": [1]}, "E_TYPE at params"),
    ],
)
async def test_options_that_make_no_sense_are_refused_with_their_place(
    ended: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(GraphError) as caught:
        await ended.restart(**options)

    assert str(caught.value.problems[0]).startswith(problem)
