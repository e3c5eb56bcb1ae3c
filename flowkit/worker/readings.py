"""How a worker stands at this moment, for whoever measures."""

from __future__ import annotations

from collections.abc import Iterator

from flowkit import measures as m
from flowkit.observations import Reading
from flowkit.worker.slots import Slots


def readings(slots: Slots, most: int) -> Iterator[Reading]:
    running = len(slots.running)
    queued = slots.load - running
    yield Reading(m.SLOTS.name, most)
    yield Reading(m.SLOTS_USED.name, running)
    yield Reading(m.QUEUED.name, queued)
    yield Reading(m.UNSENT.name, max(0, len(slots.held) - slots.load))
