"""Graphs by content: stored once, parsed once, shared by all tasks that run them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from flowkit.clock import SystemClock
from flowkit.coordinator.off_loop import off_loop
from flowkit.coordinator.schemas import check_schemas
from flowkit.core.dialect import parse_graph, read_graph
from flowkit.core.graph import Graph
from flowkit.errors import Corrupt, FlowKitError, GraphError, Problem
from flowkit.ports import Clock, Store
from flowkit.wire.codec import dumps_in_parts, loads

CACHED_NODES = 500_000
LARGE_BYTES = 256 * 1024
LARGE_NODES = 1000
LARGEST_LOOKS = 5000
KNOWN_LOOKS = 1000
PUT_AGAIN_SEC = 3600.0
"""A graph that this process put within this time is surely in the store: whoever begins a task of it puts it anew
after that, for..."""
IDLE_SEC = 86_400.0
"""... a graph that no task names, and that nobody has put for so long, is removed."""


@dataclass(frozen=True, slots=True)
class ReadGraph:
    """A graph as it was read: `text` is its stored form (JSON), `ref` the hash of that."""

    ref: str
    text: bytes
    graph: Graph


class Graphs:
    """A cache over the store's graphs, bounded by the number of nodes it holds."""

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock if clock is not None else SystemClock()
        self._put_at: dict[str, float] = {}
        self._cache: OrderedDict[str, Graph] = OrderedDict()
        self._nodes = 0
        self._refs: OrderedDict[bytes, str] = OrderedDict()
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

    async def written(self, ref: str) -> dict[str, Any]:
        """The graph of this reference as it is stored: normalised, the caller's own. Raises `Corrupt` as `get` does."""
        data = await self._text(ref)
        written: dict[str, Any] = await off_loop(partial(loads, data)) if len(data) > LARGE_BYTES else loads(data)
        return written

    async def _read(self, ref: str) -> Graph:
        return await parse_text(await self._text(ref))

    async def _text(self, ref: str) -> bytes:
        try:
            return await self._store.get_blob(ref, kind="graph")
        except KeyError as error:
            raise Corrupt(f"graph {ref} is not in the store") from error

    def _read_it(self, ref: str, done: asyncio.Task[Graph]) -> None:
        del self._reading[ref]
        if not done.cancelled() and done.exception() is None:
            self._keep(ref, done.result())

    async def take(self, raw: Any, *, for_task: str = "", accepted: bool = False) -> tuple[str, Graph]:
        """Read what a user wrote and store it, durably: its reference, and the graph. What comes again as it came
        before is known by its looks. `for_task` is a task that will name it otherwise than in its head; `accepted` is
        what was part of an accepted graph. Raises `GraphError`, `StoreUnavailable`."""
        looks = _looks(raw, accepted) if not for_task else None
        if looks is not None and (ref := self._refs.get(looks)) is not None and self._stands(ref):
            self._refs.move_to_end(looks)
            return ref, self._cache[ref]
        read = await read_raw(raw, accepted=accepted)
        await self.put(read, for_task=for_task)
        if looks is not None:
            self._refs[looks] = read.ref
            if len(self._refs) > KNOWN_LOOKS:
                self._refs.popitem(last=False)
        return read.ref, read.graph

    async def put(self, read: ReadGraph, *, for_task: str = "") -> None:
        """Store a graph's text, durably. Raises `StoreUnavailable`."""
        if for_task or not self._stands(read.ref):
            now, at = self._clock.mono(), self._clock.wall()
            await self._store.put_blob(read.ref, read.text, kind="graph", for_task=for_task, at=at)
            self._keep(read.ref, read.graph)
            self._put_at[read.ref] = now

    def _stands(self, ref: str) -> bool:
        """Whether the graph is known here, and in the store for long enough to begin a task of it."""
        put_at = self._put_at.get(ref)
        return put_at is not None and self._clock.mono() - put_at < PUT_AGAIN_SEC and self.known(ref) is not None

    def _keep(self, ref: str, graph: Graph) -> None:
        if ref in self._cache:
            return
        self._cache[ref] = graph
        self._nodes += len(graph.nodes)
        while self._nodes > CACHED_NODES and len(self._cache) > 1:
            name, dropped = self._cache.popitem(last=False)
            self._put_at.pop(name, None)
            self._nodes -= len(dropped.nodes)


def _looks(raw: Any, accepted: bool) -> bytes | None:
    """A hash that two raw graphs share only if they are written the same: unlike JSON text it tells a NaN from a null
    and a number as a key from its text, so that what must be refused is not taken for what was accepted."""
    if not isinstance(raw, dict) or _node_count(raw) > LARGEST_LOOKS:
        return None
    try:
        return hashlib.sha256(repr((accepted, raw)).encode("utf-8", "surrogatepass")).digest()
    except Exception:  # too deep, or an object that cannot be shown: whoever reads it says what is wrong
        return None


def _node_count(raw: Mapping[Any, Any]) -> int:
    nodes = raw.get("nodes")
    return len(nodes) if isinstance(nodes, list | tuple) else 0


async def read_raw(raw: Any, *, accepted: bool = False) -> ReadGraph:
    """Read what a user wrote, or what was accepted with the graph that it was part of. Raises `GraphError`."""
    large = isinstance(raw, Mapping) and _node_count(raw) > LARGE_NODES
    return await off_loop(partial(_read_raw, raw, accepted)) if large else _read_raw(raw, accepted)


async def parse_text(data: bytes) -> Graph:
    """Parse a stored graph's text. Raises `GraphError`, `Corrupt`."""
    return await off_loop(partial(_parse, data)) if len(data) > LARGE_BYTES else _parse(data)


def _read_raw(raw: Any, accepted: bool) -> ReadGraph:
    if accepted:
        with _made_sense():
            graph, normal = read_graph(raw, accepted=True)
    else:
        graph, normal = read_graph(raw)
        check_schemas(graph)
    try:
        text = dumps_in_parts(normal)
    except (ValueError, TypeError) as error:  # a number of thousands of digits, say
        raise GraphError([Problem("E_VALUE", "graph", str(error))]) from error
    return ReadGraph(hashlib.sha256(text).hexdigest(), text, graph)


def _parse(data: bytes) -> Graph:
    with _made_sense():
        return parse_graph(loads(data), accepted=True)


@contextmanager
def _made_sense() -> Iterator[None]:
    """What was accepted is not asked whether it makes sense; if it never did, somebody changed it in the store."""
    try:
        yield
    except FlowKitError:
        raise
    except Exception as error:
        raise Corrupt(f"the stored graph makes no sense: {type(error).__name__}: {error}") from error
