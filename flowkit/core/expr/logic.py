"""Conditions: comparisons, `!`, `? :`, and `&&` and `||` that absorb the failure of an operand, as CEL has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.values import compare, same, within


def comparison(sign: str, left: Run, right: Run, at: Span) -> Run:
    match sign:
        case "==":
            return lambda scope, meter: same(left(scope, meter), right(scope, meter), meter, at)
        case "!=":
            return lambda scope, meter: not same(left(scope, meter), right(scope, meter), meter, at)
        case "<":
            return lambda scope, meter: compare("<", left(scope, meter), right(scope, meter), meter, at) < 0
        case "<=":
            return lambda scope, meter: compare("<=", left(scope, meter), right(scope, meter), meter, at) <= 0
        case ">":
            return lambda scope, meter: compare(">", left(scope, meter), right(scope, meter), meter, at) > 0
        case ">=":
            return lambda scope, meter: compare(">=", left(scope, meter), right(scope, meter), meter, at) >= 0
        case _:
            return lambda scope, meter: within(left(scope, meter), right(scope, meter), meter, at)


def negation(operand: Run, at: Span) -> Run:
    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = operand(scope, meter)
        if value is not True and value is not False:
            raise Failure(at, wording.not_boolean, "!", value)
        return value is False

    return run


def choice(cases: list[tuple[Run, Span, Run]], otherwise: Run) -> Run:
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
                failure = failure or found.with_traceback(None)
                continue
            if value is decisive:
                return sign == "||"
            if type(value) is not bool and failure is None:
                failure = Failure(at, wording.not_boolean, sign, value)
        if failure is None:
            return sign == "&&"
        try:
            raise failure
        finally:
            failure = None  # it holds this frame, so the frame must not hold it

    return run
