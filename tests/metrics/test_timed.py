"""How long the store and the bus took is told, also when they fail; the rest of them is as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.adapters.timed import VERBS, timed_bus, timed_store
from flowkit.errors import StoreUnavailable
from flowkit.observations import Took
from flowkit.ports import Head, Outcome, Record
from flowkit.telemetry import Telemetry


class Away(MemoryStore):
    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        raise StoreUnavailable("gone")


class Half:
    """A bus that takes every other record."""

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        return [number % 2 == 0 for number in range(len(records))]

    def partitions(self, topic: str) -> int:
        return 7


async def test_a_store_tells_how_long_it_took_and_whether_it_failed() -> None:
    telemetry, told = Telemetry(), []
    telemetry.observe(told.append)
    store = timed_store(Away(), telemetry)

    assert await store.insert_heads([Head("t", 0, "g")]) == [Outcome.OK]
    with pytest.raises(StoreUnavailable):
        await store.read_heads(["t"])
    assert await store.limits_of(0, limit=1) == []

    assert [(one.port, one.verb, one.failed) for one in told] == [
        ("store", "insert_heads", False),
        ("store", "read_heads", True),
    ]
    assert all(0 <= one.seconds < 60 for one in told)


async def test_a_bus_that_did_not_take_all_has_failed() -> None:
    telemetry, told = Telemetry(), []
    telemetry.observe(told.append)
    given: Any = Half()
    bus = timed_bus(given, telemetry)

    assert await bus.publish([Record("t", 0, b"")]) == [True]
    assert await bus.publish([Record("t", 0, b""), Record("t", 0, b"")]) == [True, False]
    assert bus.partitions("t") == 7

    assert [(one.verb, one.failed) for one in told if isinstance(one, Took)] == [("publish", False), ("publish", True)]


def test_where_nobody_observes_they_are_what_they_were() -> None:
    store, bus = MemoryStore(), Half()

    assert timed_store(store, Telemetry()) is store
    assert timed_bus(bus, Telemetry()) is bus  # type: ignore[arg-type, comparison-overlap]
    assert all(hasattr(store, verb) for verb in VERBS)
