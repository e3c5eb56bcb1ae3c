"""Follows a path into a value: fields, elements, what is missing, and whether it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.values import LONG

Run = Callable[[Mapping[str, Any], Meter], Any]

MISSING: Final = object()


def root(name: str, at: Span) -> Run:
    """The value of a root."""

    def run(scope: Mapping[str, Any], _meter: Meter) -> Any:
        value = scope.get(name, MISSING)
        if value is MISSING:
            raise Failure(at, wording.no_root, name)
        return value

    return run


def output(node: str, at: Span) -> Run:
    """The output of another node."""

    def run(scope: Mapping[str, Any], _meter: Meter) -> Any:
        value = look_up_output(scope, node)
        if value is MISSING:
            raise Failure(at, wording.no_output, node)
        return value

    return run


def look_up_output(scope: Mapping[str, Any], node: str) -> Any:
    """The output, or `MISSING`."""
    return scope.get("nodes", {}).get(node, {}).get("output", MISSING)


def constant_path(target: Run, keys: tuple[tuple[Any, Span], ...]) -> Run:
    """Steps that are known when the expression is read."""

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        value = target(scope, meter)
        for key, at in keys:
            if type(value) is dict and key in value:
                value = value[key]
            else:
                value = take(value, key, at)
        return value

    return run


def take(value: Any, key: Any, at: Span) -> Any:
    """One step. Raises `Failure` where it leads nowhere."""
    found = peek(value, key)
    if found is not MISSING:
        return found
    if type(value) is dict and type(key) is str:
        raise Failure(at, wording.no_field, value, key)
    if type(value) is list and type(key) is int:
        raise Failure(at, wording.no_element, value, key)
    raise Failure(at, wording.no_step, value, key)


def peek(value: Any, key: Any) -> Any:
    """One step, or `MISSING`."""
    kind = type(value)
    if kind is dict:
        return value.get(key, MISSING) if type(key) is str else MISSING
    if kind is list and type(key) is int and 0 <= key < len(value):
        return value[key]
    return MISSING


def computed_step(target: Run, key: Run, at: Span) -> Run:
    """`target[key]`, with a key that is computed."""

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        return take(target(scope, meter), _hashable(key(scope, meter), meter, at), at)

    return run


def has(start: Run, keys: list[Run], at: Span) -> Run:
    """Whether the steps from `start`, which may be `MISSING`, lead somewhere."""

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = start(scope, meter)
        for key in keys:
            value = peek(value, _hashable(key(scope, meter), meter, at))
        return value is not MISSING

    return run


def _hashable(key: Any, meter: Meter, at: Span) -> Any:
    # A string that was just made is hashed when it is first looked for.
    if type(key) is str:
        charge(meter, len(key) // LONG, at)
    return key
