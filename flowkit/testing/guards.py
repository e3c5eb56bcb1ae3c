"""The protocol's guards, by rule, and how each is taken out of the real code: to see that somebody notices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard. `target` is `module:Class.attribute` (or `module:attribute`); `instead` makes what stands there
    without the guard from what stands there with it. No target: the simulated store leaves it out."""

    name: str
    rule: int
    about: str
    target: str = ""
    instead: Callable[[Any], Any] = lambda original: original


GUARDS: dict[str, Guard] = {
    guard.name: guard
    for guard in (
        Guard("unique", 1, "(task, seq) is unique in the store"),
        Guard("majority", 2, "a write is acknowledged only when a majority holds it"),
    )
}


@contextmanager
def removed(names: Iterable[str]) -> Iterator[frozenset[str]]:
    """Take guards out of the real code; gives the names of those that the simulated store must leave out."""
    undo: list[tuple[Any, str, Any]] = []
    in_store = set()
    try:
        for name in names:
            guard = find(name)
            if not guard.target:
                in_store.add(name)
                continue
            owner, attribute = _place(guard.target)
            # As it stands in the class: a static method must not come back as a plain function.
            original = vars(owner)[attribute]
            undo.append((owner, attribute, original))
            setattr(owner, attribute, guard.instead(original))
        yield frozenset(in_store)
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)


def find(name: str) -> Guard:
    if name not in GUARDS:
        raise ValueError(f"no guard {name!r}; there are {', '.join(sorted(GUARDS))}")
    return GUARDS[name]


def _place(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *outer, attribute = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, attribute
