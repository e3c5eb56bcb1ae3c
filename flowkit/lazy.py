"""Names of a package that are loaded when they are first used, so that importing it costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package; `homes` says in which module each of its names lives. A name that it does not
    have raises `AttributeError` with the nearest that it has."""

    def find(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise unknown(package, name, homes)
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def unknown(package: str, name: str, homes: Iterable[str]) -> AttributeError:
    """What is raised for a name that a package does not have."""
    from flowkit.errors import did_you_mean

    near = "" if name.startswith("_") else did_you_mean(name, homes)
    return AttributeError(f"module {package!r} has no attribute {name!r}{near}")
