"""Flows that several processes put, tag and run at the same time, on a file and on Kafka and MongoDB."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.client import Client
from flowkit.errors import FlowNotFound
from tests.integration.site import Site

ON_KAFKA = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
PUTS = 8


@pytest.fixture(params=["sqlite", pytest.param("kafka-mongo", marks=ON_KAFKA)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A database, and the settings that go with it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flow.db", {}
    site: Site = request.getfixturevalue("site")
    return site.db, site.settings


def saying(word: str) -> dict[str, Any]:
    return {"nodes": [{"node_id": "say", "type": "say", "inputs": {"word": word}}]}


async def test_flows_are_put_and_run_by_many_at_once(place: tuple[str, dict[str, Any]]) -> None:
    db, settings = place

    def say(word: str) -> str:
        return word

    cfg = CoordinatorConfig(**settings)
    async with (
        Coordinator(db=db, cfg=cfg) as coordinator,
        Worker(db=db, cfg=WorkerConfig(**settings), handlers=[say]),
        Client(db=db, cfg=cfg) as client,
    ):
        verbs: list[Coordinator | Client] = [coordinator, client]
        words = [f"{who}-{n}" for n in range(PUTS) for who in range(2)]
        versions = await asyncio.gather(*(verbs[i % 2].put_flow("say", saying(word)) for i, word in enumerate(words)))
        assert sorted(versions) == list(range(1, 2 * PUTS + 1))
        word_of = dict(zip(versions, words, strict=True))

        async def release() -> None:
            for version in range(1, PUTS + 1):
                await verbs[version % 2].tag_flow("say", version, "default")

        async def create(n: int) -> str:
            return await verbs[n % 2].create_task(flow="say", idempotency_key=f"k{n}")

        releasing = asyncio.create_task(release())
        ids = [await create(n) for n in range(20)]
        await releasing
        assert [await create(n) for n in range(20)] == ids  # though the tag has moved

        ran: Counter[str] = Counter()
        for task_id in ids:
            result = await client.wait_task(task_id, timeout=30)
            pinned = (await client.get_task(task_id)).flow
            assert result.output == word_of[int(pinned.removeprefix("say@"))]
            ran[pinned] += 1

        last = f"say@{PUTS}"
        assert (await client.get_flow("say")).version == PUTS
        for flow, count in (ran | Counter({last: ran[last]})).items():
            assert len((await coordinator.list_tasks(flow=flow)).heads) == count
        assert {head.task_id for head in (await client.list_tasks(flow="say")).heads} == set(ids)
        assert (await client.list_tasks(flow="sa")).heads == []
        (summary,) = (await client.list_flows()).flows
        assert (summary.newest, summary.default, summary.count) == (2 * PUTS, PUTS, 2 * PUTS)
        with pytest.raises(FlowNotFound, match="did you mean 'say'"):
            await client.create_task(flow="sya")
