"""`python -m bench.waiting [TASKS]`: what waiting for room costs, in CPU time of this process, without any server.

So many one-node tasks (100,000) wait for a fleet that is full. Then room for 16 comes, round after round; a round is
one call of `serve`. Last, another tenant's single task comes: how many rounds until it has a place?
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from flowkit.clock import ManualClock
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.coordinator.fleet import Fleet
from flowkit.core.decide import decide
from flowkit.core.dialect import parse_graph
from flowkit.core.model import Task
from flowkit.core.reports import Accepted
from flowkit.ports import Head
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Hello

GRAPH = parse_graph({"nodes": [{"node_id": "n", "type": "work"}]})
ROOM = 16
PLACES = 16_000
COLUMNS = (
    "tasks that wait", "tenants", "workers", "µs to begin to wait", "µs per place", "µs per round of 16 places",
    "µs per round without room", "rounds until another tenant's task has a place",
)  # fmt: skip


class Stage:
    def __init__(self, workers: int) -> None:
        clock = ManualClock(1000.0)
        self.fleet = Fleet(clock, Telemetry(), ttl_sec=10.0, heartbeat_sec=2.0)
        tokens = count()
        self.dispatcher = Dispatcher(
            self.fleet, clock, accept_sec=5.0, prefetch=0, new_token=lambda: f"k{next(tokens)}"
        )
        for number in range(workers):
            self.fleet.heard(Hello(f"w{number}", "i", ["work"], ROOM // workers, 0.0))
        self.fill()

    def fill(self) -> None:
        for view in self.fleet.workers.values():
            view.mine = view.slots

    def round(self) -> list[Cell]:
        """Room comes, and is given away; who got some."""
        for view in self.fleet.workers.values():
            view.mine = 0
        return [cell for cell in self.dispatcher.serve() if self.dispatcher.offer(cell)]


def cell_of(number: int, tenant: str) -> Cell:
    cell = Cell(f"t{number}", 0)
    cell.head = Head(cell.task_id, 0, "ref", tenant=tenant)
    cell.task, cell.loading = Task(task_id=cell.task_id, graph=GRAPH, params={}, tenant=tenant), False
    decide(cell.task, [Accepted()], 0.0)
    return cell


@contextmanager
def microseconds(times: int, into: list[float]) -> Iterator[None]:
    gc.collect()
    gc.disable()
    start = time.process_time()
    try:
        yield
    finally:
        into.append((time.process_time() - start) / times * 1e6)
        gc.enable()


def measure(tasks: int, tenants: int, workers: int) -> list[str]:
    stage, took = Stage(workers), list[float]()
    cells = [cell_of(number, f"tenant{number % tenants}") for number in range(tasks)]
    with microseconds(tasks, took):
        for cell in cells:
            stage.dispatcher.offer(cell)
    with microseconds(1000, took):
        for _ in range(1000):
            list(stage.dispatcher.serve())
    places = max(ROOM, min(PLACES, tasks // 2 // ROOM * ROOM))
    with microseconds(places, took):
        for _ in range(places // ROOM):
            stage.round()
    come, idle, place = took
    costs = [f"{come:.1f}", f"{place:.1f}", f"{place * ROOM:.0f}", f"{idle:.1f}"]
    return [f"{tasks:,}", f"{tenants:,}", str(workers), *costs, str(rounds(stage, tasks)) if tenants < ROOM else ""]


def rounds(stage: Stage, tasks: int) -> int:
    stage.fill()
    single = cell_of(tasks, "single")
    stage.dispatcher.offer(single)
    return next(number for number in count(1) if single in stage.round())


def main() -> None:
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rows = [(most // 100, 1, 1), (most, 1, 1), (most, 1, 4), (most, 1, 16), (most, 100, 4), (most, most, 4)]
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for tasks, tenants, workers in rows:
        print(f"| {' | '.join(measure(tasks, tenants, workers))} |")


if __name__ == "__main__":
    main()
