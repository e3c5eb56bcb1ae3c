"""What attempts say, through a real Kafka into a real MongoDB, and on one file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit import Client, Context, Coordinator, CoordinatorConfig, Embedded
from flowkit.errors import TaskNotFound
from tests.integration.site import Site

GRAPH = {
    "nodes": [{"node_id": "talk", "type": "talk", "foreach": {"$param": "items"}, "inputs": {"item": {"$item": ""}}}]
}


async def talk(item: int, ctx: Context) -> int:
    ctx.log.info("item %d begins", item, item=item)
    await asyncio.sleep(0)
    ctx.log.warning("item %d ends", item)
    return item


async def told(source: Any, task_id: str, **wanted: Any) -> list[tuple[str, int, str]]:
    return [(line.node_id, line.sequence, line.message) async for line in source.logs(task_id, **wanted)]


def expected(count: int) -> list[tuple[str, int, str]]:
    return sorted(
        (f"talk[{n}]", sequence, f"item {n} {what}")
        for n in range(count)
        for sequence, what in ((1, "begins"), (2, "ends"))
    )


async def test_on_one_file_lines_are_kept_followed_paged_and_deleted_with_their_task(tmp_path: Path) -> None:
    async with Embedded(tmp_path / "flow.db", handlers=[talk]) as engine:
        task = await engine.submit(GRAPH, params={"items": list(range(20))})
        followed = await asyncio.wait_for(told(engine, task.id, follow=True), 30)
        assert sorted(followed) == expected(20)

        page = await engine.list_logs(task.id, level="warning", limit=15)
        rest = await engine.list_logs(task.id, level="warning", limit=15, cursor=page.cursor)
        assert (len(page.lines), len(rest.lines), rest.cursor) == (15, 5, None)
        assert {line.level for line in page.lines + rest.lines} == {"warning"}

        assert await engine.delete_task(task.id)
        with pytest.raises(TaskNotFound):
            await told(engine, task.id)


async def test_lines_survive_the_process_and_go_by_their_own_retention(tmp_path: Path) -> None:
    path = tmp_path / "flow.db"
    async with Embedded(path, handlers=[talk]) as engine:
        task = await engine.submit(GRAPH, params={"items": [1, 2]})
        await task.wait(30)
        await asyncio.wait_for(told(engine, task.id, follow=True), 30)

    async with Client(db=path) as client:
        assert len(await told(client, task.id)) == 4

    async with Coordinator(db=path, cfg=CoordinatorConfig(retention_logs_sec=0.0)) as coordinator:
        async with asyncio.timeout(30):
            while await told(coordinator, task.id):
                await asyncio.sleep(0.05)


@pytest.mark.kafka
@pytest.mark.mongo
async def test_a_cluster_keeps_every_line_once(site: Site) -> None:
    async with site.coordinator() as first, site.coordinator() as second, site.worker([talk]):
        tasks = [await first.create_task(graph=GRAPH, params={"items": list(range(10))}) for _ in range(10)]
        await second.wait_task(tasks[0], 60)
        await first.restart()  # what it wrote down is the other's meanwhile
        async with asyncio.timeout(60):
            found = await asyncio.gather(*(told(second, task, follow=True) for task in tasks))
        assert [sorted(lines) for lines in found] == [expected(10)] * 10
        async with site.client() as client:
            assert sorted(await told(client, tasks[0])) == expected(10)


def test_a_single_run_keeps_them_too(tmp_path: Path) -> None:
    result = flowkit.run(GRAPH, handlers=[talk], params={"items": [7]}, db=tmp_path / "flow.db")

    async def read() -> list[tuple[str, int, str]]:
        async with Client(db=tmp_path / "flow.db") as client:
            return await told(client, result.task_id)

    assert asyncio.run(read()) == [("talk[0]", 1, "item 7 begins"), ("talk[0]", 2, "item 7 ends")]
