"""What happened to tasks, read from their commits and from the index, on one file and on Kafka and MongoDB."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowkit import Context, Embedded, monitor
from flowkit.errors import TaskNotFound
from flowkit.trace.history import Point
from tests.integration.site import Site, until

CHILD = {"name": "small", "nodes": [{"node_id": "leaf", "type": "leaf"}]}
GRAPH = {
    "name": "traced",
    "nodes": [
        {"node_id": "shaky", "type": "shaky", "retry_policy": {"max": 3, "backoff_sec": 0.01}},
        {
            "node_id": "each",
            "type": "leaf",
            "foreach": [1, 2, 3],
            "depends_on": ["shaky"],
            "inputs": {"n": {"$item": ""}},
        },
        {"node_id": "below", "type": "task", "graph": CHILD, "depends_on": ["each"], "inputs": {}},
    ],
}
ATTEMPTS = {("traced", "shaky"): 2, ("traced", "each"): 3, ("traced", "below"): 1, ("small", "leaf"): 1}


async def shaky(ctx: Context) -> int:
    if ctx.attempt == 1:
        raise RuntimeError("not yet")
    return 1


async def leaf(n: int = 0) -> int:
    await asyncio.sleep(0.01)
    return n


async def counted(source: Any) -> dict[tuple[str, str], int]:
    points: list[Point] = await source.traces.history(bucket_sec=86_400.0)
    counts: Counter[tuple[str, str]] = Counter()
    for point in points:
        counts[point.flow, point.node] += point.count
    return dict(counts)


async def test_a_file_tells_of_one_task_and_of_many(tmp_path: Path) -> None:
    async with Embedded(tmp_path / "flow.db", handlers=[shaky, leaf]) as engine:
        task = await engine.submit(GRAPH)
        assert (await task.wait(30)).ok

        trace = await engine.traces.show(task.id)
        assert Counter(attempt.record.base for attempt in trace.attempts) == {"shaky": 2, "each": 3, "below": 1}
        first = trace.attempts[0]
        assert (first.record.outcome, first.record.code) == ("failed", "RuntimeError")
        assert "RuntimeError: not yet" in (first.error or {})["traceback"]
        assert trace.nodes["below"].attempts[0].child

        path = await engine.traces.critical_path(task.id)
        assert [step.node.partition("[")[0] for step in path.steps] == ["shaky", "each", "below"]
        assert path.before + sum(step.seconds for step in path.steps) + path.after == pytest.approx(path.seconds)

        with pytest.raises(TaskNotFound):
            await engine.traces.show("nobody")

        async def complete() -> bool:
            return await counted(engine) == ATTEMPTS

        await until("every ended attempt is in the index", complete)
        (shaky_point,) = await engine.traces.history(node="shaky", bucket_sec=86_400.0 * 7)
        assert (shaky_point.count, shaky_point.failed, shaky_point.failure_rate) == (2, 1, 0.5)
        assert {one.base for one in await engine.traces.slowest(flow="traced", limit=3)} <= {"each", "below", "shaky"}


async def test_what_a_process_left_behind_is_indexed_by_the_next(tmp_path: Path) -> None:
    async with Embedded(tmp_path / "flow.db", handlers=[shaky, leaf]) as engine:
        tasks = [await engine.submit(GRAPH) for _ in range(3)]
        await asyncio.gather(*(task.wait(30) for task in tasks))

    async with Embedded(tmp_path / "flow.db") as engine:

        async def complete() -> bool:
            return await counted(engine) == {key: 3 * count for key, count in ATTEMPTS.items()}

        await until("the index is whole", complete)


@pytest.mark.kafka
@pytest.mark.mongo
async def test_a_cluster_indexes_every_attempt_once(site: Site) -> None:
    index = {"trace_index": True}
    async with site.coordinator(**index) as first, site.coordinator(**index) as second, site.worker([shaky, leaf]):
        tasks = await first.create_tasks([{"graph": GRAPH}] * 10)
        results = await asyncio.gather(*(second.wait_task(task, 60) for task in tasks))
        assert all(result.ok for result in results)
        async with site.client() as client:

            async def complete() -> bool:
                return await counted(client) == {key: 10 * count for key, count in ATTEMPTS.items()}

            await until("every ended attempt is in the index", complete, timeout=40)
            found = await client.traces.compare(tasks[0], tasks[1])
            assert not any(node.differs for node in found.nodes)

        assert await first.delete_task(tasks[0])
        with pytest.raises(TaskNotFound):
            await first.traces.show(tasks[0])


@pytest.mark.kafka
@pytest.mark.mongo
async def test_a_cluster_counts_attempts_without_a_record_of_each_unless_it_is_told_to(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "LINGER_SEC", 1.0)
    async with site.coordinator() as first, site.coordinator() as second, site.worker([shaky, leaf]):
        tasks = await first.create_tasks([{"graph": GRAPH}] * 10)
        await asyncio.gather(*(second.wait_task(task, 60) for task in tasks))
        async with site.client() as client:

            async def complete() -> bool:
                points = await client.traces.history(bucket_sec=86_400.0 * 7)
                return {(point.flow, point.node): point.count for point in points} == {
                    key: 10 * count for key, count in ATTEMPTS.items()
                }

            await until("every ended attempt is counted", complete, timeout=40)
            kept = await client.traces.slowest(limit=1000)
            assert 0 < len(kept) < 10 * sum(ATTEMPTS.values())
            with pytest.raises(ValueError, match="no records of single attempts"):
                await client.traces.history(since=time.time() - 3600.0, bucket_sec=60.0)
