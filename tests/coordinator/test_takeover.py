"""What a coordinator finds when it takes partitions over."""

from __future__ import annotations

from pathlib import Path

import pytest

import flowkit

GRAPH = {"nodes": [{"node_id": "a", "type": "work"}]}


async def test_what_was_cancelled_while_nobody_coordinated_is_not_started(tmp_path: Path) -> None:
    ran: list[str] = []

    async def work() -> None:
        ran.append("a")

    async with flowkit.Client(db=tmp_path / "flow.db") as client:
        task_id = await client.create_task(graph=GRAPH)
        assert await client.cancel_task(task_id)

    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[work]) as engine:
        result = await engine.coordinator.wait_task(task_id, timeout=60)

    assert (result.status, ran) == ("cancelled", [])


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_was_created_while_nobody_coordinated_ends(tmp_path: Path, cancelled: bool) -> None:
    async def work() -> str:
        return "done"

    async with flowkit.Client(db=tmp_path / "flow.db") as client:
        task_id = await client.create_task(graph=GRAPH)
        if cancelled:
            await client.cancel_task(task_id)

    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[work]) as engine:
        result = await engine.coordinator.wait_task(task_id, timeout=60)

    assert result.status == ("cancelled" if cancelled else "finished")
