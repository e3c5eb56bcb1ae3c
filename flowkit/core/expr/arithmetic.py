"""Computes with JSON numbers: integers of 64 bits, floats that are finite, and the two mixed as floats.

`+` also joins strings and lists. `/` of two integers truncates towards zero, and `%` has the sign of its left side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Exceeded, Failure, Span, charge, too_large
from flowkit.core.expr.limits import MAX_SIZE, Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.values import LONG, NUMBERS

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1

Operator = Callable[[Any, Any, Meter, Span], Any]


def arithmetic(first: Run, rest: list[tuple[str, Run, Span]]) -> Run:
    """Operators of one precedence, from left to right; each with what stands up to the end of its operand."""
    chain = [(OPERATORS[sign], operand, upto) for sign, operand, upto in rest]

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        value = first(scope, meter)
        for operator, operand, upto in chain:
            value = operator(value, operand(scope, meter), meter, upto)
        return value

    return run


def add(left: Any, right: Any, meter: Meter, at: Span) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return _integer("+", left, right, left + right, at)
    if kind is str and other is str:
        return _join(left, right, meter, at)
    if kind is list and other is list:
        charge(meter, (len(left) + len(right)) // 16, at)
        return [*left, *right]
    _check_mixed("+", left, right, at)
    return _float("+", left, right, left + right, at)


def subtract(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if type(left) is int and type(right) is int:
        return _integer("-", left, right, left - right, at)
    _check_mixed("-", left, right, at)
    return _float("-", left, right, left - right, at)


def multiply(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if type(left) is int and type(right) is int:
        _check_fits("*", left, right, at)
        return _integer("*", left, right, left * right, at)
    _check_mixed("*", left, right, at)
    return _float("*", left, right, left * right, at)


def divide(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    whole = type(left) is int and type(right) is int
    if whole:
        _check_fits("/", left, right, at)
    else:
        _check_mixed("/", left, right, at)
    if right == 0:
        raise Failure(at, wording.by_zero, "/", left)
    if not whole:
        return _float("/", left, right, left / right, at)
    quotient = abs(left) // abs(right)
    return _integer("/", left, right, quotient if (left < 0) == (right < 0) else -quotient, at)


def remain(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if type(left) is not int or type(right) is not int:
        raise Failure(at, wording.not_whole, left, right)
    _check_fits("%", left, right, at)
    if right == 0:
        raise Failure(at, wording.by_zero, "%", left)
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def negation(operand: Run, at: Span) -> Run:
    """`-operand`."""

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        value = operand(scope, meter)
        if type(value) is float:
            return -value
        if type(value) is int:
            return _integer("-", 0, value, -value, at)
        raise Failure(at, wording.not_negatable, value)

    return run


OPERATORS: Final[dict[str, Operator]] = {
    "+": add, "-": subtract, "*": multiply, "/": divide, "%": remain,
}  # fmt: skip


def _integer(sign: str, left: int, right: int, value: int, at: Span) -> int:
    if LOWEST <= value <= HIGHEST:
        return value
    raise Failure(at, wording.overflow, sign, left, right)


def _check_fits(sign: str, left: int, right: int, at: Span) -> None:
    # JSON has integers of thousands of digits, and with those no step would be cheap.
    if not (LOWEST <= left <= HIGHEST and LOWEST <= right <= HIGHEST):
        raise Failure(at, wording.overflow, sign, left, right)


def _check_mixed(sign: str, left: Any, right: Any, at: Span) -> None:
    kind, other = type(left), type(right)
    if kind not in NUMBERS or other not in NUMBERS:
        raise Failure(at, wording.not_computable, sign, left, right)
    _check_fits(sign, left if kind is int else 0, right if other is int else 0, at)


def _float(sign: str, left: Any, right: Any, value: float, at: Span) -> float:
    if isfinite(value):
        return value
    raise Failure(at, wording.not_finite, sign, left, right)


def _join(left: str, right: str, meter: Meter, at: Span) -> str:
    length = len(left) + len(right)
    if length > MAX_SIZE:
        raise Exceeded(at, too_large)
    if length > LONG:
        charge(meter, length // LONG, at)
    return left + right
