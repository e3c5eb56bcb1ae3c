"""Keeps a cluster busy: always so many tasks under way, chains, diamonds, maps, repeats, sub-graphs and tasks that are
undone, of nodes of 50 to 500 ms, if nothing else is said, each checked."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

from flowkit.client import Client
from flowkit.coordinator.views import TaskResult
from flowkit.errors import FlowKitError, StoreUnavailable

LENGTH = 6
WIDTH = 4
ITEMS = 5
TIMES = 3
CHILDREN = 3


@dataclass(slots=True)
class Accepted:
    """A task that the API acknowledged, and what must come of it."""

    task_id: str
    expected: Any
    at: float
    status: str = "finished"
    result: TaskResult | None = None
    ended_at: float = 0.0


@dataclass
class Load:
    """`tasks` of them at a time, created through a client that coordinates nothing, until it is told to stop. Their
    nodes take a time in the range `sec`."""

    client: Client
    tasks: int
    dice: random.Random
    sec: tuple[float, float] = (0.05, 0.5)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    doubts: int = 0
    _lanes: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    def start(self) -> None:
        self._lanes = [asyncio.create_task(self._lane(), name=f"lane-{n}") for n in range(self.tasks)]

    async def stop(self, timeout: float) -> list[Accepted]:
        """Create no more; wait for what is under way. The answer is what has not ended in time."""
        self._stopping = True
        _, waiting = await asyncio.wait(self._lanes, timeout=timeout)
        for lane in waiting:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        for lane in self._lanes:
            if not lane.cancelled() and (error := lane.exception()) is not None:
                raise error
        return [task for task in self.accepted.values() if task.result is None]

    @property
    def open(self) -> list[Accepted]:
        return [task for task in self.accepted.values() if task.result is None]

    def wrong(self) -> list[str]:
        """Tasks that ended otherwise than they must."""
        found = []
        for task in self.accepted.values():
            result = task.result
            if result is not None and (result.status, result.output) != (task.status, task.expected):
                found.append(f"{task.task_id} {result.status} with {result.output!r}: {result.error}")
        return found

    async def _lane(self) -> None:
        while not self._stopping:
            kinds = (self._chain, self._diamond, self._map, self._repeat, self._children, self._undone)
            graph, expected = self.dice.choices(kinds, (3, 3, 1, 1, 1, 1))[0]()
            task = await self._create(graph, expected)
            if task is not None:
                await self._wait(task)

    async def _create(self, graph: Any, expected: Any) -> Accepted | None:
        """Ask again with the same key until the answer is clear, as a careful user does."""
        key = f"{self.dice.getrandbits(64):016x}"
        while True:
            at = time.time()
            try:
                task_id = await self.client.create_task(graph=graph, idempotency_key=key)
            except StoreUnavailable:
                self.doubts += 1
                await asyncio.sleep(0.3)
                continue
            status = "finished" if expected is not None else "failed"
            task = self.accepted[task_id] = Accepted(task_id, expected, at, status)
            return task

    async def _wait(self, task: Accepted) -> None:
        while task.result is None:
            try:
                task.result = await self.client.wait_task(task.task_id)
                task.ended_at = time.time()
            except FlowKitError:  # no answer while the store is away
                self.doubts += 1
                await asyncio.sleep(0.3)

    def _sec(self) -> float:
        return round(self.dice.uniform(*self.sec), 3)

    def _chain(self) -> tuple[Any, Any]:
        nodes = [self._node(f"n{i}", {"n": {"$from": f"n{i - 1}.n"}} if i else {}) for i in range(LENGTH)]
        return {"nodes": nodes}, {"n": LENGTH}

    def _diamond(self) -> tuple[Any, Any]:
        top = self._node("top", {})
        middle = [self._node(f"m{i}", {"n": {"$from": "top.n"}}) for i in range(WIDTH)]
        join = {
            "node_id": "join",
            "type": "join",
            "inputs": {"parts": {f"m{i}": {"$from": f"m{i}"} for i in range(WIDTH)}, "sec": self._sec()},
        }
        return {"nodes": [top, *middle, join]}, {"n": 2 * WIDTH}

    def _map(self) -> tuple[Any, Any]:
        """Some items of the list that a node gives, two at a time; the condition sees all of them."""
        items = {"node_id": "list", "type": "items", "inputs": {"count": ITEMS, "sec": self._sec()}}
        item = {"foreach": {"$from": "list"}, "max_parallel": 2}
        each = self._node("each", {"n": {"$item": ""}}) | item
        nodes = [items, each, self._node("last", {"n": {"$expr": "size(nodes['each'].output)"}})]
        edges = [{"from": "each", "to": "last", "when": f"output[{ITEMS - 1}].n == {ITEMS}"}]
        return {"nodes": nodes, "edges": edges}, {"n": ITEMS + 1}

    def _repeat(self) -> tuple[Any, Any]:
        repeat = {"until": f"output.n == {TIMES}", "every_sec": 0.1, "max": TIMES + 1}
        before = {"$expr": "previous == null ? 0 : previous.n"}
        return {"nodes": [self._node("poll", {"n": before}) | {"repeat": repeat}]}, {"n": TIMES}

    def _children(self) -> tuple[Any, Any]:
        """A child for each item, and one after them."""
        inner = {"nodes": [self._node("in", {"n": {"$param": "n"}})]}
        many = {"node_id": "many", "type": "task", "graph": inner, "foreach": list(range(CHILDREN))}
        nodes = [
            many | {"inputs": {"n": {"$item": ""}}},
            {"node_id": "one", "type": "task", "graph": inner, "inputs": {"n": {"$from": f"many[{CHILDREN - 1}].n"}}},
        ]
        return {"nodes": nodes}, {"n": CHILDREN + 1}

    def _undone(self) -> tuple[Any, Any]:
        """What was done is undone, the last first, for the last node fails."""
        done = [
            self._node(f"n{i}", {"n": {"$from": f"n{i - 1}.n"}} if i else {}) | {"compensate": self._undo()}
            for i in range(2)
        ]
        return {"nodes": [*done, {"node_id": "no", "type": "refuse", "inputs": {}, "depends_on": ["n1"]}]}, None

    def _undo(self) -> dict[str, Any]:
        return {"type": "step", "inputs": {"sec": self._sec()}}

    def _node(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"node_id": name, "type": "step", "inputs": {"sec": self._sec(), **inputs}}
