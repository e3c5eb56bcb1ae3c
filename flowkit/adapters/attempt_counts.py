"""What is to be added to rollups for some attempts: for the stores that keep rollups as bodies."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from flowkit.adapters.limits import storable
from flowkit.monitor_ports import AttemptRecord
from flowkit.wire.rollups import SPANS, Cells, Group, count_into, pieces

SLICE: Final = 200
"""So many attempts are counted while nobody else has a turn: in less than a millisecond."""


def bodies_of(
    records: Sequence[AttemptRecord], spans: Sequence[int] = SPANS
) -> Generator[None, None, dict[Group, list[bytes]]]:
    """The bodies by rollup, of those that a store can keep. In slices, and not in a thread: the loop would wait for the
    thread again each time that it has waited itself, and what goes on beside a wide task takes many such turns."""
    found: dict[Group, Cells] = {}
    for start in range(0, len(records), SLICE):
        count_into(found, filter(storable, records[start : start + SLICE]), spans)
        yield
    bodies: dict[Group, list[bytes]] = {}
    for group, cells in found.items():
        bodies[group] = []
        for body in pieces(cells):
            bodies[group].append(body)
            yield
    return bodies
