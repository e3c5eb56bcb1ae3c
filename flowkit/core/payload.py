"""A node's output as the engine carries it: the JSON value itself, or a reference to an artifact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

from flowkit.core.immutable import immutable

T = TypeVar("T")
Place = tuple[str | int, ...]


@immutable
class Artifact:
    """A value kept in the artifact store. `ref` is its content hash, `size` its bytes, `kind` is `json` or
    `bytes`; `path` leads into the JSON value where only a part is meant."""

    ref: str
    size: int
    kind: str
    path: tuple[str | int, ...] = ()

    def at(self, path: tuple[str | int, ...]) -> Artifact:
        return replace(self, path=self.path + path)


PLAIN: Final = frozenset({str, int, float, bool, type(None)})
"""The types of values in which nothing else stands."""


@immutable
class SecretHole:
    """Stands in a node's inputs for the value of the secret `name`, which only its program or handler gets to see."""

    name: str


@immutable
class Payload:
    """An output: `value`, or `artifact` where the value was too large to travel (then `value` is None)."""

    value: Any = None
    artifact: Artifact | None = None

    def get(self) -> Any:
        """The JSON value, or the `Artifact` that stands for it."""
        return self.value if self.artifact is None else self.artifact


def lift_artifacts(value: Any) -> tuple[Any, list[tuple[Place, Artifact]]]:
    """Replace every `Artifact` inside `value` by None; say where each one stood. Untouched values are shared, not
    copied."""
    return _lift(value, Artifact)


def lift_secrets(value: Any) -> tuple[Any, list[tuple[Place, SecretHole]]]:
    """The same for every `SecretHole`."""
    return _lift(value, SecretHole)


def lift_bytes(value: Any) -> tuple[Any, list[tuple[Place, bytes]]]:
    """The same for all bytes."""
    return _lift(value, bytes)


def _lift(value: Any, kind: type[T]) -> tuple[Any, list[tuple[Place, T]]]:
    found: list[tuple[Place, T]] = []
    if not _holds(value, kind):  # nearly always
        return value, found

    def walk(part: Any, place: Place) -> Any:
        if isinstance(part, kind):
            found.append((place, part))
            return None
        if isinstance(part, dict):
            return {key: walk(item, (*place, key)) for key, item in part.items()} if _holds(part, kind) else part
        if isinstance(part, list):
            return [walk(item, (*place, index)) for index, item in enumerate(part)] if _holds(part, kind) else part
        return part

    return walk(value, ()), found


def put_at(value: Any, place: Place, content: Any) -> Any:
    """The value with `content` where one of its parts was lifted from; it is changed, unless it is all replaced."""
    if not place:
        return content
    holder = value
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = content
    return value


def holds_artifacts(value: Any) -> bool:
    """Whether an `Artifact` stands anywhere inside the value."""
    return _holds(value, Artifact)


def _holds(value: Any, kind: type) -> bool:
    if type(value) in PLAIN or (type(value) is dict and PLAIN.issuperset(map(type, value.values()))):
        return False
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, kind):
            return True
        if isinstance(part, dict):
            stack += [inner for inner in part.values() if type(inner) not in PLAIN]
        elif isinstance(part, list):
            stack += [inner for inner in part if type(inner) not in PLAIN]
    return False
