"""Values: dataclasses that nobody changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def immutable(kind: type[T]) -> type[T]:
    """A dataclass with slots, equal and hashed by its fields.

    Type checkers see it as frozen. At run time it is not: a frozen `__init__` goes through `object.__setattr__` field
    by field and takes two to three times as long, and a coordinator makes a dozen of these for every node.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)
