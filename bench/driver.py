"""Runs a workload through the public API and checks every result, as a user's app would."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.workloads import Workload

if TYPE_CHECKING:
    from flowkit import Coordinator, TaskResult
    from flowkit.ports import Head

CREATE_AT_ONCE = 1000
WAIT_AT_ONCE = 1000
HEADS_SEC = 15.0


class WrongResult(AssertionError):
    """A task did not end as it must: whatever was measured is worth nothing."""


@dataclass(slots=True)
class Sample:
    """One run. `seconds` from the first create to the last checked result; `hops` are seconds between the starts of
    consecutive handlers of each chain; `beside` how long each chain took that ran beside."""

    seconds: float
    create_seconds: float
    hops: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


async def create(coordinator: Coordinator, work: Workload) -> list[str]:
    from flowkit import Creation

    ids: list[str] = []
    for start in range(0, work.tasks, CREATE_AT_ONCE):
        many = range(start, min(start + CREATE_AT_ONCE, work.tasks))
        ids += await coordinator.create_tasks([Creation(work.graph, params=work.params(i)) for i in many])
    return ids


async def run(coordinator: Coordinator, work: Workload, timeout: float) -> Sample:
    """Create the workload's tasks, wait for all, check each. Raises `WrongResult`, or `WaitTimeout` for a hang."""
    began = time.monotonic()
    ids = await create(coordinator, work)
    created = time.monotonic()
    results = await wait_all(coordinator, work, ids, timeout)
    ended = time.monotonic()
    if work.children:
        for task_id in ids:
            await check_children(coordinator, work, task_id)
    return Sample(ended - began, created - began, [hop for result in results for hop in hops_of(result, work)])


async def wait_all(coordinator: Coordinator, work: Workload, ids: list[str], timeout: float) -> list[TaskResult]:
    results: list[TaskResult] = []
    for start in range(0, len(ids), WAIT_AT_ONCE):
        some = ids[start : start + WAIT_AT_ONCE]
        results += await asyncio.gather(*(coordinator.wait_task(task_id, timeout) for task_id in some))
    for place, result in enumerate(results):
        check(work, place, result)
    return results


def check(work: Workload, place: int, result: TaskResult) -> None:
    """Raises `WrongResult`."""
    said = f"{work.name}, task {place} ({result.task_id})"
    if result.status != "finished":
        raise WrongResult(f"{said} {result.status}: {result.error}")
    if len(result.outputs) != work.outputs_per_task:
        raise WrongResult(f"{said}: {len(result.outputs)} outputs of {work.outputs_per_task} nodes")
    expected = work.expected(place)
    if expected is not None and result.output != expected:
        raise WrongResult(f"{said}: the output is {result.output!r}, must be {expected!r}")


async def check_children(coordinator: Coordinator, work: Workload, task_id: str) -> None:
    """Every item was a task, each of them has finished, and there are no others. Raises `WrongResult`."""
    deadline = time.monotonic() + HEADS_SEC
    while True:
        heads: list[Head] = []
        cursor: str | None = None
        while True:
            page = await coordinator.list_tasks(parent=task_id, limit=1000, cursor=cursor)
            heads += page.heads
            if (cursor := page.cursor) is None:
                break
        finished = sum(head.status == "finished" for head in heads)
        if len({head.parent_node for head in heads}) == len(heads) == finished == work.items:
            return
        if time.monotonic() > deadline:
            raise WrongResult(f"{work.name} ({task_id}): {finished} of {len(heads)} children finished, of {work.items}")
        await asyncio.sleep(0.5)  # heads follow their commits


def hops_of(result: TaskResult, work: Workload) -> list[float]:
    starts = [result.outputs[node]["at"] for node in work.hops]
    return [after - before for before, after in itertools.pairwise(starts)]


async def run_beside(coordinator: Coordinator, work: Workload, chain: Workload, timeout: float) -> Sample:
    """Run the workload with one chain after another beside it; the hops are the chains'."""
    main = asyncio.create_task(run(coordinator, work, timeout))
    hops: list[float] = []
    beside: list[float] = []
    try:
        while not main.done():
            one = await run(coordinator, chain, timeout)
            hops += one.hops
            beside.append(one.seconds)
        sample = await main
    finally:
        main.cancel()
    sample.hops, sample.beside = hops, beside
    return sample
