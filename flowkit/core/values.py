"""Literal JSON: copied at the door, so that nobody changes it later, and refused where JSON cannot say it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from flowkit.core.problems import Place, Problems, shown

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 2_000_000  # of one graph; a few shared lists nested in Python may stand for billions

# Given an object, its place and its depth: what it is copied to, or DECLINED.
Form = Callable[[dict[Any, Any], Place, int], Any]
DECLINED: Final = object()

INSTEAD: Final = {
    "set": "use a list",
    "frozenset": "use a list",
    "bytes": "encode them as text, or let a handler return them",
    "bytearray": "encode them as text, or let a handler return them",
    "datetime": "use its isoformat()",
    "date": "use its isoformat()",
    "Decimal": "use a string or a float",
    "UUID": "use a string",
}


class Copier:
    """Copies JSON values and reports what is none. Tuples become lists, subclasses what they derive from.

    `form` is asked about every object whose first key begins with `$`, or that has one of `keys`.
    """

    __slots__ = ("_form", "_keys", "_left", "_problems")

    def __init__(self, problems: Problems, form: Form | None = None, keys: frozenset[str] = frozenset()) -> None:
        self._problems = problems
        self._form = form
        self._keys = keys
        self._left = MAX_VALUES

    def copy(self, value: Any, place: Place, depth: int = 1) -> Any:
        """A copy of `value`, which stands at `place` inside `depth - 1` others."""
        kind = type(value)
        if kind is str:
            if not value.isascii():
                self._check_text(value, place)
            return value
        if kind is int or kind is bool or value is None:
            return value
        if kind is dict:
            return self._object(value, place, depth)
        if kind is list:
            return self._list(value, place, depth)
        if kind is float:
            if not math.isfinite(value):
                self._problems.add("E_VALUE", place, f"JSON has no {value}; use null or a string")
            return value
        return self._unusual(value, place, depth)

    def _object(self, value: dict[Any, Any], place: Place, depth: int) -> Any:
        self._left -= len(value)
        if self._left < 0 or depth > MAX_DEPTH:
            return self._refuse(place)
        if self._form is not None and (_first(value) == "$" or not self._keys.isdisjoint(value)):
            copied = self._form(value, place, depth)
            if copied is not DECLINED:
                return copied

        copied = {}
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = self._key(key, place)
            kind = type(item)
            if kind is int or item is None or (kind is str and item.isascii()):  # spares most values a call
                copied[key] = item
            else:
                copied[key] = self.copy(item, (place, key), depth + 1)
        return copied

    def _list(self, value: list[Any] | tuple[Any, ...], place: Place, depth: int) -> Any:
        self._left -= len(value)
        if self._left < 0 or depth > MAX_DEPTH:
            return self._refuse(place)
        copied = []
        for number, item in enumerate(value):
            kind = type(item)
            if kind is int or item is None or (kind is str and item.isascii()):
                copied.append(item)
            else:
                copied.append(self.copy(item, (place, number), depth + 1))
        return copied

    def _refuse(self, place: Place) -> None:
        if self._left < 0:
            say = f"a graph holds at most {MAX_VALUES:,} values; pass less, or a file"
            self._problems.stop("E_SIZE", place, say)
        self._problems.add("E_DEPTH", place, f"values are nested more than {MAX_DEPTH} deep; flatten them")

    def _key(self, key: object, place: Place) -> str:
        if not isinstance(key, str):
            self._problems.add("E_VALUE", place, f"JSON keys are strings; found {shown(key)}")
            return ""
        self._check_text(key, (place, key))
        return str.__str__(key)

    def _check_text(self, text: str, place: Place) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            say = "a lone surrogate is not a character; decode the text properly"
            self._problems.add("E_VALUE", place, say)

    def _unusual(self, value: object, place: Place, depth: int) -> Any:
        match value:
            case str():
                return self.copy(str.__str__(value), place, depth)
            case int():
                return int(value)
            case float():
                return self.copy(float(value), place, depth)
            case dict():
                return self._object(dict(value), place, depth)
            case list() | tuple():
                return self._list(value, place, depth)
        advice = INSTEAD.get(type(value).__name__, "use strings, numbers, lists and objects")
        self._problems.add("E_VALUE", place, f"JSON cannot say {shown(value)}; {advice}")
        return None


def _first(value: dict[Any, Any]) -> str:
    for key in value:
        return key[:1] if type(key) is str else ""
    return ""
