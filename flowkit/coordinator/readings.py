"""How a coordinator stands at this moment, for whoever measures: gauges, read when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowkit import measures as m
from flowkit.observations import Reading

if TYPE_CHECKING:
    from flowkit.coordinator.runtime import CoordinatorRuntime


def readings(runtime: CoordinatorRuntime) -> Iterator[Reading]:
    engine = runtime.engine
    yield Reading(m.PARTITIONS.name, len(engine.owned))
    yield Reading(m.IN_MEMORY.name, len(engine.cells))
    yield Reading(m.COMMITS_WAITING.name, engine.commits.waiting)
    yield Reading(m.MESSAGES_WAITING.name, runtime.publisher.waiting)
    yield Reading(m.SWEEP_LAG.name, runtime.sweeper.lag_sec)
    yield from _of_roles(runtime)


def _of_roles(runtime: CoordinatorRuntime) -> Iterator[Reading]:
    ready, leased = runtime.dispatcher.backlog(), _leased(runtime)
    for role in sorted(ready.keys() | leased.keys() | runtime.dispatcher.roles):
        views = runtime.fleet.of_role(role)
        slots = sum(view.slots for view in views)
        labels = (role,)
        yield Reading(m.READY.name, ready[role], labels)
        yield Reading(m.LEASED.name, leased[role], labels)
        yield Reading(m.WORKERS.name, len(views), labels)
        yield Reading(m.ROLE_SLOTS.name, slots, labels)
        yield Reading(m.LOAD.name, (ready[role] + leased[role]) / max(1, slots), labels)


def _leased(runtime: CoordinatorRuntime) -> Counter[str]:
    found: Counter[str] = Counter()
    for watch in runtime.leases.watches.values():
        task = watch.cell.task
        if task is not None:
            found[task.node(watch.node).type] += 1
    return found
