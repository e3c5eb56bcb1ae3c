"""Flow Control Blocks as graphs: what is made of their nodes, and what is next."""

from __future__ import annotations

import pytest

from flowkit.core.dialect import parse_graph
from flowkit.errors import Permanent
from flowkit.services import fcb
from flowkit.services.door import Refusal
from flowkit.services.fcb import Block, Step, make_graph, params_of, route


def block(*names: str, source: str = "x = 1") -> Block:
    return Block({name: Step(name, source, level) for level, name in enumerate(names)}, names[0])


@pytest.mark.parametrize("by_runner", [True, False])
def test_any_names_make_a_graph_that_is_well_formed(by_runner: bool) -> None:
    names = ("a", "a.b", "Node 1", "Node_1", "näme", '"; x', "...", fcb.ROUTE, "hop", "x" * 128, "é" * 128)
    made = block(*names, source='key = "{{{secret::API_KEY}}}"')

    graph = parse_graph(make_graph(made, most_hops=10, by_runner=by_runner))

    assert list(graph.nodes) == ["hop"]
    assert len(set(made.ids.values())) == len(names)
    assert made.ids["a.b"] == "a.b"
    assert fcb.ROUTE not in made.ids.values()


IDS = {"a": "a", "Node 1": "n1"}


def test_a_flow_begins_where_it_is_said_to() -> None:
    params = params_of(block("a", "b"), {"n": 1})

    assert route(params, None, {"a": "a", "b": "b"}, 0, 9) == {"wave": [[{"n": 1}], []], "open": 1, "hops": 1}


def test_each_that_is_named_gets_the_outputs_of_whom_it_was_named_by() -> None:
    given = {"a": [{"nodes": ["Node 1", "a"], "outputs": {"n": 1}}, {"nodes": [], "outputs": None}],
             "n1": [{"nodes": ["Node 1"], "outputs": {"n": 2}}]}  # fmt: skip

    assert route({}, given, IDS, 8, 9) == {"wave": [[{"n": 1}], [{"n": 1}, {"n": 2}]], "open": 3, "hops": 9}
    assert route({}, {"a": [], "n1": []}, IDS, 9, 9) == {"wave": [[], []], "open": 0, "hops": 10}


@pytest.mark.parametrize(
    ("nodes", "outputs", "code", "says"),
    [
        (["stop"], {}, "bad_output", "did you mean 'shop'"),
        (["shop"], [1], "bad_output", "an object, not list"),
        (["shop"] * 1001, {}, "too_many", "at most 1000 run at a time"),
    ],
)
def test_what_cannot_be_next_is_said(nodes: list[str], outputs: object, code: str, says: str) -> None:
    with pytest.raises(Permanent, match=says) as raised:
        route({}, {"shop": [{"nodes": nodes, "outputs": outputs}]}, {"shop": "shop"}, 1, 9)

    assert raised.value.code == code


def test_a_flow_has_no_more_nodes_than_a_hop_can_carry() -> None:
    with pytest.raises(Refusal, match="at most 500 nodes"):
        make_graph(block(*(f"n{number}" for number in range(501))), most_hops=1, by_runner=False)
