"""Reads expressions at the door: what is wrong with one is said with its place and the nearest name."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from flowkit.core.expr import Expression, parse_expression
from flowkit.core.problems import Place, Problems, shown
from flowkit.errors import ExprSyntaxError


def read_expression(text: object, place: Place, roots: Container[str], known: Mapping[str, Any],
                    problems: Problems) -> Expression | None:  # fmt: skip
    """The expression, or None after noting what is wrong with it. `known` are the graph's nodes."""
    if not isinstance(text, str):
        problems.add("E_TYPE", place, f'expected an expression such as "output.errors > 0", found {shown(text)}')
        return None
    try:
        expression = parse_expression(text, roots)
    except ExprSyntaxError as error:
        problems.add("E_EXPR_PARSE", place, str(error))
        return None
    unknown = [name for name in expression.nodes if name not in known]
    for name in unknown:
        problems.add("E_REFERENCE_UNKNOWN", place, f"no node has the id {shown(name)}{problems.suggest(name, known)}")
    return None if unknown else expression
