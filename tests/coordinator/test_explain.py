"""Why nodes do not run: of many in slices, and whether nobody serves a role without looking at any of them."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import explain as explaining
from flowkit.coordinator.explain import explain, unserved
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core.decide import decide
from flowkit.core.model import Task
from flowkit.core.reports import Accepted
from flowkit.ports import Head
from flowkit.wire.messages import Hello
from tests.core.builders import START, graph, new_task, node

HEAD = Head("t", 0, "ref")


def runtime(*roles: str) -> CoordinatorRuntime:
    made = CoordinatorRuntime(store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig())
    made.engine.owned.add(0)
    if roles:
        made.fleet.heard(Hello("w", "i", list(roles), 8, 0.0))
    return made


def wide(width: int, *, begun: bool = True) -> Task:
    items = node("many", foreach=list(range(width)), inputs={})
    task = new_task(graph(items, node("other", type="rare", inputs={})))
    if begun:
        decide(task, [Accepted()], START)
    return task


async def test_others_get_their_turn_while_many_nodes_are_explained() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    reasons = await explain(HEAD, wide(9000), runtime("work", "rare").engine)
    beside.cancel()
    assert len(reasons) == 1000 + 2  # so many of the items exist
    assert turns == 0

    long = new_task(graph(*(node(f"n{n}") for n in range(9000))))
    beside = asyncio.create_task(others())
    assert len(await explain(HEAD, long, runtime("work").engine)) == 9000
    beside.cancel()
    assert turns >= 4


@pytest.mark.parametrize("begun", [True, False])
async def test_that_nobody_serves_a_role_is_found_by_looking_at_roles(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = wide(5000, begun=begun)
    monkeypatch.setattr(explaining, "waits_for", None)
    assert unserved(HEAD, task, runtime("work", "rare").engine) is None
    why = unserved(HEAD, task, runtime("work").engine)
    assert why is not None
    assert (why.node_id, why.message) == ("other", "node 'other' waits: no live worker serves 'rare'")
