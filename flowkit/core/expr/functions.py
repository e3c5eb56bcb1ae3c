"""What expressions can call: sizes, extremes, conversions, and questions about text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.arithmetic import HIGHEST, LOWEST
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import MAX_PATTERN, Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.regex import PatternError, Program, build, parse_pattern, search, size_of
from flowkit.core.expr.text import contains
from flowkit.core.expr.values import LONG, NUMBERS

INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
DECIMAL: Final = re.compile(r"(?=.{1,512}\Z)[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

STEPS_PER_SIGN: Final = 30  # for reading a pattern that is computed
STEPS_PER_PART: Final = 10  # and for building its program

Function = Callable[[list[Any], Meter, Span], Any]


def call(name: str, arguments: list[Run], at: Span) -> Run:
    """The function of this name; of a method, the first argument stands before the dot."""
    function = FUNCTIONS[name]

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        return function([argument(scope, meter) for argument in arguments], meter, at)

    return run


def size(arguments: list[Any], _meter: Meter, at: Span) -> int:
    (value,) = arguments
    if type(value) not in (str, list, dict):
        raise Failure(at, wording.no_size, value)
    return len(value)


def least(arguments: list[Any], meter: Meter, at: Span) -> Any:
    return _extreme("min", min, arguments, meter, at)


def greatest(arguments: list[Any], meter: Meter, at: Span) -> Any:
    return _extreme("max", max, arguments, meter, at)


def _extreme(name: str, pick: Callable[[list[Any]], Any], arguments: list[Any], meter: Meter, at: Span) -> Any:
    values = arguments
    if len(arguments) == 1:
        values = arguments[0]
        if type(values) is not list or not values:
            raise Failure(at, wording.no_extreme, name, values)
    charge(meter, len(values), at)

    kinds = set(map(type, values))
    if kinds == {str}:
        charge(meter, sum(map(len, values)) // LONG, at)
    elif not kinds <= NUMBERS:
        raise Failure(at, wording.not_ordered, name, values[0], _stranger(values))
    return pick(values)


def _stranger(values: list[Any]) -> Any:
    """The first that cannot be compared with the first of all."""
    kinds = NUMBERS if type(values[0]) in NUMBERS else frozenset({str})
    return next(value for value in values if type(value) not in kinds)


def to_int(arguments: list[Any], _meter: Meter, at: Span) -> int:
    (value,) = arguments
    number: int | None = None
    match value:
        case bool():
            pass
        case int() | float() if LOWEST <= value <= HIGHEST:
            number = int(value)
        case str() if INTEGER.fullmatch(value):
            number = int(value)
    if number is None or not LOWEST <= number <= HIGHEST:
        raise Failure(at, wording.no_integer, value)
    return number


def to_double(arguments: list[Any], meter: Meter, at: Span) -> float:
    (value,) = arguments
    if type(value) is str:
        charge(meter, min(len(value), LONG) // 4, at)
    number: float | None = None
    match value:
        case bool():
            pass
        case int() if LOWEST <= value <= HIGHEST:
            number = float(value)
        case float():
            number = value
        case str() if DECIMAL.fullmatch(value):
            number = float(value)
    if number is None or number in (float("inf"), float("-inf")):
        raise Failure(at, wording.no_double, value)
    return number


def to_string(arguments: list[Any], _meter: Meter, at: Span) -> str:
    (value,) = arguments
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is bool:
        return "true" if value else "false"
    if kind is float or (kind is int and LOWEST <= value <= HIGHEST):
        return repr(value)
    raise Failure(at, wording.no_string, value)


def has_part(arguments: list[Any], meter: Meter, at: Span) -> bool:
    text, part = _texts("contains", arguments, at)
    return contains(text, part, meter, at)


def begins(arguments: list[Any], meter: Meter, at: Span) -> bool:
    text, part = _texts("startsWith", arguments, at)
    charge(meter, min(len(text), len(part)) // LONG, at)
    return text.startswith(part)


def ends(arguments: list[Any], meter: Meter, at: Span) -> bool:
    text, part = _texts("endsWith", arguments, at)
    charge(meter, min(len(text), len(part)) // LONG, at)
    return text.endswith(part)


def matches_computed(arguments: list[Any], meter: Meter, at: Span) -> bool:
    text, pattern = _texts("matches", arguments, at)
    charge(meter, STEPS_PER_SIGN * min(len(pattern), MAX_PATTERN), at)
    try:
        parsed = parse_pattern(pattern)
        charge(meter, STEPS_PER_PART * size_of(parsed), at)
    except PatternError as error:
        raise Failure(at, wording.bad_pattern, pattern, error) from None
    return search(build(parsed), text, meter, at)


def matches_literal(target: Run, pattern: str, program: Program, at: Span) -> Run:
    """`target.matches(pattern)`, where the pattern was read with the expression."""

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        text = target(scope, meter)
        if type(text) is not str:
            raise Failure(at, wording.not_text, "matches", text, pattern)
        return search(program, text, meter, at)

    return run


def _texts(name: str, arguments: list[Any], at: Span) -> tuple[str, str]:
    text, part = arguments
    if type(text) is not str or type(part) is not str:
        raise Failure(at, wording.not_text, name, text, part)
    return text, part


FUNCTIONS: Final[dict[str, Function]] = {
    "size": size, "min": least, "max": greatest, "int": to_int, "double": to_double, "string": to_string,
    "contains": has_part, "startsWith": begins, "endsWith": ends, "matches": matches_computed,
}  # fmt: skip
