"""Keeps a cluster busy: always so many tasks under way, of all kinds, of nodes of 50 to 500 ms, if nothing else is
said, each checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from flowkit.client import Client
from flowkit.coordinator.views import TaskResult
from flowkit.errors import BusUnavailable, FlowKitError, RequestRefused, StoreUnavailable
from tests.integration.harness.graphs import APPROVAL, FLOWS, KINDS, Graphs, Order

AGAIN_SEC = 0.3
ABANDON_SEC = 30.0
LIMITED = 10
"""So many of the tasks that share a limit are under way at most: a dead worker keeps its permits for a TTL, and the
others must go on meanwhile."""
T = TypeVar("T")


@dataclass(slots=True)
class Accepted:
    """A task that the API acknowledged, and what must come of it."""

    task_id: str
    kind: str
    order: Order
    at: float
    result: TaskResult | None = None
    ended_at: float = 0.0

    @property
    def right(self) -> bool:
        status = "failed" if self.order.expected is None else "finished"
        return self.result is not None and (self.result.status, self.result.output) == (status, self.order.expected)


@dataclass
class Load:
    """`tasks` of them at a time, created through a client that coordinates nothing, until it is told to stop. Their
    nodes take a time in the range `sec`. `signals` counts those that were sent before their node waited for them, and
    those after."""

    client: Client
    tasks: int
    dice: random.Random
    sec: tuple[float, float] = (0.05, 0.5)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    doubts: int = 0
    signals: Counter[str] = field(default_factory=Counter)
    _lanes: list[asyncio.Task[None]] = field(default_factory=list)
    _limited: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        self._graphs = Graphs(self.dice, self.sec)

    async def start(self) -> None:
        """Put the flows, and begin."""
        for name, graph in FLOWS.items():
            await self.client.put_flow(name, graph)
        self._lanes = [asyncio.create_task(self._lane(), name=f"lane-{n}") for n in range(self.tasks)]

    async def stop(self, timeout: float) -> list[Accepted]:
        """Create no more; wait for what is under way. The answer is what has not ended in time."""
        self._stopping = True
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=timeout)
        await self.abandon()
        for lane in self._lanes:
            if not lane.cancelled() and (error := lane.exception()) is not None:
                raise error
        return [task for task in self.accepted.values() if task.result is None]

    async def abandon(self) -> None:
        """Leave everything as it is. Who waits for a driver may not hear of its cancellation (`asyncio.wait_for` of
        Python 3.11 forgets it where an answer comes at the same time), so it is told until it has."""
        self._stopping = True
        async with asyncio.timeout(ABANDON_SEC):
            while waiting := [lane for lane in self._lanes if not lane.done()]:
                for lane in waiting:
                    lane.cancel()
                await asyncio.wait(waiting, timeout=AGAIN_SEC)

    @property
    def open(self) -> list[Accepted]:
        return [task for task in self.accepted.values() if task.result is None]

    def wrong(self) -> list[str]:
        """Tasks that ended otherwise than they must."""
        return [
            f"{task.kind} {task.task_id} {task.result.status} with {task.result.output!r}, not "
            f"{task.order.expected!r}: {task.result.error}"
            for task in self.accepted.values()
            if task.result is not None and not task.right
        ]

    def ended(self) -> dict[str, int]:
        """How many of each kind have ended."""
        counts = Counter(task.kind for task in self.accepted.values() if task.result is not None)
        return {kind: counts[kind] for kind in KINDS}

    # ------------------------------------------------------------------------------------------ a lane

    async def _lane(self) -> None:
        while not self._stopping:
            kind = self._draw()
            self._limited += kind == "limit"
            try:
                await self.one(kind)
            finally:
                self._limited -= kind == "limit"

    def _draw(self) -> str:
        weights = [0 if kind == "limit" and self._limited >= LIMITED else weight for kind, (_, weight) in KINDS.items()]
        return self.dice.choices([*KINDS], weights)[0]

    async def one(self, kind: str) -> Accepted:
        """Create a task of this kind, do what it needs, and wait for its end."""
        task = await self._create(kind, self._graphs.order(kind))
        if task.order.signal is not None:
            await self._signal(task)
        await self._wait(task)
        return task

    async def _create(self, kind: str, order: Order) -> Accepted:
        """Ask again with the same key until the answer is clear, as a careful user does."""
        key, at = f"{self.dice.getrandbits(64):016x}", time.time()

        async def create() -> str:
            nonlocal at
            at = time.time()
            return await self.client.create_task(
                graph=order.graph, flow=order.flow, params=order.params, priority=order.priority, idempotency_key=key
            )

        task_id = await self._patiently(create)
        task = self.accepted[task_id] = Accepted(task_id, kind, order, at)
        return task

    async def _signal(self, task: Accepted) -> None:
        """Before the node waits for it, or after. One that is asked for again may find that the first has come."""
        when = self.dice.choice(("before", "after"))
        while when == "after" and not await self._patiently(lambda: self._waits(task)):
            await asyncio.sleep(AGAIN_SEC)
        tries = 0

        async def send() -> bool:
            nonlocal tries
            tries += 1
            return await self.client.signal_task(task.task_id, APPROVAL, task.order.signal)

        try:
            await self._patiently(send)
        except RequestRefused:
            if tries == 1:
                raise
        self.signals[when] += 1

    async def _waits(self, task: Accepted) -> bool:
        return (await self.client.get_task(task.task_id)).nodes["ask"].state == "waiting"

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer: there is none while a server is away."""
        while True:
            try:
                return await ask()
            except (BusUnavailable, StoreUnavailable):
                self.doubts += 1
                await asyncio.sleep(AGAIN_SEC)

    async def _wait(self, task: Accepted) -> None:
        while task.result is None:
            try:
                task.result = await self.client.wait_task(task.task_id)
                task.ended_at = time.time()
            except FlowKitError:  # no answer while the store is away
                self.doubts += 1
                await asyncio.sleep(AGAIN_SEC)
