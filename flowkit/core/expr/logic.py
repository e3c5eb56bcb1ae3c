"""Conditions: comparisons, `!`, `? :`, and `&&` and `||` that absorb the failure of an operand, as CEL has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.values import NUMBERS, check_texts, same, within

Test = Callable[[Any, Any], bool]

ABSORBED: Final = 12  # steps that an exception takes
ORDERS: Final[dict[str, Test]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def comparison(sign: str, left: Run, right: Run, at: Span) -> Run:
    """`left sign right`."""
    if sign in ORDERS:
        return _order(sign, ORDERS[sign], left, right, at)
    if sign == "in":
        return lambda scope, meter: within(left(scope, meter), right(scope, meter), meter, at)
    wanted = sign == "=="
    return lambda scope, meter: same(left(scope, meter), right(scope, meter), meter, at) is wanted


def _order(sign: str, test: Test, left: Run, right: Run, at: Span) -> Run:
    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        one, other = left(scope, meter), right(scope, meter)
        if type(one) not in NUMBERS or type(other) not in NUMBERS:
            check_texts(sign, one, other, meter, at)
        return test(one, other)

    return run


def literal_comparison(sign: str, left: Run, right: Any, at: Span) -> Run:
    """The same, with a literal on the right: the usual case, which is worth half of the time."""
    if sign in ORDERS:
        return _literal_order(sign, ORDERS[sign], left, right, at)
    if sign == "in":
        return lambda scope, meter: within(left(scope, meter), right, meter, at)
    return _literal_equality(sign == "==", left, right, at)


def _literal_order(sign: str, test: Test, left: Run, right: Any, at: Span) -> Run:
    kinds = NUMBERS if type(right) in NUMBERS else frozenset()

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = left(scope, meter)
        if type(value) not in kinds:
            check_texts(sign, value, right, meter, at)
        return test(value, right)

    return run


def _literal_equality(wanted: bool, left: Run, right: Any, at: Span) -> Run:
    kind = type(right)

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = left(scope, meter)
        if type(value) is kind:
            return (value == right) is wanted
        return same(value, right, meter, at) is wanted

    return run


def inversion(operand: Run, at: Span) -> Run:
    """`!operand`."""

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = operand(scope, meter)
        if value is not True and value is not False:
            raise Failure(at, wording.not_boolean, "!", value)
        return value is False

    return run


def choice(cases: list[tuple[Run, Span, Run]], otherwise: Run) -> Run:
    """The value behind the first test that holds."""

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        for test, at, value in cases:
            truth = test(scope, meter)
            if truth is True:
                return value(scope, meter)
            if truth is not False:
                raise Failure(at, wording.not_boolean, "?", truth)
        return otherwise(scope, meter)

    return run


def logic(sign: str, operands: list[tuple[Run, Span]]) -> Run:
    """`false && x` is false whatever x is, also if it fails, and so is `x && false`; `||` is the same with true."""
    decisive = sign == "||"

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        failure: Failure | None = None
        for operand, at in operands:
            try:
                value = operand(scope, meter)
            except Failure as found:
                if found.final:
                    raise
                charge(meter, ABSORBED, at)
                failure = failure or found.with_traceback(None)
                continue
            if value is decisive:
                return sign == "||"
            if type(value) is not bool:
                charge(meter, ABSORBED, at)
                failure = failure or Failure(at, wording.not_boolean, sign, value)
        if failure is None:
            return sign == "&&"
        try:
            raise failure
        finally:
            failure = None  # it holds this frame, so the frame must not hold it

    return run
