"""What the kills are tried on comes to what it must where nothing is killed: so what is wrong there was not so before.

No server is needed: coordinator and worker are in this process.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import flowkit
from flowkit.core.dialect import parse_graph
from tests.integration.harness.graphs import FLOWS, KINDS, MOST, Graphs
from tests.integration.harness.ledger import Ledger, Pen
from tests.integration.harness.load import Load
from tests.integration.harness.part import handlers

EACH = 6
QUICK = (0.005, 0.02)


async def test_every_kind_of_task_ends_as_it_must(tmp_path: Path) -> None:
    pen = Pen(tmp_path / "ledger")
    async with flowkit.Embedded(handlers=handlers(pen)) as engine:
        load = Load(engine.coordinator, tasks=0, dice=random.Random(5), sec=QUICK)
        await load.start()
        async with asyncio.timeout(50):
            await asyncio.gather(*(load.one(kind) for kind in KINDS for _ in range(EACH)))

    assert load.wrong() == []
    assert load.ended() == dict.fromkeys(KINDS, EACH)
    assert {"before", "after"} == set(load.signals)
    ledger = Ledger(tmp_path / "ledger")
    ledger.look()
    kept = [run for run in ledger.runs if run.node == "asked"]
    assert 0 < len(kept) <= EACH


async def test_the_lanes_of_a_load_draw_every_kind_until_they_are_told_to_stop(tmp_path: Path) -> None:
    async with flowkit.Embedded(handlers=handlers(Pen(tmp_path / "ledger"))) as engine:
        load = Load(engine.coordinator, tasks=8, dice=random.Random(6), sec=QUICK)
        await load.start()
        async with asyncio.timeout(50):
            while min(load.ended().values()) == 0:
                await asyncio.sleep(0.05)
            left = await load.stop(timeout=20)

    assert left == load.wrong() == []


@pytest.mark.parametrize("kind", KINDS)
def test_between_them_the_graphs_say_what_the_load_claims(kind: str) -> None:
    order = Graphs(random.Random(1), QUICK).order(kind)
    graph = parse_graph(FLOWS[order.flow.partition("@")[0]] if order.flow else order.graph)
    nodes = list(graph.nodes.values())
    shown = {
        "chain": len(nodes) > 3,
        "diamond": len(graph.incoming["join"]) > 2 if "join" in graph.nodes else False,
        "map": any(node.foreach for node in nodes),
        "repeat": any(node.repeat for node in nodes),
        "children": any(node.child for node in nodes),
        "undone": graph.compensates,
        "choice": bool(graph.choices) and any(node.when for node in nodes),
        "route": any(node.type == "guide" for node in nodes),
        "sleep": {"sleep", "coordinator_fn"} <= {node.type for node in nodes},
        "signal": bool(graph.signals),
        "limit": any(limit.most == MOST for node in nodes for limit in node.limits),
        "cache": any(node.cache for node in nodes),
        "stream": len(graph.stream_readers) == 2,
        "flow": any(node.flow for node in nodes),
        "urgent": order.priority > 0,
    }
    assert shown[kind]
