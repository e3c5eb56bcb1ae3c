"""`Next` says which successors run, or says what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.worker.results import Next


def test_it_holds_node_ids_and_an_output() -> None:
    assert Next(["b", "a"], 5).nodes == ("b", "a")
    assert Next({"b", "a"}).nodes == ("a", "b")
    assert Next([]).nodes == ()


@pytest.mark.parametrize("nodes", ["b", None, 5, [1], [None], {"a": 1}])
def test_anything_but_a_list_of_ids_is_a_mistake(nodes: Any) -> None:
    with pytest.raises(TypeError, match="list of node ids"):
        Next(nodes)


def test_it_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        Next(["x" * 20_000])
    with pytest.raises(ValueError, match="at most"):
        Next([str(n) for n in range(1001)])
