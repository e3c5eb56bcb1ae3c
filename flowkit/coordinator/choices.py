"""Which graph each of the tasks that are created together is to run: one that was handed over, or a flow's version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.core.graph import Graph
from flowkit.errors import GraphError, Problem


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stored graph, and which version of a flow it is (`name@3`), if it is one."""

    ref: str
    graph: Graph
    flow: str = ""


class Choices:
    """Each graph is read once, and each name of a flow means one version, for all that are created together."""

    def __init__(self, graphs: Graphs, flows: Flows) -> None:
        self._graphs = graphs
        self._flows = flows
        self._chosen: dict[str | int, Chosen] = {}

    def known(self, graph: Any, flow: str | None) -> Chosen | None:
        """What was chosen for another of them that asked for the same."""
        if graph is None:
            return None if flow is None else self._chosen.get(str(flow))
        return self._chosen.get(id(graph)) if flow is None else None

    async def of(self, graph: Any, flow: str | None) -> Chosen:
        """Exactly one of the two is given. Raises `GraphError`, `FlowNotFound`, `FlowNameError`, `StoreUnavailable`."""
        if graph is not None and flow is not None:
            raise GraphError([Problem("E_KEY_CONFLICT", "graph", "give a graph or a flow, not both")])
        if graph is None and flow is None:
            raise GraphError([Problem("E_KEY_MISSING", "graph", "a task needs a graph, or a flow such as 'etl@3'")])
        key = id(graph) if flow is None else str(flow)
        if key not in self._chosen:
            self._chosen[key] = await (self._taken(graph) if flow is None else self._pinned(flow))
        return self._chosen[key]

    async def _taken(self, graph: Any) -> Chosen:
        return Chosen(*await self._graphs.take(graph))

    async def _pinned(self, flow: str) -> Chosen:
        pinned = await self._flows.resolve(self._flows.tenant, flow)
        return Chosen(pinned.graph_ref, await self._graphs.get(pinned.graph_ref), str(pinned))
