"""What is refused at the door, so that nothing of it can fail later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from flowkit.coordinator.admission import (
    MAX_PARAMS_BYTES,
    Admission,
    check_options,
    checked_grace,
    checked_labels,
    checked_params,
    plain_reason,
)
from flowkit.core.dialect import parse_graph
from flowkit.core.signature import Signature
from flowkit.errors import GraphError
from tests.core.builders import graph, node


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"a": [1, float("nan")]}, "E_VALUE at params.a[1]: JSON has no nan; use null or a string"),
        ({"a": float("-inf")}, "E_VALUE at params.a"),
        ({"a": {1, 2}}, "E_VALUE at params.a: JSON cannot say a Python set; use a list"),
        ({"a": b"x"}, "E_VALUE at params.a"),
        ({"a": {1: 2}}, "E_VALUE at params.a: JSON keys are strings; found 1"),
        ({"a": "\ud800"}, "E_VALUE at params.a: a lone surrogate"),
        ({"a": nested(65)}, "E_DEPTH at params.a"),
        ({"a": 10**5000}, "E_VALUE at params"),
        ({"a": "x" * MAX_PARAMS_BYTES}, "E_PARAMS_SIZE at params"),
        ([1], "E_TYPE at params: expected an object, found a list"),
    ],
)
def test_params_that_json_cannot_say_are_refused_with_their_place(params: Any, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        checked_params(params)
    assert said in str(caught.value)


def test_params_are_copied_as_json_has_them() -> None:
    given = {"a": (1, [2])}

    copied, text = checked_params(MappingProxyType(given))
    given["a"][1].append(3)  # type: ignore[attr-defined]

    assert (copied, text) == ({"a": [1, [2]]}, '{"a":[1,[2]]}')
    assert checked_params(None) == ({}, "{}")
    assert checked_params({"a": nested(63)})[1] == '{"a":' + "[" * 63 + "1" + "]" * 63 + "}"


def test_labels_and_options_that_no_store_could_keep_are_refused() -> None:
    assert checked_labels({"a": 1}) == {"a": "1"}
    assert checked_labels(None) == {}
    for labels in ({"a": "\udfff"}, {"\udfff": "a"}, ["a"]):
        with pytest.raises(GraphError):
            checked_labels(labels)
    check_options(5, None)
    check_options(-5, 0.5)
    bad: list[tuple[Any, Any]] = [(2**63, None), ("high", None), (True, None), (0, 0), (0, float("nan")), (0, "1 min")]
    for priority, timeout in bad:
        with pytest.raises(GraphError):
            check_options(priority, timeout)


def test_a_reason_becomes_text_that_can_be_stored_and_a_grace_is_seconds() -> None:
    assert plain_reason("enough") == "enough"
    assert plain_reason(ValueError("so")) == "so"
    assert plain_reason("a\ud800") == "a\\ud800"
    assert len(plain_reason("x" * 5000)) == 1000
    assert checked_grace(0) == 0.0
    for grace in (-1, float("nan"), float("inf"), "soon", True):
        with pytest.raises(ValueError, match="grace_sec"):
            checked_grace(grace)


NEEDS_NAME = Signature({"name": ""}, ("name",))


def refusal(admission: Admission, nodes: Sequence[dict[str, Any]], params: Mapping[str, Any] | None = None,
            targets: Sequence[str] = (), ref: str = "r") -> str:  # fmt: skip
    """What is said about a task; empty if it is let in."""
    try:
        asyncio.run(admission.check(ref, parse_graph(graph(*nodes)), params or {}, targets))
    except GraphError as error:
        return str(error)
    return ""


def test_inputs_are_held_against_what_the_roles_take() -> None:
    admission = Admission({"work": NEEDS_NAME}.get)

    assert "E_INPUTS at nodes[0].inputs" in refusal(admission, [node("a", inputs={"nmae": 1})], ref="given")
    assert "E_INPUTS at params" in refusal(admission, [node("a")], {"x": 1})
    assert refusal(admission, [node("a")], {"name": 1}) == ""
    assert refusal(Admission(), [node("a")], {"x": 1}) == ""


def test_params_that_are_yet_to_come_are_not_missed_while_the_rest_is_looked_at() -> None:
    admission = Admission({"work": NEEDS_NAME}.get)

    asyncio.run(admission.check("r", parse_graph(graph(node("a"))), None, ()))
    with pytest.raises(GraphError, match=r"E_INPUTS at nodes\[0\].inputs"):
        asyncio.run(admission.check("s", parse_graph(graph(node("a", inputs={"nmae": 1}))), None, ()))


def test_what_no_target_needs_may_not_fit() -> None:
    admission = Admission({"work": NEEDS_NAME}.get)
    nodes = [node("a", inputs={"name": 1}), node("b", inputs={})]

    assert refusal(admission, nodes, targets=["a"]) == ""
    assert "nodes[1].inputs" in refusal(admission, nodes)
    assert "did you mean 'first'" in refusal(admission, [node("first")], targets=["frist"], ref="other")


def test_a_graph_is_looked_at_again_once_a_role_takes_something_else() -> None:
    takes: dict[str, Signature | None] = {"work": NEEDS_NAME}
    asked: list[str] = []

    def signature_of(role: str) -> Signature | None:
        asked.append(role)
        return takes.get(role)

    admission = Admission(signature_of)
    nodes = [node(f"n{n}", inputs={}) for n in range(40)]

    assert refusal(admission, nodes) != ""
    asked.clear()
    assert refusal(admission, nodes) != ""
    assert asked == ["work"]  # not once per node
    takes["work"] = Signature({}, ())
    assert refusal(admission, nodes) == ""


async def test_a_role_that_is_not_one_of_the_worker_types_is_refused() -> None:
    admission = Admission(roles=["greet", "shout"])
    known = graph(node("a", type="greet"), calls("b", "vars.echo"), calls("c", "vars.set"))
    wrong = graph(node("a", type="greet"), node("b", type="shuot"))

    await admission.check("known", parse_graph(known), {}, ())
    await admission.check("wrong", parse_graph(wrong), {}, ["a"])
    for _ in range(2):
        with pytest.raises(GraphError) as caught:
            await admission.check("wrong", parse_graph(wrong), {}, ())
        [problem] = caught.value.problems
        assert str(problem) == (
            "E_ROLE_UNKNOWN at nodes[1].type: 'shuot' is not one of worker_types (did you mean 'shout'?): greet, shout"
        )


def calls(node_id: str, function: str) -> dict[str, Any]:
    return node(node_id, type="coordinator_fn", io={"fn": function})


async def test_a_function_that_the_coordinator_does_not_have_is_refused() -> None:
    admission = Admission(functions=["vars.echo", "noop"])
    known = graph(calls("a", "vars.echo"), calls("b", "noop"))

    await admission.check("known", parse_graph(known), {}, ())
    for name, hint in (
        ("vars.ecko", "(did you mean 'vars.echo'?)"),
        ("metrics.aggregate", "; there are vars.echo, noop"),
    ):
        with pytest.raises(GraphError) as caught:
            await admission.check(name, parse_graph(graph(node("x"), calls("a", name))), {}, ())
        [problem] = caught.value.problems
        said = f"E_ADAPTER_UNKNOWN at nodes[1].io.fn: this coordinator has no function {name!r}"
        assert str(problem).startswith(said)
        assert str(problem).endswith(hint)

    with pytest.raises(GraphError, match="has no function 'noop'; there are none"):
        await Admission(functions=[]).check("none", parse_graph(graph(calls("a", "noop"))), {}, ())
