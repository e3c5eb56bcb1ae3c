"""The variables of a task: how they are named, what they may hold, and the recorded operations that change them.

An operation is a small JSON list, `["set", ["a", "b"], value]` or `["unset", ["a", "b"]]`; its path is already split.
A value that is set is never an object with something in it: that is several operations, one for each leaf.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from flowkit.core.problems import shown
from flowkit.errors import FunctionError

MOST_PATHS: Final = 256
MOST_DOTS: Final = 16
LONGEST_PATH: Final = 512
LONGEST_SEGMENT: Final = 128
MOST_VALUE_BYTES: Final = 64 * 1024
MOST_BYTES: Final = 512 * 1024
"""Of everything that one function sets or gives back: it must fit into one commit."""

Path = tuple[str, ...]
Operation = list[Any]


# Names.


def parse_path(text: object) -> Path:
    """The segments of `a.b.c`. Raises `FunctionError` with the code `bad_path`."""
    if not isinstance(text, str):
        raise _bad_path(text, "a name is a text such as 'totals.rows'")
    return checked_path(tuple(text.split(".")))


def checked_path(path: Path) -> Path:
    """The path, if each of its segments may be a name. Raises `FunctionError` with the code `bad_path`."""
    whole = ".".join(path)
    if len(whole) > LONGEST_PATH:
        raise _bad_path(whole, f"a path has at most {LONGEST_PATH} characters")
    if len(path) > MOST_DOTS + 1:
        raise _bad_path(whole, f"a path has at most {MOST_DOTS} dots; store a list, or fewer levels")
    for segment in path:
        if why := _unfit(segment):
            raise _bad_path(whole, why)
    return path


def _unfit(segment: str) -> str:
    if not segment:
        return "a name between two dots must not be empty"
    if len(segment) > LONGEST_SEGMENT:
        return f"a name between two dots has at most {LONGEST_SEGMENT} characters"
    if segment.startswith("$"):
        return "a name must not begin with '$'"
    if "." in segment:
        return "a name inside an object has no dots; nest objects instead"
    return "a name must not hold a NUL character" if "\0" in segment else ""


def _bad_path(path: object, why: str) -> FunctionError:
    return FunctionError(f"{shown(path)} cannot name a variable: {why}", code="bad_path")


# Values.


def flatten(values: Mapping[str, Any]) -> list[tuple[Path, Any]]:
    """Each leaf with its path. Keys of the outermost object may be dotted; an empty object is a leaf.

    Raises `FunctionError` where a limit is passed, or two of them contradict each other.
    """
    leaves: list[tuple[Path, Any]] = []
    for key, value in values.items():
        for leaf in _leaves(parse_path(key), value):
            leaves.append(leaf)
            check_count(len(leaves))
    _check_sizes(leaves)
    _check_apart([path for path, _ in leaves])
    return leaves


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(checked_path((*path, key)), item)


def check_count(count: int) -> None:
    if count > MOST_PATHS:
        say = f"a function names at most {MOST_PATHS} variables; use several nodes, or store a list"
        raise FunctionError(say, code="too_many_paths")


def _check_sizes(leaves: Iterable[tuple[Path, Any]]) -> None:
    whole = 0
    for path, value in leaves:
        size = json_size(value)
        if size > MOST_VALUE_BYTES:
            say = f"{'.'.join(path)!r} would have {size:,} bytes as JSON, at most {MOST_VALUE_BYTES:,} are allowed"
            raise FunctionError(f"{say}; keep it as a node's output", code="value_too_large")
        whole += size
    check_bytes(whole)


def check_bytes(size: int) -> None:
    if size > MOST_BYTES:
        say = f"a function sets or gives back at most {MOST_BYTES:,} bytes; here are {size:,}: let a handler do it"
        raise FunctionError(say, code="value_too_large")


def json_size(value: Any) -> int:
    """The bytes of a value as compact JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _check_apart(paths: Iterable[Path]) -> None:
    # Next to each other in this order stand equal paths, and a path and the first of those that lead through it.
    ordered = sorted(paths)
    for one, other in pairwise(ordered):
        if other[: len(one)] == one:
            say = f"{'.'.join(one)!r} and {'.'.join(other)!r} cannot both be set at once"
            raise FunctionError(say, code="conflicting_paths")


# Changes.


def read(variables: Mapping[str, Any], path: Path) -> tuple[bool, Any]:
    """Whether the variable is there, and its value. Raises `FunctionError` where the path leads through a value that is
    no object."""
    part: Any = variables
    for depth, segment in enumerate(path):
        if not isinstance(part, dict):
            say = f"{'.'.join(path)!r} cannot be reached: {'.'.join(path[:depth])!r} is {shown(part)}, not an object"
            raise FunctionError(say, code="not_an_object")
        if segment not in part:
            return False, None
        part = part[segment]
    return True, part


def apply(variables: dict[str, Any], operations: Iterable[Operation]) -> None:
    """Make the recorded changes, in place. An object that an `unset` left empty goes too."""
    for operation in operations:
        match operation:
            case ["set", path, value]:
                _set(variables, path, value)
            case ["unset", path]:
                _unset(variables, path)


def _set(variables: dict[str, Any], path: list[str], value: Any) -> None:
    part = variables
    for segment in path[:-1]:
        part = part.setdefault(segment, {})
    # What was recorded stays as it is: a later change inside an empty object must not reach it.
    part[path[-1]] = dict(value) if isinstance(value, dict) else value


def _unset(variables: dict[str, Any], path: list[str]) -> None:
    above: list[dict[str, Any]] = [variables]
    for segment in path[:-1]:
        below = above[-1].get(segment)
        if not isinstance(below, dict):
            return
        above.append(below)
    if path[-1] not in above[-1]:
        return
    for part, segment in zip(reversed(above), reversed(path), strict=True):
        del part[segment]
        if part:
            return
