"""Recorded facts: their tags are for ever, and their fields only grow at the end."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from flowkit.core import facts as f
from flowkit.core.immutable import immutable

# What stands in stores. A line may be added, and fields at a line's end; nothing else may change.
FOR_EVER = {
    "created": "not_needed",
    "leased": "node attempt token worker incarnation accept_by",
    "started": "node attempt token",
    "succeeded": "node attempt token output next run_sec",
    "failed": "node attempt token error retry_at budget run_sec",
    "lost": "node attempt token why retry_at costs error",
    "retry_due": "node",
    "node_failed": "node error",
    "skipped": "node reason by_failure cause",
    "node_cancelling": "node reason until",
    "node_cancelled": "node reason",
    "request": "n id kind accepted why principal",
    "paused": "reason",
    "resumed": "",
    "cancelling": "reason outcome until error",
    "restarted": "generation nodes",
    "ended": "status error",
}


def test_every_fact_has_one_tag() -> None:
    assert set(f.TAGS.values()) == set(get_args(f.Fact))
    assert len(set(f.TAGS.values())) == len(f.TAGS)


@pytest.mark.parametrize("tag", FOR_EVER)
def test_tags_and_fields_are_for_ever(tag: str) -> None:
    names = [field.name for field in dataclasses.fields(f.TAGS[tag])]
    before = FOR_EVER[tag].split()

    assert names[: len(before)] == before
    new = dataclasses.fields(f.TAGS[tag])[len(before) :]
    assert all(field.default is not dataclasses.MISSING for field in new)


@pytest.mark.parametrize("kind", f.TAGS.values(), ids=lambda kind: kind.__name__)
def test_facts_are_values(kind: type) -> None:
    required = [field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    fact, same = kind(*[None] * len(required)), kind(*[None] * len(required))

    assert fact == same
    assert len({fact, same}) == 1
    with pytest.raises((AttributeError, TypeError)):
        fact.anything = 1


def test_type_checkers_take_facts_for_frozen() -> None:
    said = vars(immutable)["__dataclass_transform__"]
    assert (said | said["kwargs"])["frozen_default"]  # since Python 3.12 it is no extra any more
