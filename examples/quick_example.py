"""The quick example: one node, on Kafka and MongoDB, with a handler that is a class.

KAFKA_BOOTSTRAP_SERVERS=localhost:9092 MONGO_URL=mongodb://localhost:27017 python examples/quick_example.py
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pymongo import AsyncMongoClient

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import Batch, BatchResult, Context, RoleHandler, Worker


class MyHandler(RoleHandler):
    role = "processor"

    async def process_batch(self, batch: Batch, ctx: Context) -> BatchResult:
        data = batch.payload["input_inline"]["data"]
        return BatchResult(success=True, output={"echo": data})


async def main(mongo_db: Any) -> None:
    coordinator = Coordinator(db=mongo_db, cfg=CoordinatorConfig())
    worker = Worker(db=mongo_db, cfg=WorkerConfig(roles=["processor"]), handlers={"processor": MyHandler()})
    await coordinator.start(); await worker.start()  # noqa: E702  # fmt: skip
    task_id = await coordinator.create_task(params={}, graph={
        "nodes": [{"node_id": "process_data", "type": "processor", "io": {"input_inline": {"data": "hello world"}}}],
        "edges": []
    })  # fmt: skip

    result = await coordinator.wait_task(task_id, timeout=60)
    print(result.status, result.output)

    await worker.stop()
    await coordinator.stop()


async def connect() -> None:
    async with AsyncMongoClient(os.environ.get("MONGO_URL", "mongodb://localhost:27017")) as client:
        await main(client["flowkit"])


if __name__ == "__main__":
    asyncio.run(connect())
