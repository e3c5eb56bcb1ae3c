"""Random expressions: printed and read again they are the same, and they give what a slow interpreter gives."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from flowkit.core.expr import ExprError, parse_expression
from flowkit.core.expr.names import ROOTS
from flowkit.core.expr.parser import Parser
from flowkit.core.expr.syntax import Node
from tests.core.expr.generator import Generator
from tests.core.expr.interpreter import Bad, interpret
from tests.core.expr.parts import PARTS, SCOPE
from tests.core.expr.printer import printed
from tests.thorough import at_night


@given(PARTS)
@settings(max_examples=at_night(150))
def test_what_is_printed_reads_the_same(part: Node) -> None:
    assert Parser(printed(part), ROOTS).parse() == part


@given(PARTS)
@settings(max_examples=at_night(150))
def test_any_expression_gives_what_the_interpreter_gives(part: Node) -> None:
    assert exact(outcome(part)) == exact(expected(part))


def test_expressions_that_mostly_have_a_value_give_what_the_interpreter_gives() -> None:
    compare(2_000)


def test_a_number_with_a_line_end_behind_it_is_none() -> None:
    part = Generator(Random(107_086), SCOPE).part()
    assert outcome(part) is expected(part) is Bad


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_very_many_expressions_give_what_the_interpreter_gives() -> None:
    compare(200_000)


def compare(count: int) -> None:
    values = 0
    for seed in range(count):
        part = Generator(Random(seed), SCOPE).part()
        found, wanted = outcome(part), expected(part)
        assert exact(found) == exact(wanted), f"seed {seed}: {printed(part)}"
        values += found is not Bad
    assert values > count / 2, "too few of them have a value for this to mean much"


def outcome(part: Node) -> Any:
    try:
        return parse_expression(printed(part), ROOTS).evaluate(SCOPE)
    except ExprError:
        return Bad


def expected(part: Node) -> Any:
    try:
        return interpret(part, SCOPE)
    except Bad:
        return Bad


def exact(value: Any) -> Any:
    """Values with their types, because 1 and 1.0 and true are not the same result."""
    match value:
        case list():
            return [exact(item) for item in value]
        case dict():
            return {key: exact(item) for key, item in value.items()}
    return type(value), value
