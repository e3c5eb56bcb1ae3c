"""What expressions can call: sizes, extremes, conversions, and questions about text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.arithmetic import HIGHEST, LOWEST
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.text import contains
from flowkit.core.expr.values import LONG, compare

INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?")

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
    return _extreme("min", "<", -1, arguments, meter, at)


def greatest(arguments: list[Any], meter: Meter, at: Span) -> Any:
    return _extreme("max", ">", 1, arguments, meter, at)


def _extreme(name: str, sign: str, better: int, arguments: list[Any], meter: Meter, at: Span) -> Any:
    values = arguments
    if len(arguments) == 1:
        values = arguments[0]
        if type(values) is not list or not values:
            raise Failure(at, wording.no_extreme, name, values)
        charge(meter, 2 * len(values), at)
    best = values[0]
    for value in values:  # the first one too, so that a single value is no less looked at
        if compare(sign, value, best, meter, at) == better:
            best = value
    return best


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


def to_double(arguments: list[Any], _meter: Meter, at: Span) -> float:
    (value,) = arguments
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


def _texts(name: str, arguments: list[Any], at: Span) -> tuple[str, str]:
    text, part = arguments
    if type(text) is not str or type(part) is not str:
        raise Failure(at, wording.not_text, name, text, part)
    return text, part


FUNCTIONS: Final[dict[str, Function]] = {
    "size": size, "min": least, "max": greatest, "int": to_int, "double": to_double, "string": to_string,
    "contains": has_part, "startsWith": begins, "endsWith": ends,
}  # fmt: skip
