"""Batches on a real Kafka and MongoDB: between workers, while workers and coordinators are killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from flowkit import Context
from flowkit.adapters.mongo import MongoStore
from flowkit.ports import Block, Store, StreamId
from flowkit.testing.batches import judge_blocks
from flowkit.wire.stream import read_mark
from flowkit.worker import BatchResult, RoleHandler
from tests.integration.harness.ledger import Ledger
from tests.integration.harness.processes import Cluster
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    # Sockets that the drivers drop when they are stopped in the middle of something.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

LAG = 400
EDGES = (("s0", "s1"), ("s1", "s2"))


def three_stages(n: int, ahead: int, gate: Path) -> dict[str, Any]:
    stream = {"max_batches": LAG}
    early = {"start_when": "first_batch", "stream": stream}
    return {
        "nodes": [
            {
                "node_id": "s0",
                "type": "numbers",
                "inputs": {"n": n, "ahead": ahead, "gate": str(gate)},
                "stream": stream,
            },
            {"node_id": "s1", "type": "shift", "inputs": {"rows": {"$stream": "s0"}}, **early},
            {"node_id": "s2", "type": "tally", "inputs": {"rows": {"$stream": "s1"}}, **early},
        ]
    }


async def all_blocks(store: Store, stream: StreamId) -> list[Block]:
    found: list[Block] = []
    while blocks := await store.read_blocks(stream, after=len(found), limit=500):
        found += blocks
    return found


class Sight:
    """Looks at a task's streams all the time: how far they are, and how far each was ahead of its reader at most."""

    def __init__(self, store: Store, task_id: str) -> None:
        self.store = store
        self.task_id = task_id
        self.most_lag = 0
        self.read = 0

    async def look(self) -> None:
        for source, reader in EDGES:
            # What was made first: what is read meanwhile can only make the distance look shorter.
            made = await self.store.last_block(StreamId(self.task_id, 0, source))
            read = await self.store.last_block(StreamId(self.task_id, 0, reader))
            cursor = read_mark(read.body).cursors.get(source) if read is not None else None
            index = cursor.index if cursor is not None else 0
            self.most_lag = max(self.most_lag, (made.count if made is not None else 0) - index)
            if reader == "s2":
                self.read = index

    async def go_on(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(0.02)


async def through_kills(site: Site, folder: Path, n: int, kills: list[tuple[float, str]]) -> tuple[Any, Sight, float]:
    """Run three stages; when so much of the whole has been read, kill who runs a node, or a coordinator. The last part
    is not made before all of them have been killed."""
    gate, ahead = folder / "gate", int(n * (kills[-1][0] + 0.2))
    ledger = Ledger(folder / "ledger")
    store = MongoStore(site.db)
    await store.start()
    with Cluster(site, folder, ledger.path) as cluster:
        await cluster.start(coordinators=2, workers=3)
        async with site.client() as client:
            task_id = await client.create_task(graph=three_stages(n, ahead, gate))
            sight, began = Sight(store, task_id), time.monotonic()
            watching = asyncio.ensure_future(sight.go_on())
            for share, victim in kills:
                await until(f"{share:.0%} was read", lambda share=share: sight.read >= share * n, timeout=120)
                kill(cluster, ledger, victim)
            gate.touch()
            result = await client.wait_task(task_id, timeout=600)
            seconds = time.monotonic() - began
            watching.cancel()
    found = [
        f"{node}: {what}"
        for node in ("s0", "s1", "s2")
        for what in judge_blocks(await all_blocks(store, StreamId(task_id, 0, node)))
    ]
    await store.stop()
    assert found == []
    return result, sight, seconds


def kill(cluster: Cluster, ledger: Ledger, victim: str) -> None:
    if victim == "coordinator":
        part = cluster.of_role("coordinator")[0]
    else:
        names = {part.name: part for part in cluster.of_role("worker")}
        part = next(names[run.worker] for run in ledger.running() if run.node == victim and run.worker in names)
    part.kill()
    cluster.replace(part)


@pytest.mark.timeout(240)
async def test_a_stream_survives_the_death_of_a_worker_without_loss_or_repetition(site: Site, tmp_path: Path) -> None:
    result, sight, _ = await through_kills(site, tmp_path, 2000, [(0.3, "s1")])
    assert result.status == "finished", result.error
    assert result.output == {"count": 2000, "wrong": 0}
    assert 0 < sight.most_lag <= LAG


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_100_000_batches_survive_two_workers_and_a_coordinator(site: Site, tmp_path: Path, capsys: Any) -> None:
    kills = [(0.2, "s1"), (0.4, "coordinator"), (0.6, "s0")]
    result, sight, seconds = await through_kills(site, tmp_path, 100_000, kills)
    with capsys.disabled():
        print(f"\n100,000 batches in {seconds:.1f} s with three kills; at most {sight.most_lag} of {LAG} ahead")
    assert result.status == "finished", result.error
    assert result.output == {"count": 100_000, "wrong": 0}
    assert 0 < sight.most_lag <= LAG


# ------------------------------------------------------------------------------------------ older graphs


class Indexer(RoleHandler):
    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return input_inline

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Any]:
        from flowkit.worker import Batch

        for i in range(loaded["n"]):
            yield Batch(batch_uid=f"b{i}", payload={"i": i})

    async def process_batch(self, batch: Any, ctx: Context) -> BatchResult:
        return BatchResult(success=True, metrics={"skus": [batch.payload["i"]] * 3})


class Enricher(RoleHandler):
    async def process_batch(self, batch: Any, ctx: Context) -> BatchResult:
        assert batch.payload["from_node"] == "w1"
        return BatchResult(success=True, metrics={"items": len(batch.payload["items"])})


@pytest.mark.timeout(240)
async def test_an_older_streaming_graph_of_500_batches_loses_none(site: Site) -> None:
    args = {"from_nodes": ["w1"], "size": 2, "meta_list_key": "skus", "poll_ms": 20, "eof_on_task_done": True}
    adapter = {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": args}
    graph = {
        "schema_version": "1.0",
        "nodes": [
            {"node_id": "w1", "type": "indexer", "depends_on": [], "io": {"input_inline": {"n": 500}}},
            {"node_id": "w2", "type": "enricher", "depends_on": ["w1"],
             "io": {"start_when": "first_batch", "input_inline": adapter}},
        ],
        "edges": [["w1", "w2"]],
        "edges_ex": [{"from": "w1", "to": "w2", "mode": "async", "trigger": "on_batch"}],
    }  # fmt: skip
    handlers = {"indexer": Indexer, "enricher": Enricher}
    async with site.coordinator() as coordinator, site.worker({"indexer": Indexer}), site.worker(handlers):
        task_id = await coordinator.create_task(graph=graph)
        result = await coordinator.wait_task(task_id, timeout=60)
        view = await coordinator.get_task(task_id)
    assert result.status == "finished", result.error
    assert result.outputs["w2"] == {"metrics": {"items": 1500}}
    assert [(one.source, one.reader, one.produced, one.lag) for one in view.streams] == [("w1", "w2", 500, 0)]
