"""Where older code imports FlowKit's logging helpers from: they live in `flowkit.log_setup`.

The core itself logs nothing and may not import `logging`. So this is no part of it, only an address: names are fetched
when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    home = import_module("flowkit.log_setup")
    if name not in home.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(import_module("flowkit.log_setup").__all__)
