"""Computes with JSON numbers: integers of 64 bits, floats that are finite, and the two mixed as floats.

`+` also joins strings and lists. `/` of two integers truncates towards zero, and `%` has the sign of its left side.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Exceeded, Failure, Span, charge, too_large
from flowkit.core.expr.limits import MAX_SIZE, Meter
from flowkit.core.expr.values import LONG, NUMBERS

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**63 - 1

Operator = Callable[[Any, Any, Meter, Span], Any]


def add(left: Any, right: Any, meter: Meter, at: Span) -> Any:
    kind, other = type(left), type(right)
    if kind is str and other is str:
        return _join(left, right, meter, at)
    if kind is list and other is list:
        charge(meter, (len(left) + len(right)) // 16, at)
        return [*left, *right]
    if _integers("+", left, right, at):
        return _integer("+", left + right, left, right, at)
    return _float("+", left + right, left, right, at)


def subtract(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if _integers("-", left, right, at):
        return _integer("-", left - right, left, right, at)
    return _float("-", left - right, left, right, at)


def multiply(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if _integers("*", left, right, at):
        return _integer("*", left * right, left, right, at)
    return _float("*", left * right, left, right, at)


def divide(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    whole = _integers("/", left, right, at)
    if right == 0:
        raise Failure(at, wording.by_zero, "/", left)
    if not whole:
        return _float("/", left / right, left, right, at)
    quotient = abs(left) // abs(right)
    return _integer("/", quotient if (left < 0) == (right < 0) else -quotient, left, right, at)


def remain(left: Any, right: Any, _meter: Meter, at: Span) -> Any:
    if not _integers("%", left, right, at):
        raise Failure(at, wording.not_whole, left, right)
    if right == 0:
        raise Failure(at, wording.by_zero, "%", left)
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def negate(value: Any, at: Span) -> Any:
    """`-value`."""
    if type(value) is float:
        return -value
    if type(value) is int:
        return _integer("-", -value, 0, value, at)
    raise Failure(at, wording.not_negatable, value)


OPERATORS: Final[dict[str, Operator]] = {
    "+": add, "-": subtract, "*": multiply, "/": divide, "%": remain,
}  # fmt: skip


def _integers(sign: str, left: Any, right: Any, at: Span) -> bool:
    """Whether both are integers, not one of them a float. Raises `Failure` unless both are numbers that one may compute
    with: an integer of thousands of digits, which JSON has, would cost what no step does."""
    kind, other = type(left), type(right)
    if kind not in NUMBERS or other not in NUMBERS:
        raise Failure(at, wording.not_computable, sign, left, right)
    for value in (left, right):
        if type(value) is int and not LOWEST <= value <= HIGHEST:
            raise Failure(at, wording.overflow, sign, left, right)
    return kind is other is int


def _integer(sign: str, value: int, left: Any, right: Any, at: Span) -> int:
    if not LOWEST <= value <= HIGHEST:
        raise Failure(at, wording.overflow, sign, left, right)
    return value


def _float(sign: str, value: float, left: Any, right: Any, at: Span) -> float:
    if not isfinite(value):
        raise Failure(at, wording.not_finite, sign, left, right)
    return value


def _join(left: str, right: str, meter: Meter, at: Span) -> str:
    length = len(left) + len(right)
    if length > MAX_SIZE:
        raise Exceeded(at, too_large)
    charge(meter, length // LONG, at)
    return left + right
