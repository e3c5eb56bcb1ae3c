"""Compares JSON values: a boolean is no number, 1 equals 1.0, and every look at a large value is charged."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter

NUMBERS: Final = frozenset({int, float})
SCALARS: Final = frozenset({bool, int, float, type(None)})
KINDS: Final = SCALARS | {str, list, dict}

LONG: Final = 512  # characters that are compared or copied in the time of a step


def same(left: Any, right: Any, meter: Meter, at: Span) -> bool:
    """Whether two values are equal, as JSON has it. Raises `Failure` for a value that JSON has not."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        kind = type(one)
        if kind is not type(other):
            if kind in NUMBERS and type(other) in NUMBERS and one == other:
                continue
            _check(one, at)
            _check(other, at)
            return False
        if kind is list or kind is dict:
            if len(one) != len(other):
                return False
            charge(meter, 2 * len(one), at)
            if kind is list:
                pairs.extend(zip(one, other, strict=True))
            elif one.keys() == other.keys():
                pairs.extend((item, other[key]) for key, item in one.items())
            else:
                return False
        elif kind is str:
            if len(one) != len(other):
                return False
            charge(meter, len(one) // LONG, at)
            if one != other:
                return False
        elif kind not in SCALARS:
            raise Failure(at, wording.unreadable, one)
        elif one != other:
            return False
    return True


def _check(value: Any, at: Span) -> None:
    if type(value) not in KINDS:
        raise Failure(at, wording.unreadable, value)


def compare(sign: str, left: Any, right: Any, meter: Meter, at: Span) -> int:
    """-1, 0 or 1, as `left` is smaller, equal or greater. Raises `Failure` unless both are numbers or both strings."""
    kind, other = type(left), type(right)
    if kind is str and other is str:
        charge(meter, min(len(left), len(right)) // LONG, at)
    elif kind not in NUMBERS or other not in NUMBERS:
        raise Failure(at, wording.not_ordered, sign, left, right)
    return int(left > right) - int(left < right)


def within(left: Any, right: Any, meter: Meter, at: Span) -> bool:
    """`left in right`: an element of a list, a key of an object."""
    kind = type(right)
    if kind is dict and type(left) is str:
        charge(meter, len(left) // LONG, at)
        return left in right
    if kind is not list:
        raise Failure(at, wording.not_container, left, right)
    charge(meter, len(right), at)
    return any(same(left, item, meter, at) for item in right)
