"""A detector of secrets as users write one, to be imported by name."""

from __future__ import annotations

from typing import Any


class ByName:
    def is_sensitive(self, key_path: str, value: Any) -> bool:
        return key_path.endswith("password")


def by_name(key_path: str, value: Any) -> bool:
    return ByName().is_sensitive(key_path, value)


def make() -> ByName:
    return ByName()
