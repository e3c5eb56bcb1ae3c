"""Compares JSON values: a boolean is no number, 1 equals 1.0, and every look at a large value is charged."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter

NUMBERS: Final = frozenset({int, float})
SCALARS: Final = frozenset({bool, int, float, type(None)})
KINDS: Final = SCALARS | {str, list, dict}

LONG: Final = 512  # characters that are compared, copied or hashed in the time of a step
CONTAINER: Final = 6  # steps that it takes to look into a list or an object, besides two for each value in it


def same(left: Any, right: Any, meter: Meter, at: Span) -> bool:
    """Whether two values are equal, as JSON has it. Raises `Failure` for a value that JSON has not."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        kind = type(one)
        if kind is not type(other):
            if not _same_number(one, other, at):
                return False
        elif kind is list or kind is dict:
            if len(one) != len(other):
                return False
            charge(meter, CONTAINER + 2 * len(one), at)
            if kind is list:
                pairs.extend(zip(one, other, strict=True))
            elif one.keys() == other.keys():
                pairs.extend([(item, other[key]) for key, item in one.items()])
            else:
                return False
        elif kind is str:
            if len(one) != len(other):
                return False
            if len(one) > LONG:
                charge(meter, len(one) // LONG, at)
            if one != other:
                return False
        elif kind not in SCALARS:
            raise Failure(at, wording.unreadable, one)
        elif one != other:
            return False
    return True


def _same_number(left: Any, right: Any, at: Span) -> bool:
    if type(left) in NUMBERS and type(right) in NUMBERS:
        return bool(left == right)
    _check(left, at)
    _check(right, at)
    return False


def _check(value: Any, at: Span) -> None:
    if type(value) not in KINDS:
        raise Failure(at, wording.unreadable, value)


def check_texts(sign: str, left: Any, right: Any, meter: Meter, at: Span) -> None:
    """Raises `Failure` unless both are strings, which are then compared at this charge."""
    if type(left) is not str or type(right) is not str:
        raise Failure(at, wording.not_ordered, sign, left, right)
    charge(meter, min(len(left), len(right)) // LONG, at)


def within(left: Any, right: Any, meter: Meter, at: Span) -> bool:
    """`left in right`: an element of a list, a key of an object."""
    kind = type(right)
    if kind is dict and type(left) is str:
        charge(meter, len(left) // LONG, at)
        return left in right
    if kind is not list:
        raise Failure(at, wording.not_container, left, right)
    _check(left, at)
    charge(meter, 3 + len(right), at)
    if type(left) is list or type(left) is dict:
        charge(meter, 3 * len(right), at)
        return any(same(left, item, meter, at) for item in right)
    return _scalar_within(left, right, meter, at)


def _scalar_within(left: Any, right: list[Any], meter: Meter, at: Span) -> bool:
    kinds = NUMBERS if type(left) in NUMBERS else frozenset({type(left)})
    if type(left) is str:
        charge(meter, len(right) * (len(left) // LONG), at)
    for item in right:
        kind = type(item)
        if kind in kinds:
            if item == left:
                return True
        elif kind not in KINDS:
            raise Failure(at, wording.unreadable, item)
    return False
