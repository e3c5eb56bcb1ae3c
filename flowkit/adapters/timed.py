"""A store and a bus that tell how long they took, whichever they are. Only where somebody observes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from flowkit.observations import Took
from flowkit.ports import Bus, Record, Store
from flowkit.telemetry import Telemetry

VERBS: Final = (
    "insert_commits", "insert_heads", "update_heads", "read_heads", "read_commits", "due_heads", "active_heads",
    "insert_request", "open_requests", "put_blob", "get_blob", "insert_block", "swap_limits", "renew",
)  # fmt: skip
"""Those of the store that are worth a histogram each; a label has few values."""


def timed_store(store: Store, telemetry: Telemetry) -> Store:
    """The store, as it is where nobody observes."""
    return cast(Store, TimedStore(store, telemetry)) if telemetry.observers else store


def timed_bus(bus: Bus, telemetry: Telemetry) -> Bus:
    """The bus, as it is where nobody observes."""
    return cast(Bus, TimedBus(bus, telemetry)) if telemetry.observers else bus


class TimedStore:
    """A `Store`."""

    def __init__(self, store: Store, telemetry: Telemetry) -> None:
        self._store = store
        for verb in VERBS:
            setattr(self, verb, _timed("store", verb, getattr(store, verb), telemetry))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class TimedBus:
    """A `Bus`. What is not acknowledged counts as failed."""

    def __init__(self, bus: Bus, telemetry: Telemetry) -> None:
        self._bus = bus
        self._telemetry = telemetry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        began = time.perf_counter()
        answers = await self._bus.publish(records)
        self._telemetry.told(Took("bus", "publish", time.perf_counter() - began, not all(answers)))
        return answers


def _timed(port: str, verb: str, call: Callable[..., Awaitable[Any]], telemetry: Telemetry) -> Any:
    async def timed(*args: Any, **named: Any) -> Any:
        began, failed = time.perf_counter(), True
        try:
            answer = await call(*args, **named)
            failed = False
            return answer
        finally:
            telemetry.told(Took(port, verb, time.perf_counter() - began, failed))

    return timed
