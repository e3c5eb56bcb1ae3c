"""Follows a path into a value: fields, elements, what is missing, and whether it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Failure, Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.values import KINDS, LONG

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


def root_field(name: str, key: str, root_at: Span, at: Span) -> Run:
    """The value of a root's field, in one call, because that is what most conditions begin with."""
    find = root(name, root_at)

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        try:
            value = scope[name]
            if type(value) is dict:
                return value[key]
        except KeyError:
            pass
        return take(find(scope, meter), key, at)

    return run


def output(node: str, at: Span) -> Run:
    """The output of another node."""
    find = output_or_missing(node)

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        value = find(scope, meter)
        if value is MISSING:
            raise Failure(at, wording.no_output, node)
        return value

    return run


def root_or_missing(name: str) -> Run:
    """The value of a root, for `has`."""
    return lambda scope, _meter: scope.get(name, MISSING)


def output_or_missing(node: str) -> Run:
    """The output of another node, for `has`."""

    def run(scope: Mapping[str, Any], _meter: Meter) -> Any:
        try:
            return scope["nodes"][node]["output"]
        except KeyError:
            return MISSING

    return run


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


def computed_step(target: Run, key: Run, at: Span) -> Run:
    """`target[key]`, with a key that is computed."""

    def run(scope: Mapping[str, Any], meter: Meter) -> Any:
        value, step = target(scope, meter), key(scope, meter)
        _pay_for_hash(step, meter, at)
        return take(value, step, at)

    return run


def has(start: Run, keys: list[tuple[Any, Run | None]], at: Span) -> Run:
    """Whether the steps from `start`, which may be `MISSING`, lead somewhere. A key that is computed has a function."""

    def run(scope: Mapping[str, Any], meter: Meter) -> bool:
        value = start(scope, meter)
        for key, computed in keys:
            if computed is not None:
                key = computed(scope, meter)
                _pay_for_hash(key, meter, at)
            value = _peek(value, key, at)
        return value is not MISSING

    return run


def take(value: Any, key: Any, at: Span) -> Any:
    """One step. Raises `Failure` where it leads nowhere."""
    found = _peek(value, key, at)
    if found is not MISSING:
        return found
    if type(value) is dict and type(key) is str:
        raise Failure(at, wording.no_field, value, key)
    if type(value) is list and type(key) is int:
        raise Failure(at, wording.no_element, value, key)
    raise Failure(at, wording.no_step, value, key)


def _peek(value: Any, key: Any, at: Span) -> Any:
    kind = type(value)
    if kind is dict:
        return value.get(key, MISSING) if type(key) is str else MISSING
    if kind is list:
        return value[key] if type(key) is int and 0 <= key < len(value) else MISSING
    if kind not in KINDS and value is not MISSING:
        raise Failure(at, wording.unreadable, value)
    return MISSING


def _pay_for_hash(key: Any, meter: Meter, at: Span) -> None:
    # A string that was just made is hashed when it is first looked for.
    if type(key) is str and len(key) > LONG:
        charge(meter, len(key) // LONG, at)
