"""What a running attempt says of itself is seen by whoever asks the process that coordinates its task."""

from __future__ import annotations

import asyncio

import pytest

from flowkit import Context, Embedded, WorkerConfig
from flowkit.coordinator.views import Progress


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(3, 10, "rows"), "3 of 10: rows"),
        (Progress(0.5), "0.5"),
        (Progress(None, 10), "of 10"),
        (Progress(22, None, "22 made, 'c' has read 2"), "22 made, 'c' has read 2"),
        (Progress(2, None, "22 made"), "2: 22 made"),
        (Progress(message="at it"), "at it"),
        (Progress(), ""),
    ],
)
def test_progress_reads_as_people_say_it(progress: Progress, text: str) -> None:
    assert str(progress) == text


async def test_a_view_and_an_explanation_tell_the_last_progress_until_the_attempt_is_over() -> None:
    go_on = asyncio.Event()

    async def copy(ctx: Context) -> str:
        ctx.progress(3, 10, "rows")
        await go_on.wait()
        return "copied"

    graph = {"nodes": [{"node_id": "a", "type": "copy"}, {"node_id": "b", "type": "copy", "depends_on": ["a"]}]}
    async with Embedded(handlers=[copy], worker_cfg=WorkerConfig(heartbeat_sec=0.05)) as engine:
        task = await engine.submit(graph)
        async with asyncio.timeout(60):
            while (said := (await task.view()).nodes["a"].progress) is None:
                await asyncio.sleep(0.02)
        reasons = [reason.message for reason in await task.explain()]
        go_on.set()
        assert (await task.wait(20)).status == "finished"

        assert said == Progress(3.0, 10.0, "rows")
        assert any(message.endswith("attempt 1: 3 of 10: rows") for message in reasons)
        assert [node.progress for node in (await task.view()).nodes.values()] == [None, None]
