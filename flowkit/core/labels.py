"""Labels: what workers say of themselves, what nodes ask for, and how to put it that nobody has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.errors import did_you_mean

Wanted = tuple[tuple[str, tuple[str, ...]], ...]
"""Labels that are asked for, by name, each with the values that will do."""


def wanted(written: Mapping[str, Any]) -> Wanted:
    """What a graph says, in one form: a text is a list of one. The order in which it was written means nothing."""
    pairs = ((name, (values,) if isinstance(values, str) else tuple(values)) for name, values in written.items())
    return tuple(sorted((name, tuple(sorted(set(values)))) for name, values in pairs))


def fits(asked: Wanted, labels: Mapping[str, str]) -> bool:
    """Whether a worker with these labels has all that is asked for."""
    return all(labels.get(name) in values for name, values in asked)


def score(asked: Wanted, labels: Mapping[str, str]) -> int:
    """How many of the labels asked for it has."""
    return sum(labels.get(name) in values for name, values in asked)


def in_words(asked: Wanted) -> str:
    """`gpu=a100 or h100, zone=eu`."""
    return ", ".join(f"{name}={' or '.join(values)}" for name, values in asked)


def lacking(asked: Wanted, workers: Mapping[str, Mapping[str, str]]) -> str:
    """What the nearest of the workers (their labels, by id) lacks of what is asked for, and what was perhaps meant;
    nothing, if one of them lacks nothing or there are none."""
    if not workers:
        return ""
    nearest = min(workers, key=lambda worker: (-score(asked, workers[worker]), worker))
    labels = workers[nearest]
    short = [(name, values) for name, values in asked if labels.get(name) not in values]
    if not short:
        return ""
    return f"the nearest, {nearest!r}, " + ", and ".join(
        _short_of(name, values, labels, list(workers.values())) for name, values in short
    )


def _short_of(name: str, values: Sequence[str], labels: Mapping[str, str], fleet: list[Mapping[str, str]]) -> str:
    if name not in labels:
        known = {other for one in fleet for other in one}
        hint = "" if name in known else did_you_mean(name, sorted(known))
        return f"has no label {name!r}{hint}"
    seen = sorted({one[name] for one in fleet if name in one})
    hints = (did_you_mean(value, seen) for value in values if value not in seen)
    return f"has {name}={labels[name]}{next((hint for hint in hints if hint), '')}"
