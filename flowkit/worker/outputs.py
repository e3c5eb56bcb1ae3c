"""Turns what a handler returned into what may travel: the JSON value itself, or a reference to an artifact."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any, NoReturn

from flowkit.core.immutable import immutable
from flowkit.core.payload import Artifact, Payload
from flowkit.core.problems import render, shown
from flowkit.core.values import INSTEAD, MAX_DEPTH
from flowkit.wire.codec import dumps
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.results import Next

LARGE_BYTES = 48 * 1024
NUMBER_BYTES = 25
"""What a number that msgspec can say takes up in JSON, at most; true, false and null are shorter."""
AT_ONCE = 20_000
"""How many values may be looked at in the event loop; more are the business of a thread."""

_ADVICE = {**INSTEAD, "bytes": "return them alone, or use ctx.artifacts.put_bytes()", "Enum": "use its value"}


@immutable
class Output:
    """An encoded output. `blob` is to be stored before `payload`, which then refers to it, is sent. `size` is what the
    payload takes up in a message, at most."""

    payload: Payload
    size: int
    blob: bytes | None = None


class TooMuch(Exception):
    """There are more values than were to be looked at in one go."""


class Unsayable(Exception):
    """A value that JSON has no words for; `steps` lead to it, the last first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.steps: list[str | int] = []

    def failure(self) -> AttemptFailure:
        place: Any = "output"
        for step in reversed(self.steps):
            place = (place, step)
        return AttemptFailure("bad_output", f"{render(place)}: {self}", permanent=True)


def split(value: Any) -> tuple[Any, tuple[str, ...] | None]:
    """The output, and the successors that the handler chose."""
    return (value.output, tuple(value.nodes)) if isinstance(value, Next) else (value, None)


def encode(value: Any, *, most_bytes: int, most_values: int | None = None) -> Output:
    """The output as it travels; it shares nothing with `value`. Raises `AttemptFailure` for what cannot be one, and
    `TooMuch` where it holds more than `most_values`."""
    if _is_short(value) and most_bytes >= NUMBER_BYTES:  # what it takes up need not be measured
        return Output(Payload(value), NUMBER_BYTES)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if most_values is not None and len(data) // 64 > most_values:
            raise TooMuch
        _check_size(len(data), most_bytes)
        return _artifact(data, "bytes")
    copy, data = _copied(value, most_values)
    _check_size(len(data), most_bytes)
    return _artifact(data, "json") if len(data) > LARGE_BYTES else Output(Payload(copy), len(data))


def to_json(value: Any, *, most_values: int | None = None) -> bytes:
    """The JSON text of a value. Raises `AttemptFailure` for what cannot be said, and `TooMuch` where it holds more than
    `most_values`."""
    return _copied(value, most_values)[1]


def _is_short(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return int(value).bit_length() < 64
    return value is None or kind is bool or (kind is float and math.isfinite(value))


def _copied(value: Any, most_values: int | None) -> tuple[Any, bytes]:
    try:
        copy = Copier(most_values).copy(value, 1)
        return copy, dumps(copy)
    except Unsayable as problem:
        raise problem.failure() from None
    except (ValueError, TypeError, RecursionError) as error:  # a number of thousands of digits, say
        raise AttemptFailure("bad_output", f"output: {error}", permanent=True) from None


def _artifact(data: bytes, kind: str) -> Output:
    ref = hashlib.sha256(data).hexdigest()
    return Output(Payload(None, Artifact(ref, len(data), kind)), 160, data)


def _check_size(size: int, most: int) -> None:
    if size > most:
        message = f"the output has {size:,} bytes, at most {most:,} are allowed: return a reference to it instead"
        raise AttemptFailure("output_too_large", message, permanent=True)


class Copier:
    """Copies a value into plain JSON values: tuples become lists, dataclasses and pydantic models are dumped."""

    __slots__ = ("_left",)

    def __init__(self, most: int | None) -> None:
        self._left = math.inf if most is None else most

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return value if value.isascii() else self._text(value)
        if kind is int or kind is bool or value is None:
            return value
        if kind is dict:
            return self._object(value, depth)
        if kind is list:
            return self._list(value, depth)
        if kind is float:
            if not math.isfinite(value):
                raise Unsayable(f"JSON has no {value}; use null or a string")
            return value
        return self._unusual(value, depth)

    def _object(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._enter(len(value), depth)
        copied: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                key = self._key(key)
            kind = type(item)
            if kind is int or item is None or (kind is str and item.isascii() and len(item) < 1000):
                copied[key] = item
                continue
            try:
                copied[key] = self.copy(item, depth + 1)
            except Unsayable as problem:
                problem.steps.append(key)
                raise
        return copied

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        self._enter(len(value), depth)
        copied: list[Any] = []
        for number, item in enumerate(value):
            try:
                copied.append(self.copy(item, depth + 1))
            except Unsayable as problem:
                problem.steps.append(number)
                raise
        return copied

    def _enter(self, count: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Unsayable(f"values are nested more than {MAX_DEPTH} deep; flatten them")
        self._spend(count)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TooMuch

    def _text(self, text: str) -> str:
        self._spend(len(text) // 64)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Unsayable("a lone surrogate is not a character; decode the text properly") from None
        return text

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise Unsayable(f"JSON keys are strings; found {shown(key)}")
        try:
            return self._text(str.__str__(key))
        except Unsayable as problem:
            raise Unsayable(f"in a key: {problem}") from None

    def _unusual(self, value: Any, depth: int) -> Any:
        match value:
            case str():
                return self._text(str.__str__(value))
            case int():
                return int(value)
            case float():
                return self.copy(float(value), depth)
            case dict():
                return self._object(dict(value), depth)
            case list() | tuple():
                return self._list(value, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return self._object(fields, depth)
        if callable(dump := getattr(value, "model_dump", None)) and not isinstance(value, type):
            self._enter(1, depth)
            return self.copy(dump(mode="json"), depth)
        self._refuse(value)

    def _refuse(self, value: object) -> NoReturn:
        names = [kind.__name__ for kind in type(value).__mro__]
        advice = next((_ADVICE[name] for name in names if name in _ADVICE), "use strings, numbers, lists and objects")
        raise Unsayable(f"JSON cannot say {shown(value)}; {advice}")
