"""Tells the world how far the streams of tasks are, as heartbeats say it: now and then, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.cell import Cell
from flowkit.core.model import Task
from flowkit.ports import Clock
from flowkit.wire.events import EdgeProgress, Event
from flowkit.wire.messages import Flowing

TELL_SEC = 1.0
"""The least time between two tellings of one task."""
EDGES_PER_EVENT = 50

Edge = tuple[str, str]


@dataclass(slots=True)
class Flow:
    """The streams of one task in one generation: how far each edge is, `(produced, consumed)`, and which are `new`
    since they were last told of, which was at `told_at` (monotonic seconds)."""

    generation: int
    edges: dict[Edge, tuple[int, int]] = field(default_factory=dict)
    new: dict[Edge, None] = field(default_factory=dict)
    told_at: float = float("-inf")

    def note(self, edge: Edge, produced: int, consumed: int | None = None) -> None:
        """What one end knows; it may be behind what the other end has said."""
        before = self.edges.get(edge, (0, 0))
        now = max(before[0], produced), max(before[1], consumed or 0)
        if now != before:
            self.edges[edge] = now
            self.new[edge] = None


class StreamProgress:
    """Hears what heartbeats say of the streams of the tasks here."""

    def __init__(self, clock: Clock, carrier: Carrier) -> None:
        self._clock = clock
        self._carrier = carrier

    def heard(self, cell: Cell, node: str, said: Flowing) -> None:
        """An attempt of a node holds its lease, and says how far its streams are."""
        task = cell.task
        if task is None or node not in task.graph.nodes:
            return
        flow = cell.streams
        if flow is None or flow.generation != task.generation:
            flow = cell.streams = Flow(task.generation)
        for edge, produced, consumed in _edges(task, node, said):
            flow.note(edge, produced, consumed)
        now = self._clock.mono()
        if flow.new and now - flow.told_at >= TELL_SEC:
            flow.told_at = now
            self._tell(cell, task, flow)

    def _tell(self, cell: Cell, task: Task, flow: Flow) -> None:
        told = [EdgeProgress(*edge, *flow.edges[edge]) for edge in flow.new]
        flow.new.clear()
        at, status = self._clock.wall(), str(task.status)
        for start in range(0, len(told), EDGES_PER_EVENT):
            some = told[start : start + EDGES_PER_EVENT]
            self._carrier.streamed(Event(task.task_id, cell.tenant, cell.acked, at, "", status, [], some))


def _edges(task: Task, node: str, said: Flowing) -> Iterator[tuple[Edge, int, int | None]]:
    for source, read, made in said.reads:
        if node in _readers(task, source):
            yield (source, node), made, read
    for reader in _readers(task, node):
        yield (node, reader), said.made, None


def _readers(task: Task, node: str) -> Iterable[str]:
    return task.graph.stream_readers.get(node, ())
