"""A world whose tasks share limits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from flowkit.coordinator.creation import Creation
from flowkit.core.graph import Limit
from flowkit.core.permits import need_of, needs_of
from flowkit.errors import BusUnavailable, Permanent, RequestRefused, StoreUnavailable, TaskNotFound
from flowkit.testing import World
from flowkit.testing.evidence import Start
from flowkit.testing.faults import plan_faults
from flowkit.testing.onlooker import Onlooker
from flowkit.testing.world import ProcessDied, Report

PATIENCE_SEC = 600.0


class LimitedPlay:
    """`tasks` of a chain and a fan, all under one limit of 3, and parts of them under others. Some are cancelled,
    paused, restarted. `seconds` is how long a node runs."""

    def __init__(self, seed: int, mode: str, *, tasks: int = 14, seconds: float = 0.6, most: int = 3,
                 steered: bool = True, without: Collection[str] = (), trace: bool = False,
                 bounds: Mapping[str, int] | None = None) -> None:  # fmt: skip
        self.world = World(seed, mode=mode, without=without, trace=trace, patience_sec=PATIENCE_SEC)
        self.world.settings["limits"] = dict(bounds or {})
        self.onlooker = Onlooker(self.world)
        self.dice = self.world.stage.plan
        self.tasks, self.seconds, self.most, self.steered = tasks, seconds, most, steered
        self.shared = need_of(Limit("shared", most), "", {}).limit_id
        self.running: Counter[str] = Counter()
        self.peak = 0
        self.world.handlers |= {"work": self.work, "doom": self.doom}

    def run(self) -> Report:
        return self.world.run(self.play)

    def graph(self, dice: random.Random) -> dict[str, Any]:
        shared = {"key": "shared", "max": self.most}
        pair = {"key": "pair:{params.who}", "max": 4, "weight": 2}
        own = {"key": "own:{tenant}", "max": 5}
        rate = {"key": "rate", "rate": 20, "per_sec": 1, "burst": 2}
        wanted = [[shared], [shared, pair], [pair, shared, own], [shared, rate], []]
        nodes = [
            {"node_id": f"n{n}", "type": "work", "limits": dice.choice(wanted), "retry_policy": {"lost_max": 100}}
            for n in range(dice.randint(1, 4))
        ]
        edges = [[f"n{n - 1}", f"n{n}"] for n in range(1, len(nodes)) if dice.random() < 0.5]
        match dice.randrange(4):
            case 0:
                nodes[-1] |= {"foreach": [1, 2, 3], "inputs": {}}
            case 1:
                nodes[0] |= {"compensate": {"type": "work", "limits": [shared]}}
                nodes.append({"node_id": "doom", "type": "doom", "retry_policy": {"max": 1}, "limits": [own]})
        return {"nodes": nodes, "edges": edges}

    async def play(self, world: World) -> None:
        plan_faults(world)
        users = []
        for number in range(self.tasks):
            dice = random.Random(self.dice.random())
            users.append(self.user(number, self.graph(dice), dice))
        await asyncio.gather(*users)
        await self.onlooker.leaks()

    async def user(self, number: int, graph: dict[str, Any], dice: random.Random) -> None:
        await asyncio.sleep(dice.uniform(0, 25 if self.world.stage.mode != "calm" else 3))
        creation = Creation(graph=graph, params={"who": dice.choice("ab")}, idempotency_key=f"k{number}",
                            priority=dice.choice((0, 0, 5)))  # fmt: skip
        [task_id] = await self.ask("create", dice, [creation])
        self.world.accepted[task_id] = self.world.stage.now
        if not self.steered:
            return
        match dice.randrange(6):
            case 0:
                await asyncio.sleep(dice.uniform(0, 4))
                await self.ask("cancel", dice, task_id, grace_sec=2.0)
                await self.ask("restart", dice, task_id)
            case 1:
                await asyncio.sleep(dice.uniform(0, 4))
                await self.ask("pause", dice, task_id)
                await asyncio.sleep(dice.uniform(0, 12))
                await self.ask("resume", dice, task_id)

    async def ask(self, method: str, dice: random.Random, *arguments: Any, **options: Any) -> Any:
        while True:
            try:
                machine = dice.choice(self.world.apis)
                return await self.world.ask(lambda api: getattr(api, method)(*arguments, **options), machine=machine)
            except RequestRefused:
                return None
            except (StoreUnavailable, BusUnavailable, ProcessDied, TaskNotFound):  # a server may lag behind a fail-over
                await asyncio.sleep(0.3)

    async def doom(self, inputs: Any, ctx: Any) -> Any:
        await self.work(inputs, ctx)
        raise Permanent("doomed")

    async def work(self, inputs: Any, ctx: Any) -> Any:
        observer = self.world.observer
        start = Start(ctx.task_id, ctx.node_id, ctx.attempt, ctx.idempotency_key, ctx.worker_id, self.world.stage.now,
                      None, ctx._attempt.token)  # fmt: skip
        observer.begin(start)
        task = self.world.new_task(ctx.task_id)
        assert task is not None
        shared = any(need.key == "shared" for need in needs_of(task, ctx.node_id))
        how = "stops"
        self.running["shared"] += shared
        self.peak = max(self.peak, self.running["shared"])
        try:
            await asyncio.sleep(self.seconds * self.world.stage.dice.uniform(0.5, 1.5))
            how = "succeeds"
            start.output = ctx.node_id
            return start.output
        finally:
            self.running["shared"] -= shared
            observer.end(start, how)
