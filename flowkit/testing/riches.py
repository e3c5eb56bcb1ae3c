"""What a world needs beside the rest where graphs say all that they can: handlers that stream, an onlooker of limits,
and a count of what was used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.testing.batches import judge_blocks
from flowkit.testing.evidence import Start
from flowkit.testing.onlooker import Onlooker
from flowkit.testing.rich import READER, SOURCE, features
from flowkit.testing.scenario import TaskPlan
from flowkit.wire.facts import decode_facts
from flowkit.wire.tombstone import is_tombstone

if TYPE_CHECKING:
    from flowkit.testing.world import World

PATIENCE_SEC = 900.0
"""Who shares a small limit waits long."""
BATCH_SEC = 0.05


class Riches:
    """Prepares a world; `note` each plan that was accepted, and `judge` when the users are done."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.onlooker = Onlooker(world)
        world.patience_sec = PATIENCE_SEC
        world.handlers |= {SOURCE: self.source, READER: self.reader}

    # ---- handlers

    async def source(self, ctx: Any, n: int) -> AsyncIterator[Any]:
        with self._run(ctx):
            for i in range(n):
                await self._moment()
                yield {"i": i}

    async def reader(self, ctx: Any, n: int, rows: AsyncIterator[Any]) -> int:
        """Reads everything again in each attempt."""
        with self._run(ctx):
            seen = []
            async for row in rows:
                await self._moment()
                seen.append(row["i"])
            if seen != [*range(n)]:
                self.world.observer.say("batches_wrong", ctx.task_id, f"{ctx.node_id} read {seen} of {n}")
            return sum(seen)

    async def _moment(self) -> None:
        await asyncio.sleep(self.world.stage.dice.expovariate(1 / BATCH_SEC))

    @contextmanager
    def _run(self, ctx: Any) -> Iterator[None]:
        observer, token = self.world.observer, ctx._attempt.token
        start = Start(ctx.task_id, ctx.node_id, ctx.attempt, ctx.idempotency_key, ctx.worker_id, self.world.stage.now,
                      None, token)  # fmt: skip
        observer.begin(start)
        how = "stops"
        try:
            yield
            how = "succeeds"
        finally:
            observer.end(start, how)

    # ---- the end

    def note(self, plan: TaskPlan) -> None:
        for feature in sorted(features(plan, parse_graph(plan.graph))):
            self.world.stage.count(f"graphs with {feature}")

    async def judge(self) -> None:
        """Waits until all is quiet."""
        await self.onlooker.leaks()
        data = self.world.replica.majority.data
        for task_id, streams in data.blocks.items():
            for stream, blocks in streams.items():
                for what in judge_blocks(blocks):
                    self.world.observer.say("stream_broken", task_id, f"{stream.node}: {what}")
        for chain in data.commits.values():
            for commit in chain.values():
                for fact in decode_facts(commit.body) if not is_tombstone(commit) else ():
                    self._count(fact)

    def _count(self, fact: f.Fact) -> None:
        match fact:
            case f.NodeFinished(cached=True):
                self.world.stage.count("outputs kept")
            case f.AttemptSucceeded(next=chosen) if chosen is not None:
                self.world.stage.count("successors chosen")
            case f.StreamBegun():
                self.world.stage.count("streams begun")
            case f.UndoBegan():
                self.world.stage.count("tasks undone")
