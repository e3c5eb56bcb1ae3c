"""A large task goes from one coordinator to the next by way of its snapshot."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.telemetry import SnapshotUnusable, Telemetry
from tests.integration.site import Site, until

ON_KAFKA = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
WIDTH, LENGTH = 100, 50


@pytest.fixture(params=["sqlite", pytest.param("kafka-mongo", marks=ON_KAFKA)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A database, and the settings that go with it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flow.db", {}
    site: Site = request.getfixturevalue("site")
    return site.db, site.settings


def large() -> dict[str, Any]:
    """A hundred chains; the last node waits for all of them, and for a door."""
    chains = [
        {"node_id": f"n{chain}-{step}", "type": "count", **({"depends_on": [f"n{chain}-{step - 1}"]} if step else {})}
        for chain in range(WIDTH)
        for step in range(LENGTH)
    ]
    ends = [f"n{chain}-{LENGTH - 1}" for chain in range(WIDTH)]
    return {"nodes": [*chains, {"node_id": "door", "type": "door"},
                      {"node_id": "last", "type": "count", "depends_on": [*ends, "door"]}]}  # fmt: skip


@pytest.mark.timeout(240)
async def test_a_large_task_is_taken_over_from_its_snapshot(place: tuple[str, dict[str, Any]]) -> None:
    db, settings = place
    ran: Counter[str] = Counter()
    opened = asyncio.Event()

    async def count(ctx: Any) -> str:
        ran[ctx.node_id] += 1
        return "x" * 50

    async def door(ctx: Any) -> None:
        ran[ctx.node_id] += 1
        await opened.wait()

    def coordinator(telemetry: Telemetry) -> Coordinator:
        return Coordinator(db=db, cfg=CoordinatorConfig(**settings), telemetry=telemetry)

    async with AsyncExitStack() as stack:
        earlier, later = Telemetry(), Telemetry()
        troubles: list[Any] = []
        later.subscribe(lambda it: troubles.append(it) if isinstance(it, SnapshotUnusable) else None)
        first = coordinator(earlier)
        await first.start()
        cfg = WorkerConfig(**settings, slots=64)
        await stack.enter_async_context(Worker(db=db, cfg=cfg, handlers=[count, door]))
        task_id = await first.create_task(graph=large())
        store = first.runtime.store

        async def snapshot_is_named() -> bool:
            [head] = await store.read_heads([task_id])
            return bool(head.snapshot) and len(ran) == WIDTH * LENGTH + 1 and head.published_seq == head.seq

        await until("all but the last node ran, and the head names a snapshot", snapshot_is_named, timeout=60)
        assert earlier.counts["SnapshotTaken"] >= 1
        await first.stop()

        second = coordinator(later)
        await second.start()
        stack.push_async_callback(second.stop)
        await until("the task is loaded from it", lambda: later.counts["SnapshotLoaded"], timeout=60)
        opened.set()
        result = await second.wait_task(task_id, timeout=60)
        view = await second.get_task(task_id)

    assert troubles == []
    assert result.status == "finished"
    assert {name: times for name, times in ran.items() if times != 1} == {}
    assert {node.state for node in view.nodes.values()} == {"finished"}
    assert len(view.nodes) == WIDTH * LENGTH + 2
    assert view.nodes["n7-3"].output == "x" * 50
