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
        self._reading: dict[str, asyncio.Task[Graph]] = {}

    def known(self, ref: str) -> Graph | None:
        graph = self._cache.get(ref)
        if graph is not None:
            self._cache.move_to_end(ref)
        return graph

    async def get(self, ref: str) -> Graph:
        """The graph of this reference. Raises `Corrupt` if it is not there or cannot be read."""
        graph = self.known(ref)
        if graph is not None:
            return graph
        reading = self._reading.get(ref)
        if reading is None:
            # The tasks of one graph are loaded together: it is read once for all of them, whoever gives up meanwhile.
            reading = self._reading[ref] = asyncio.get_running_loop().create_task(self._read(ref))
            reading.add_done_callback(lambda done: self._read_it(ref, done))
        return await asyncio.shield(reading)

    async def _read(self, ref: str) -> Graph:
        try:
            data = await self._store.get_blob(ref, kind="graph")
        except KeyError as error:
            raise Corrupt(f"graph {ref} is not in the store") from error
        return await parse_off_loop(data)

    def _read_it(self, ref: str, done: asyncio.Task[Graph]) -> None:
        del self._reading[ref]
        if not done.cancelled() and done.exception() is None:
            self._keep(ref, done.result())

    async def put(self, data: bytes, graph: Graph) -> str:
        """Store a graph's canonical text, durably, and give its reference."""
        ref = hashlib.sha256(data).hexdigest()
        if self.known(ref) is None:
            await self._store.put_blob(ref, data, kind="graph")
            self._keep(ref, graph)
        return ref

    def _keep(self, ref: str, graph: Graph) -> None:
        if ref in self._cache:
            return
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
