"""What expressions give, by value."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.expr import ExprError, ExprSyntaxError, parse_expression

ALL = frozenset({"params", "output", "nodes", "vars", "item", "index", "previous", "task"})
SCOPE: dict[str, Any] = {
    "params": {"mode": "full", "n": 3, "list": [1, 2, 3], "none": None, "in": {"a b": 1}},
    "output": {"errors": 2, "rows": [{"id": "x"}, {"id": "y"}]},
    "nodes": {"load": {"output": {"rows": 5}}, "a.b": {"output": None}, "skipped": {}},
    "item": "one",
    "index": 0,
}


def value_of(text: str) -> Any:
    return parse_expression(text, ALL).evaluate(SCOPE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('output.errors > 0 && params.mode == "full"', True),
        ("output.rows[1].id", "y"),
        ('params["in"]["a b"]', 1),
        ("params.in['a b']", 1),
        ("output.rows[index].id", "x"),
        ('nodes["load"].output.rows', 5),
        ('nodes["a.b"].output', None),
        ("has(params.mode)", True),
        ("has(params.none)", True),
        ("has(params.none.x)", False),
        ("has(params.list[3])", False),
        ("has(params.other.x.y[0])", False),
        ("has(previous.x)", False),
        ('has(nodes["load"].output)', True),
        ('has(nodes["skipped"].output)', False),
        ('has(nodes["nowhere"].output.x)', False),
    ],
)
def test_paths_lead_into_the_scope(text: str, value: Any) -> None:
    assert value_of(text) == value


def test_an_expression_says_what_it_uses() -> None:
    expression = parse_expression('nodes["b"].output.x > nodes["a"].output || nodes["b"].output.y in params.list', ALL)

    assert expression.roots == {"nodes", "params"}
    assert expression.nodes == ("b", "a")


def test_a_root_that_has_no_value_here_is_refused() -> None:
    with pytest.raises(ExprSyntaxError, match="item has no value at this place; here are params, output"):
        parse_expression("item.x", {"params", "output"})


def test_a_missing_field_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ExprError, match=r"in `params\.mod`: the object has no 'mod' \(did you mean 'mode'\?\); has"):
        value_of("params.mod")
