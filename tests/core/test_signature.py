"""What a role takes is held against what a graph gives it: only what must fail is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from flowkit.core.dialect import parse_graph
from flowkit.core.signature import (
    BY_NAME,
    Signature,
    agreed,
    given_params,
    misfits,
    params_misfits,
    quick_look,
    read_signature,
)
from tests.core.builders import graph, node

TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "array": list,
}  # fmt: skip


def found(signature: Signature | None, *nodes: dict[str, Any]) -> list[str]:
    """What is said about nodes of the role `work`."""
    return [str(problem) for _, problem in misfits(parse_graph(graph(*nodes)), {"work": signature}.get)]


def of_params(signature: Signature, params: dict[str, Any], *nodes: dict[str, Any]) -> list[str]:
    read = parse_graph(graph(*(nodes or (node("a"),))))
    said = [str(problem) for _, problem in params_misfits(read, params, given_params(read, {"work": signature}.get))]
    assert not (said and quick_look(signature)(params)), "a quick look overlooks nothing"
    return said


GREET = Signature({"name": "", "mood": ""}, ("name",))
COUNT = Signature({"n": "integer"}, ("n",))


def test_missing_and_unknown_names_are_said_with_the_place_the_nearest_name_and_what_to_do() -> None:
    said = found(GREET, node("first", type="other"), node("hi", inputs={"nmae": "Ada"}))

    assert said == [
        "E_INPUTS at nodes[1].inputs: 'work' misses name and does not take nmae (did you mean 'name'?); "
        "it takes name, mood; rename it"
    ]


def test_what_has_a_default_may_be_left_out_and_rest_takes_everything() -> None:
    assert found(GREET, node("a", inputs={"name": {"$from": "b"}}), node("b", type="other")) == []
    assert found(Signature({"a": ""}, (), rest=True), node("x", inputs={"b": 1, "c": 2})) == []


def test_a_literal_of_the_wrong_kind_is_said() -> None:
    assert found(COUNT, node("a", inputs={"n": "many"})) == [
        "E_INPUTS at nodes[0].inputs.n: 'work' wants a whole number as n, found 'many'"
    ]
    assert found(COUNT, node("a", inputs={"n": {"$literal": {"$from": "x"}}}))[0].endswith("found an object")


def test_what_comes_from_elsewhere_is_not_judged() -> None:
    from_params = [{"n": {"$param": "n"}}, {"$param": "inputs"}, {"n": [1, {"$param": "n"}]}]
    assert [found(Signature({"n": "string"}, ("n",)), node("a", inputs=one)) for one in from_params] == [[], [], []]


def test_a_value_that_is_no_object_goes_to_the_only_parameter() -> None:
    assert found(COUNT, node("a", inputs=5)) == []
    assert "found a list" in found(COUNT, node("a", inputs=[1]))[0]
    assert found(GREET, node("a", inputs=5)) == [
        "E_INPUTS at nodes[0].inputs: 'work' takes name, mood by name, found 5; write an object with these names"
    ]


def test_several_parents_give_their_outputs_by_their_ids() -> None:
    parents = (node("a", type="other"), node("b", type="other"))

    assert found(Signature({"a": "", "b": ""}, ("a", "b")), *parents, node("c", "a", "b")) == []
    (said,) = found(Signature({"rows": ""}, ("rows",)), *parents, node("c", "a", "b"))

    assert said.startswith("E_INPUTS at nodes[2].inputs: 'work' misses rows: without `inputs` it gets its parents'")
    assert said.endswith('write "inputs": {"rows": {"$from": "a"}}')


def test_one_parent_may_give_anything_and_who_takes_nothing_is_given_nothing() -> None:
    assert found(GREET, node("a", type="other"), node("b", "a")) == []
    assert found(Signature({}, ()), node("a", type="other"), node("b", type="other"), node("c", "a", "b")) == []
    assert of_params(Signature({}, ()), {"x": 1}) == []


def test_roots_without_inputs_are_given_the_params() -> None:
    assert of_params(GREET, {"name": "Ada"}) == []
    (said,) = of_params(GREET, {"nmae": "Ada"}, node("hi"))
    assert said.startswith("E_INPUTS at params: node 'hi' gets the params, but 'work' misses name and does not take")
    assert of_params(COUNT, {"n": [1]}) == ["E_INPUTS at params.n: 'work' wants a whole number as n, found a list"]
    assert of_params(GREET, {}, node("a", inputs={"name": 1})) == []


@pytest.mark.parametrize("schema", [None, [], {}, {BY_NAME: []}, {BY_NAME: {"a": 1}}, {BY_NAME: {}, "required": "a"},
                                    {BY_NAME: {}, "required": [1]}])  # fmt: skip
def test_a_schema_that_does_not_say_is_no_signature(schema: Any) -> None:
    assert read_signature(schema) is None


def test_only_what_all_workers_of_a_role_say_counts() -> None:
    assert agreed([GREET, Signature({"name": "", "mood": ""}, ("name",))]) == GREET
    assert agreed([GREET, COUNT]) is None
    assert agreed([GREET, None]) is None
    assert agreed([]) is None


@given(
    st.sampled_from(sorted(TYPES)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
        | st.sampled_from(["1", " 1.0 ", "1_0", "1e3", "yes", "off", "nan", "0x1", "١"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=3,
    ),
)  # fmt: skip
def test_nothing_is_refused_that_the_handlers_annotation_would_take(kind: str, value: Any) -> None:
    said = of_params(Signature({"x": kind}, ("x",)), {"x": value})
    if said:
        with pytest.raises(ValidationError):
            TypeAdapter(TYPES[kind]).validate_python(json.loads(json.dumps(value)))
