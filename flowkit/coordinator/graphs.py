"""Graphs by content: stored once, parsed once, shared by all tasks that run them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from flowkit.core.dialect import parse_graph
from flowkit.core.graph import Graph
from flowkit.errors import Corrupt
from flowkit.ports import Store
from flowkit.wire.codec import loads

CACHED_NODES = 500_000
LARGE_BYTES = 256 * 1024


class Graphs:
    """A cache over the store's graphs, bounded by the number of nodes it holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[str, Graph] = OrderedDict()
        self._nodes = 0

    def known(self, ref: str) -> Graph | None:
        graph = self._cache.get(ref)
        if graph is not None:
            self._cache.move_to_end(ref)
        return graph

    async def get(self, ref: str) -> Graph:
        """The graph of this reference. Raises `Corrupt` if it is not there or cannot be read."""
        graph = self.known(ref)
        if graph is None:
            try:
                data = await self._store.get_blob(ref, kind="graph")
            except KeyError as error:
                raise Corrupt(f"graph {ref} is not in the store") from error
            graph = await parse_off_loop(data)
            self._keep(ref, graph)
        return graph

    async def put(self, data: bytes, graph: Graph) -> str:
        """Store a graph's canonical text, durably, and give its reference."""
        ref = hashlib.sha256(data).hexdigest()
        if self.known(ref) is None:
            await self._store.put_blob(ref, data, kind="graph")
            self._keep(ref, graph)
        return ref

    def _keep(self, ref: str, graph: Graph) -> None:
        self._cache[ref] = graph
        self._nodes += len(graph.nodes)
        while self._nodes > CACHED_NODES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._nodes -= len(dropped.nodes)


async def parse_off_loop(data: bytes) -> Graph:
    """Parse a graph's text; a large one in a thread, so that the loop goes on."""
    if len(data) < LARGE_BYTES:
        return parse_graph(loads(data))
    return await asyncio.to_thread(lambda: parse_graph(loads(data)))
