"""Tells the world how far the streams of tasks are, as heartbeats say it: now and then, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterable
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
    """The streams of one task in one generation: how far each edge is, `(produced, consumed)`, `by_reader` where the
    reader itself has said so, and which are `new` since they were last told of, which was at `told_at` (monotonic
    seconds)."""

    generation: int
    edges: dict[Edge, tuple[int, int]] = field(default_factory=dict)
    by_reader: set[Edge] = field(default_factory=set)
    new: dict[Edge, None] = field(default_factory=dict)
    told_at: float = float("-inf")

    def read(self, edge: Edge, produced: int, consumed: int) -> None:
        """What the reader says: both at one moment, so that they make a distance."""
        self.by_reader.add(edge)
        self._note(edge, produced, consumed)

    def made(self, edge: Edge, produced: int) -> None:
        """What the maker says counts until the reader says something: it would be ahead of what that has said last."""
        if edge not in self.by_reader:
            self._note(edge, produced, 0)

    def _note(self, edge: Edge, produced: int, consumed: int) -> None:
        before = self.edges.get(edge, (0, 0))
        now = max(before[0], produced), max(before[1], consumed)
        if now != before:
            self.edges[edge] = now
            self.new[edge] = None


class StreamProgress:
    """`heard` what a heartbeat says of the streams of the tasks here, `tell` once all of it was heard."""

    def __init__(self, clock: Clock, carrier: Carrier) -> None:
        self._clock = clock
        self._carrier = carrier
        self._heard: dict[str, Cell] = {}

    def heard(self, cell: Cell, node: str, said: Flowing) -> None:
        """An attempt of a node holds its lease, and says how far its streams are."""
        task = cell.task
        if task is None or node not in task.graph.nodes:
            return
        flow = cell.streams
        if flow is None or flow.generation != task.generation:
            flow = cell.streams = Flow(task.generation)
        for source, read, made in said.reads:
            if node in _readers(task, source):
                flow.read((source, node), made, read)
        for reader in _readers(task, node):
            flow.made((node, reader), said.made)
        self._heard[task.task_id] = cell

    def tell(self) -> None:
        """Tell of the tasks that were heard of, unless it was done just now: then the next heartbeat brings it up."""
        now = self._clock.mono()
        for cell in self._heard.values():
            task, flow = cell.task, cell.streams
            if task is not None and flow is not None and flow.new and now - flow.told_at >= TELL_SEC:
                flow.told_at = now
                self._publish(cell, task, flow)
        self._heard.clear()

    def _publish(self, cell: Cell, task: Task, flow: Flow) -> None:
        told = [EdgeProgress(*edge, *flow.edges[edge]) for edge in flow.new]
        flow.new.clear()
        at, status = self._clock.wall(), str(task.status)
        for start in range(0, len(told), EDGES_PER_EVENT):
            some = told[start : start + EDGES_PER_EVENT]
            self._carrier.streamed(Event(task.task_id, cell.tenant, cell.acked, at, "", status, [], some))


def _readers(task: Task, node: str) -> Iterable[str]:
    return task.graph.stream_readers.get(node, ())
