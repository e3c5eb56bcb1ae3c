"""What tells secrets from other values, in any of the forms in which a user may give it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

from flowkit.core.sensitive import looks_secret
from flowkit.errors import ConfigError

Predicate = Callable[[str, Any], bool]
FORMS = "an object with is_sensitive(key_path, value), a function of (key_path, value), or a factory of either"


class SensitiveDetectorProto(Protocol):
    """Says which values of a task's variables are secrets. It is asked while a coordinator decides: it must not wait,
    and must give the same answer to the same question."""

    def is_sensitive(self, key_path: str, value: Any) -> bool: ...


def resolve_detector(given: Any) -> Predicate:
    """The predicate that `given` describes: an object, a predicate, a factory of either, or the import string of one
    of these (`pkg.mod:attr` or `pkg.mod.attr`); None is FlowKit's own. Raises `ConfigError` for anything else."""
    if given is None:
        return looks_secret
    if isinstance(given, str):
        given = _imported(given)
    found = _predicate(given)
    if found is None and callable(given) and _takes(given, 0):
        found = _predicate(given())
    if found is None:
        raise ConfigError(f"sensitive_detector: {given!r} is not {FORMS}")
    return found


def _predicate(given: Any) -> Predicate | None:
    if not isinstance(given, type):
        if callable(method := getattr(given, "is_sensitive", None)):
            return method  # type: ignore[no-any-return]
        if callable(given) and _takes(given, 2):
            return given  # type: ignore[no-any-return]
    return None


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature: it is taken at its word
        return count == 2
    return True


def _imported(path: str) -> Any:
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        thing: Any = import_module(module)
        for part in name.split("."):
            thing = getattr(thing, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"sensitive_detector: cannot import {path!r}: {error}") from error
    return thing
