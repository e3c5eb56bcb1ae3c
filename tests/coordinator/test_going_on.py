"""Restarts that go on inside sub-graphs, from the API down to the store; and deadlines on the same road."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import flowkit
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import SystemClock
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.going_on import GoingOn
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.core.effects import Continue
from flowkit.core.replan import ChildFate, ChildPlan
from flowkit.errors import GraphError, RequestRefused
from flowkit.ports import Head, Request
from tests.core.builders import graph, node


class Shop:
    """An engine whose `sell` fails as long as it is closed, and counts what ran."""

    def __init__(self) -> None:
        self.closed = True
        self.ran: Counter[str] = Counter()
        self.engine = flowkit.Embedded(handlers={"fetch": self.fetch, "sell": self.sell, "due": self.due})

    async def fetch(self, inputs: Any) -> Any:
        self.ran["fetch"] += 1
        return inputs

    async def sell(self, inputs: Any) -> str:
        self.ran["sell"] += 1
        if self.closed:
            raise flowkit.Permanent("closed", "the shop is closed")
        return "sold"

    async def due(self, ctx: flowkit.Context) -> float | None:
        return ctx.deadline

    async def failed(self, raw: Any) -> Any:
        task = await self.engine.submit(raw)
        assert (await task.wait(timeout=60)).status == "failed"
        return task

    async def again(self, task: Any, **options: Any) -> Any:
        await task.restart(failed_only=True, **options)
        return await task.wait(timeout=60)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    made = Shop()
    await made.engine.start()
    yield made
    await made.engine.stop()


INNER = graph(node("fetch", type="fetch", inputs={}), node("sell", "fetch", type="sell"))


def sub(inner: Any = INNER, **more: Any) -> dict[str, Any]:
    return graph(node("c", type="task", graph=inner, inputs={}, **more))


async def the_child(shop: Shop, task_id: str) -> Any:
    (head,) = (await shop.engine.coordinator.list_tasks(parent=task_id)).heads
    return shop.engine.task(head.task_id)


async def test_what_failed_in_a_child_of_a_child_of_an_item_goes_on_and_the_rest_is_kept(shop: Shop) -> None:
    task = await shop.failed(graph(node("m", type="task", graph=sub(), foreach=[1, 2], inputs={})))
    assert shop.ran == {"fetch": 2, "sell": 2}

    plan = await task.plan_restart(failed_only=True)
    assert [(child.node, child.fate) for child in plan.children] == [("m[0]", "goes on"), ("m[1]", "goes on")]
    (deep,) = plan.children[0].plan.children
    assert (deep.node, deep.fate, deep.plan.again, deep.plan.kept) == ("c", "goes on", {"sell"}, {"fetch"})

    shop.closed = False
    assert (await shop.again(task)).output == ["sold", "sold"]
    assert shop.ran == {"fetch": 2, "sell": 4}


async def test_a_plan_looks_at_the_first_children_and_says_how_many_more_there_are(shop: Shop) -> None:
    task = await shop.failed(graph(node("m", type="task", graph=INNER, foreach=[*range(23)], inputs={})))

    plan = await task.plan_restart(failed_only=True)
    assert [child.node for child in plan.children] == [f"m[{n}]" for n in range(20)]
    assert (plan.more_children, len(plan.within)) == (3, 23)


async def test_a_child_that_was_deleted_gives_way_to_a_new_one(shop: Shop) -> None:
    task = await shop.failed(sub())
    child = await the_child(shop, task.id)
    runtime = shop.engine.coordinator.runtime
    async with asyncio.timeout(60):  # heads lag behind
        while (heads := await runtime.api.store.read_heads([child.id]))[0].active:
            await asyncio.sleep(0.02)
    assert await Deletion(runtime.api.store, SystemClock(), "ada").bury(heads) == heads
    runtime.engine.forget_task(child.id)

    plan = await task.plan_restart(failed_only=True)
    assert plan.children == (ChildPlan("c", child.id, ChildFate.FRESH, why="it was deleted"),)
    shop.closed = False
    assert (await shop.again(task)).output == "sold"
    assert shop.ran == {"fetch": 2, "sell": 2}


async def test_a_child_that_was_put_right_by_itself_is_taken_as_it_is(shop: Shop) -> None:
    task = await shop.failed(sub())
    child = await the_child(shop, task.id)
    shop.closed = False
    assert (await shop.again(child)).status == "finished"
    assert (await task.view()).status == "failed", "the parent has taken its failure, and is not disturbed"

    plan = await task.plan_restart(failed_only=True)
    assert [(one.fate, one.why) for one in plan.children] == [("taken", "it has finished since")]
    assert (await shop.again(task)).output == "sold"
    assert shop.ran == {"fetch": 1, "sell": 2}


async def test_new_params_reach_a_child_that_goes_on(shop: Shop) -> None:
    inner = graph(
        node("fetch", type="fetch", inputs={}), node("sell", "fetch", type="sell", inputs={"n": {"$param": "n"}})
    )
    raw = graph(node("c", type="task", graph=inner, inputs={"n": {"$param": "n"}}))
    task = await shop.engine.submit(raw, params={"n": 1})
    await task.wait(timeout=60)
    shop.closed = False
    assert (await shop.again(task, params={"n": 2})).output == "sold"
    assert (await (await the_child(shop, task.id)).view()).params == {"n": 2}


# ---- deadlines


async def test_a_handler_is_told_the_earliest_of_all_deadlines(shop: Shop) -> None:
    now = time.time()
    inner = graph(node("due", type="due", timeout_sec=500, inputs={}), deadline=now + 300)
    raw = graph(
        node("own", type="due", deadline=now + 100, inputs={}),
        node("timeout", type="due", timeout_sec=50, inputs={}),
        node("task", type="due", inputs={}),
        node("child", type="task", graph=inner, deadline=now + 200, inputs={}),
        deadline=now + 400,
    )
    task = await shop.engine.submit(raw, deadline=now + 350)
    outputs = (await task.wait(timeout=60)).outputs
    assert now + 50 <= outputs.pop("timeout") <= time.time() + 50  # it counts from when it began
    assert {name: round(at - now) for name, at in outputs.items()} == {"own": 100, "task": 350, "child": 200}
    assert (await task.view()).deadline == now + 350


async def test_a_key_that_comes_again_after_the_deadline_gives_the_task_that_there_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = shop.engine.coordinator.create_task
    due, raw = time.time() + 1800, graph(node("fetch", type="fetch", inputs={}))
    task_id = await create(graph=raw, idempotency_key="k", deadline=due)
    monkeypatch.setattr(SystemClock, "wall", staticmethod(lambda: time.time() + 3600))

    assert await create(graph=raw, idempotency_key="k", deadline=due) == task_id
    with pytest.raises(GraphError, match=r"E_DEADLINE at deadline: .* has passed"):
        await create(graph=raw, idempotency_key="another", deadline=due)


async def test_a_child_that_missed_its_deadline_goes_on_with_a_later_one(shop: Shop) -> None:
    inner = graph(node("fetch", type="fetch", inputs={}), node("wait", "fetch", type="signal", inputs={"name": "go"}))
    task = await shop.engine.submit(sub(inner), deadline=time.time() + 2)
    result = await task.wait(timeout=60)
    assert (result.status, result.error["code"]) == ("failed", "deadline")
    with pytest.raises(RequestRefused, match="has passed: give it a later one with `deadline`"):
        await task.restart(failed_only=True)
    with pytest.raises(GraphError, match="E_DEADLINE"):
        await task.restart(failed_only=True, deadline="soon")

    await task.restart(failed_only=True, deadline=time.time() + 60)
    child = await the_child(shop, task.id)
    async with asyncio.timeout(60):  # it is asked to go on once its parent does
        while await child.status() == "failed":
            await asyncio.sleep(0.02)
    await child.signal("go", {"ok": True})
    assert (await task.wait(timeout=60)).status == "finished"
    assert shop.ran == {"fetch": 1}


async def test_a_child_that_an_older_coordinator_refused_to_let_go_on_is_asked_once_more() -> None:
    store, asked = MemoryStore(), []
    head = Head("c", 0, "ref", parent="p", parent_node="n", parent_attempt=1)

    async def ask(request: Request) -> Request:
        asked.append(request.id)
        return replace(request, n=len(asked), applied=True)

    going = GoingOn(
        store=store, clock=SystemClock(), history=History(store, Graphs(store)), asking=SimpleNamespace(ask=ask),
        again=lambda *_: None, gone=lambda *_: None,
    )  # fmt: skip
    await store.insert_heads([head])
    await going.ask_all([(Cell("p", 0), Continue("n", 2, "c", None))])
    assert asked == ["continue-2"]

    await going.ask_all([(Cell("p", 0), Continue("n", 2, "c", None, unheard=True))])
    assert asked[1:] == ["continue-2", "continue-2-after-2"]
