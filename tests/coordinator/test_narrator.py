"""What observers hear of attempts and tasks, however these end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import flowkit
from flowkit.observations import AttemptEnded, NodeEnded, Observation, RunEnded, TaskEnded
from flowkit.telemetry import Telemetry

T = TypeVar("T")
BOUND_SEC = 15


class Ear:
    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.heard: list[Observation] = []
        self.telemetry.observe(self.heard.append)

    def of(self, kind: type[T]) -> list[T]:
        return [one for one in self.heard if isinstance(one, kind)]

    def attempts(self, node: str) -> list[tuple[int, str, str]]:
        return [(one.attempt, one.outcome, one.code) for one in self.of(AttemptEnded) if one.node == node]

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(BOUND_SEC):
            while not holds():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def engine(ear: Ear, *handlers: Any) -> AsyncIterator[flowkit.Embedded]:
    async with flowkit.Embedded(handlers=list(handlers), telemetry=ear.telemetry) as running:
        yield running


def ok() -> int:
    return 1


class Gate:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.open = asyncio.Event()

    def handler(self) -> Any:
        async def wait() -> int:
            self.began.set()
            await self.open.wait()
            return 1

        return wait


async def test_a_cancelled_attempt_and_what_never_began() -> None:
    ear, gate = Ear(), Gate()
    nodes = [{"node_id": "a", "type": "wait"}, {"node_id": "b", "type": "ok", "depends_on": ["a"]}]
    async with engine(ear, gate.handler(), ok) as flow:
        task = await flow.submit({"nodes": nodes})
        await asyncio.wait_for(gate.began.wait(), BOUND_SEC)
        await task.cancel(reason="enough")
        await task.wait()
        await ear.until(lambda: ear.of(TaskEnded))

    assert ear.attempts("a") == [(1, "cancelled", "enough")]
    assert ear.attempts("b") == []
    (ended,) = ear.of(TaskEnded)
    assert (ended.status, ended.generation) == ("cancelled", 0)
    assert [one.outcome for one in ear.of(RunEnded)] == ["released"]


async def test_an_attempt_that_is_handed_back_is_lost_and_the_next_one_succeeds() -> None:
    ear, gate = Ear(), Gate()
    async with engine(ear, gate.handler()) as flow:
        task = await flow.submit({"nodes": [{"node_id": "a", "type": "wait"}]})
        await asyncio.wait_for(gate.began.wait(), BOUND_SEC)
        assert flow.worker is not None
        await flow.worker.stop(0)
        gate.open.set()
        await flow.worker.start()
        await task.wait()
        await ear.until(lambda: ear.of(TaskEnded))

    attempts = ear.of(AttemptEnded)
    assert ear.attempts("a") == [(1, "lost", "released"), (2, "succeeded", "")]
    assert attempts[0].ready_at <= attempts[0].leased_at <= attempts[0].ended_at <= attempts[1].ready_at
    assert all(one.ended_at <= one.acked_at and one.worker for one in attempts)


async def test_a_sub_graph_that_is_cancelled_is_an_attempt_that_was() -> None:
    ear, gate = Ear(), Gate()
    inner = {"nodes": [{"node_id": "a", "type": "wait"}]}
    async with engine(ear, gate.handler()) as flow:
        task = await flow.submit({"nodes": [{"node_id": "sub", "type": "task", "graph": inner}]})
        await asyncio.wait_for(gate.began.wait(), BOUND_SEC)
        await task.cancel(reason="enough")
        await task.wait()
        await ear.until(lambda: len(ear.of(TaskEnded)) == 2)

    (sub,) = [one for one in ear.of(AttemptEnded) if one.node == "sub"]
    assert (sub.outcome, sub.worker, sub.head.task_id) == ("cancelled", "", task.id)
    assert sub.child == next(one.head.task_id for one in ear.of(TaskEnded) if one.head.parent)


async def test_a_node_that_nobody_runs_has_no_attempt() -> None:
    ear = Ear()
    nodes = [{"node_id": "go", "type": "signal"}]
    async with engine(ear, ok) as flow:
        task = await flow.submit({"nodes": nodes})
        await task.signal("go", {"by": "me"})
        await task.wait()
        await ear.until(lambda: ear.of(TaskEnded))

    assert ear.of(AttemptEnded) == []
    (node,) = ear.of(NodeEnded)
    assert (node.node, node.generation) == ("go", 0)
    assert node.began_at <= node.ended_at


async def test_a_fault_of_the_narrator_itself_costs_no_task_anything() -> None:
    ear = Ear()
    async with engine(ear, ok) as flow:
        flow.coordinator.runtime.narrator._attempt = None  # type: ignore[assignment, method-assign]
        result = await (await flow.submit({"nodes": [{"node_id": "a", "type": "ok"}]})).wait()

    assert result.status == "finished"
    assert ear.telemetry.counts["observer_failures"] > 0
