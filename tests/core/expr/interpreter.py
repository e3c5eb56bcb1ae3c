"""Computes an expression the slow and obvious way, to compare with: no charges, no order, failures are values."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from flowkit.core.expr.syntax import (
    Arithmetic,
    Call,
    Choice,
    Comparison,
    Field,
    Has,
    Index,
    ListOf,
    Literal,
    Logic,
    MapOf,
    Method,
    Node,
    Output,
    Path,
    Root,
    Step,
    Unary,
)


class Bad(Exception):
    """There is no value."""


class Absent(Bad):
    """There is none because nothing stands there."""


def interpret(part: Node, scope: dict[str, Any]) -> Any:
    match part:
        case Literal(value):
            return value
        case Root(name):
            return _present(name in scope, lambda: scope[name])
        case Output(node):
            return _present("output" in scope["nodes"].get(node, {}), lambda: scope["nodes"][node]["output"])
        case Path(target, steps):
            return _follow(interpret(target, scope), steps, scope)
        case Has(path):
            return _has(path, scope)
        case Unary("!", operand):
            return not _boolean(interpret(operand, scope))
        case Unary(_, operand):
            return _computed("-", -1, _number(interpret(operand, scope)), negate=True)
        case Arithmetic(first, rest):
            value = interpret(first, scope)
            for sign, operand in rest:
                value = _operate(sign, value, interpret(operand, scope))
            return value
        case Comparison(sign, left, right):
            return _compare(sign, interpret(left, scope), interpret(right, scope))
        case Logic(sign, operands):
            return _logic(sign == "||", [_outcome(operand, scope) for operand in operands])
        case Choice(cases, otherwise):
            for test, value in cases:
                if _boolean(interpret(test, scope)):
                    return interpret(value, scope)
            return interpret(otherwise, scope)
        case ListOf(items):
            return [interpret(item, scope) for item in items]
        case MapOf(entries):
            return _map([(interpret(key, scope), interpret(value, scope)) for key, value in entries])
        case Call(name, arguments):
            return _call(name, [interpret(argument, scope) for argument in arguments])


def canonical(value: Any) -> Any:
    """The same for values that are equal, and only for those."""
    match value:
        case bool() | None | str():
            return type(value).__name__, value
        case int() | float():
            return "number", Fraction(value)
        case list():
            return "list", tuple(map(canonical, value))
        case dict():
            return "object", frozenset((key, canonical(item)) for key, item in value.items())
    raise AssertionError(value)


def _present(there: bool, get: Any) -> Any:
    if not there:
        raise Absent
    return get()


def _follow(value: Any, steps: tuple[Step, ...], scope: dict[str, Any]) -> Any:
    for step in steps:
        match step:
            case Field(name):
                value = _at(value, name)
            case Index(key):
                value = _at(value, interpret(key, scope))
            case Method(name, arguments):
                value = _call(name, [value, *(interpret(argument, scope) for argument in arguments)])
    return value


def _at(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and isinstance(key, str) and key in value:
        return value[key]
    if isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool) and key in range(len(value)):
        return value[key]
    raise Absent


def _has(path: Path | Output, scope: dict[str, Any]) -> bool:
    target, steps = (path.target, path.steps) if isinstance(path, Path) else (path, ())
    keys = [step.name if isinstance(step, Field) else interpret(step.key, scope) for step in steps]  # type: ignore[union-attr]
    try:
        value = interpret(target, scope)
    except Absent:
        if isinstance(target, Root | Output):
            return False
        raise
    try:
        for key in keys:
            value = _at(value, key)
    except Absent:
        return False
    return True


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Bad
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Bad
    return value


def _outcome(part: Node, scope: dict[str, Any]) -> Any:
    try:
        return interpret(part, scope)
    except Bad:
        return Bad


def _logic(decisive: bool, outcomes: list[Any]) -> bool:
    if any(outcome is decisive for outcome in outcomes):
        return decisive
    if all(outcome is (not decisive) for outcome in outcomes):
        return not decisive
    raise Bad


def _operate(sign: str, left: Any, right: Any) -> Any:
    for kind in (str, list):
        if sign == "+" and isinstance(left, kind) and isinstance(right, kind):
            return left + right  # type: ignore[operator]
    return _computed(sign, _number(left), _number(right))


def _computed(sign: str, left: Any, right: Any, negate: bool = False) -> Any:
    whole = isinstance(left, int) and isinstance(right, int)
    if negate:
        value: Any = -right
        whole = isinstance(right, int)
    elif sign in "/%" and (right == 0 or (sign == "%" and not whole)):
        raise Bad
    elif whole and sign in "/%":
        quotient = math.trunc(Fraction(left, right))
        value = quotient if sign == "/" else left - right * quotient
    else:
        value = {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right,
                 "/": lambda: left / right}[sign]()  # fmt: skip
    if not (-(2**63) <= value < 2**63 if whole else math.isfinite(value)):
        raise Bad
    return value


def _compare(sign: str, left: Any, right: Any) -> bool:
    match sign:
        case "==":
            return bool(canonical(left) == canonical(right))
        case "!=":
            return bool(canonical(left) != canonical(right))
        case "in":
            return _within(left, right)
    return _ordered(sign, left, right)


def _within(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return canonical(left) in map(canonical, right)
    if isinstance(right, dict) and isinstance(left, str):
        return left in right
    raise Bad


def _ordered(sign: str, left: Any, right: Any) -> bool:
    if not (isinstance(left, str) and isinstance(right, str)):
        left, right = Fraction(_number(left)), Fraction(_number(right))
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def _map(entries: list[tuple[Any, Any]]) -> dict[str, Any]:
    made = {}
    for key, value in entries:
        if not isinstance(key, str) or key in made:
            raise Bad
        made[key] = value
    return made


def _call(name: str, arguments: list[Any]) -> Any:
    first = arguments[0]
    match name:
        case "size":
            if not isinstance(first, str | list | dict):
                raise Bad
            return len(first)
        case "min" | "max":
            return _extreme(name, arguments)
        case "int":
            return _int(first)
        case "double":
            return _double(first)
        case "string":
            return _string(first)
    return _ask(name, *arguments)


def _extreme(name: str, arguments: list[Any]) -> Any:
    values = arguments[0] if len(arguments) == 1 else arguments
    if not isinstance(values, list) or not values:
        raise Bad
    for value in values:
        _ordered("<", values[0], value)
    return sorted(values, reverse=name == "max")[0]


def _int(value: Any) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"[-+]?\d+", value, re.ASCII):
            raise Bad
        value = int(value)
    return int(_computed("*", 1, math.trunc(_number(value))))


def _double(value: Any) -> float:
    if isinstance(value, str):
        # Python's own reading would take a space, an underline and "nan" too.
        if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value, re.ASCII):
            raise Bad
        value = float(value)
    return float(_number(value))


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(_number(value))


def _ask(name: str, text: Any, part: Any) -> bool:
    if not isinstance(text, str) or not isinstance(part, str):
        raise Bad
    match name:
        case "contains":
            return part in text
        case "startsWith":
            return text[: len(part)] == part
        case "endsWith":
            return text[len(text) - len(part) :] == part if len(part) <= len(text) else False
    try:
        return re.search(part.replace("$", r"\Z"), text, re.ASCII) is not None
    except re.error:
        raise Bad from None
