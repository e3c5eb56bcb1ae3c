"""Where older code runs: in one process on a file, and on a real Kafka and MongoDB with either kind of handle."""

from __future__ import annotations

import gc
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Worker

Graph = dict[str, Any]


@dataclass(frozen=True)
class House:
    """A database handle, as users hold it, and the settings that lead to Kafka."""

    db: Any
    settings: dict[str, Any]

    def coordinator(self, **options: Any) -> Coordinator:
        return Coordinator(db=self.db, cfg=CoordinatorConfig(**self.settings), **options)

    def worker(self, handlers: Any, **options: Any) -> Worker:
        return Worker(db=self.db, cfg=WorkerConfig(**self.settings), handlers=handlers, **options)

    async def run(self, graph: Graph, handlers: Any, params: dict[str, Any] | None = None, **options: Any) -> Any:
        """The result of a task that older code would run: start both, create, wait, stop both."""
        coordinator, worker = self.coordinator(**options), self.worker(handlers)
        await coordinator.start()
        await worker.start()
        try:
            task_id = await coordinator.create_task(params=params or {}, graph=graph)
            return await coordinator.wait_task(task_id, timeout=30)
        finally:
            await worker.stop()
            await coordinator.stop()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "flow.db", {})


@pytest.fixture
def cluster_settings(kafka_address: str, kafka_prefix: str) -> dict[str, Any]:
    return {"kafka_bootstrap": kafka_address, "topic_prefix": kafka_prefix, "facts_partitions": 2}


@pytest.fixture
async def pymongo_house(mongo_database: Any, cluster_settings: dict[str, Any]) -> AsyncIterator[House]:
    yield House(mongo_database, cluster_settings)
    gc.collect()


@pytest.fixture
async def motor_house(mongo_url: str, cluster_settings: dict[str, Any]) -> AsyncIterator[House]:
    client = pytest.importorskip("motor.motor_asyncio").AsyncIOMotorClient(mongo_url)
    name = f"flowkit_test_{uuid.uuid4().hex[:16]}"
    yield House(client[name], cluster_settings)
    with suppress(Exception):
        await client.drop_database(name)
    client.close()
    gc.collect()


@pytest.fixture(
    params=["house", pytest.param("pymongo_house", marks=[pytest.mark.kafka, pytest.mark.mongo]),
            pytest.param("motor_house", marks=[pytest.mark.kafka, pytest.mark.mongo])],
    ids=["file", "pymongo", "motor"],
)  # fmt: skip
def any_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Every kind, one after the other."""
    yield request.getfixturevalue(request.param)
