"""Makes lists and objects, and measures what an expression gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowkit.core.expr import wording
from flowkit.core.expr.failure import Exceeded, Failure, Span, charge, too_large
from flowkit.core.expr.limits import MAX_SIZE, Meter
from flowkit.core.expr.paths import Run
from flowkit.core.expr.values import LONG, SCALARS
from flowkit.core.payload import Artifact

SCALAR_SIZE: Final = 8  # bytes that everything but a string counts
LIST: Final = 5  # steps that it takes to look into a list or an object, besides one for each value and key in it


def list_of(items: list[Run]) -> Run:
    return lambda scope, meter: [item(scope, meter) for item in items]


def map_of(entries: list[tuple[Run, Span, Run]]) -> Run:
    def run(scope: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, at, value in entries:
            key = name(scope, meter)
            if type(key) is not str:
                raise Failure(at, wording.not_a_key, key)
            charge(meter, len(key) // LONG, at)
            if key in made:
                raise Failure(at, wording.key_twice, key)
            made[key] = value(scope, meter)
        return made

    return run


def measure(value: Any, meter: Meter, at: Span) -> None:
    """Refuse a result that is too large, or that JSON cannot say. Raises `Failure`."""
    left = MAX_SIZE
    parts = [value]
    while parts:
        part = parts.pop()
        kind = type(part)
        if kind is str:
            left -= len(part) if part.isascii() else _bytes(part, meter, at)
        elif kind in SCALARS or kind is Artifact:
            left -= SCALAR_SIZE
        elif kind is list:
            charge(meter, LIST + len(part), at)
            parts.extend(part)
            left -= SCALAR_SIZE
        elif kind is dict:
            charge(meter, LIST + 2 * len(part), at)
            parts.extend(part)
            parts.extend(part.values())
            left -= SCALAR_SIZE
        else:
            raise Failure(at, wording.unreadable, part)
        if left < 0:
            raise Exceeded(at, too_large)


def _bytes(text: str, meter: Meter, at: Span) -> int:
    if len(text) > MAX_SIZE:
        return len(text)
    charge(meter, 3 + len(text) // LONG, at)
    return len(text.encode("utf-8", "surrogatepass"))
