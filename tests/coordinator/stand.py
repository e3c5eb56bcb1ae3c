"""A fleet, its leases and the tasks that wait for room, on a clock that a test moves."""

from __future__ import annotations

from itertools import count
from typing import Any

from flowkit.clock import ManualClock
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.coordinator.fleet import Fleet, WorkerView
from flowkit.coordinator.leases import Leases
from flowkit.core.decide import decide
from flowkit.core.reports import Accepted, Placed
from flowkit.ports import Head
from flowkit.telemetry import Telemetry, WorkerSeen
from flowkit.wire.messages import Hello
from tests.core.builders import START, graph, new_task, node

TTL = 10.0
HEARTBEAT = 3.8
FRESH = 5.0
ACCEPT = 7.0


class Stand:
    def __init__(self, *, prefetch: int = 8, weights: dict[str, float] | None = None, ageing_sec: float = 60.0,
                 patience_sec: float = 5.0) -> None:  # fmt: skip
        self.clock = ManualClock(100.0)
        self.telemetry = Telemetry()
        self.seen: list[tuple[str, str]] = []
        self.telemetry.subscribe(self._note)
        self.fleet = Fleet(self.clock, self.telemetry, ttl_sec=TTL, heartbeat_sec=HEARTBEAT)
        tokens = count(1)
        self.dispatcher = Dispatcher(
            self.fleet, self.clock, accept_sec=ACCEPT, prefetch=prefetch, new_token=lambda: f"k{next(tokens)}",
            tenant_weights=weights, ageing_sec=ageing_sec, patience_sec=patience_sec,
        )  # fmt: skip
        self.leases = Leases(self.clock, self.dispatcher, TTL)

    def _note(self, happening: Any) -> None:
        if isinstance(happening, WorkerSeen):
            self.seen.append((happening.worker, happening.what))

    def worker(self, name: str, slots: int = 1, *roles: str, incarnation: str = "i", mono: float = 0.0,
               draining: bool = False, labels: dict[str, str] | None = None) -> WorkerView:  # fmt: skip
        """A worker that said hello just now."""
        hello = Hello(name, incarnation, list(roles) or ["work"], slots, mono, labels or {}, draining=draining)
        view = self.fleet.heard(hello)
        assert view is not None
        return view

    def offer(self, cell: Cell) -> dict[str, str]:
        """Offer the cell and fold what was placed, as the engine does; which node went to which worker."""
        placed = self.dispatcher.offer(cell)
        assert cell.task is not None
        decision = decide(cell.task, placed, START)
        assert decision.unused == []
        return {one.node: one.worker for one in placed}

    def serve(self) -> list[Cell]:
        """One round; the cells that got places, in order."""
        return [cell for cell in self.dispatcher.serve() if self.offer(cell)]

    def placements(self, cell: Cell) -> list[Placed]:
        return self.dispatcher.offer(cell)


def cell_of(task_id: str, *nodes: dict[str, Any], width: int = 1, priority: int = 0, tenant: str = "default") -> Cell:
    """A loaded cell of a task that has just begun; without nodes, `width` ready ones of role `work`."""
    cell = Cell(task_id, 0)
    cell.head = Head(task_id, 0, "ref", priority=priority, tenant=tenant)
    cell.task = new_task(graph(*(nodes or [node(f"n{n}") for n in range(width)])))
    cell.loading = False
    decide(cell.task, [Accepted()], START)
    return cell
