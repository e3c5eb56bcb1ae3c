"""The random play of a seed: users who submit tasks and steer them, and handlers that run, fail and pause."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Coroutine
from functools import partial
from operator import methodcaller
from typing import Any

from flowkit.coordinator.watch import STREAMED
from flowkit.core.derived import base_of
from flowkit.core.opening import child_id
from flowkit.errors import (
    BusUnavailable,
    Corrupt,
    FlowNotFound,
    GraphError,
    RequestRefused,
    Retry,
    StoreUnavailable,
    TaskNotFound,
)
from flowkit.testing.directed import DIRECTED
from flowkit.testing.evidence import Asked, Start
from flowkit.testing.faults import plan_faults
from flowkit.testing.rich import continued, may_be_late, rich
from flowkit.testing.riches import Riches
from flowkit.testing.scenario import CHANGES, ROLE, TaskPlan, fits, plan_task, value_of
from flowkit.testing.world import ProcessDied, Report, World
from flowkit.wire.codec import loads
from flowkit.worker.results import Next

TASKS = 3
GIVES_UP = 0.1
ALL_CHANGES = {**CHANGES, "continued": continued, "rich": rich}
PATIENCE_SEC = 300.0


def simulate(
    seed: int,
    mode: str = "chaos",
    *,
    without: Collection[str] = (),
    directed: Collection[str] = (),
    trace: bool = False,
) -> Report:
    """Run one seed's world to its end and judge it. `without` are guards that the simulated store leaves out."""
    world = World(seed, mode=mode, without=without, trace=trace, patience_sec=PATIENCE_SEC)
    for name in directed:
        DIRECTED[name](world)
    return RandomPlay(world).run()


class RandomPlay:
    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.stage.plan
        steered = world.stage.mode in ("chaos", "calm")
        self.plans = {
            plan.key: plan for plan in (plan_task(self.dice, number, steered=steered) for number in range(TASKS))
        }
        for change in (ALL_CHANGES[name] for name in sorted(world.stage.wanted)):
            self.plans = {key: change(plan, self.dice) for key, plan in self.plans.items()}
        self._runs = 0
        self._failed: Counter[str] = Counter()
        self._paused: set[str] = set()
        world.handlers[ROLE] = self.work
        self._riches = Riches(world) if "rich" in world.stage.wanted else None

    def run(self) -> Report:
        return self.world.run(self._play, fits=fits, may_fail=self._may_fail)

    async def _play(self, world: World) -> None:
        plan_faults(world)
        users = []
        for plan in self.plans.values():
            dice = random.Random(self.dice.random())  # noqa: S311
            users.append(self._user(plan, dice))
        await asyncio.gather(*users)
        if self._riches is not None:
            await self._riches.judge()

    def _may_fail(self, task_id: str, node: str) -> bool:
        plan = self.plans[loads(self.world.replica.majority.data.heads[task_id].params)["plan"]]
        return plan.behaviour[base_of(node)].may_fail

    # ---- what a node does

    async def work(self, inputs: Any, ctx: Any) -> Any:
        stage, observer = self.world.stage, self.world.observer
        behaviour = self.plans[ctx.params["plan"]].behaviour[base_of(ctx.node_id)]
        key = ctx.idempotency_key
        token = ctx._attempt.token  # handlers do not see it: here it tells one lease from another
        start = Start(ctx.task_id, ctx.node_id, ctx.attempt, key, ctx.worker_id, stage.now, None, token, inputs)
        observer.begin(start)
        how = "stops"
        try:
            await asyncio.sleep(behaviour.seconds * stage.dice.uniform(0.8, 1.2))
            how = "fails"
            if behaviour.pause and key not in self._paused:
                self._paused.add(key)
                raise Retry("not yet", after_sec=behaviour.pause)
            if self._failed[key] < behaviour.fails:
                self._failed[key] += 1
                raise RuntimeError("as planned")
            how = "succeeds"
            self._runs += 1
            start.output = {"value": value_of(ctx.node_id, inputs), "run": self._runs}
            chosen = self.plans[ctx.params["plan"]].chosen.get(ctx.node_id)
            return start.output if chosen is None else Next(chosen, start.output)
        finally:
            observer.end(start, how)

    # ---- what a user does

    async def _user(self, plan: TaskPlan, dice: random.Random) -> None:
        await asyncio.sleep(plan.at)
        ids = await asyncio.gather(*(self._submit(plan, dice) for _ in range(1 + plan.twice)))
        accepted = sorted({task_id for task_id in ids if task_id is not None})
        if len(accepted) > 1:
            self.world.observer.say("key_gave_two", accepted[0], f"the same key also gave {accepted[1]}")
        if not accepted:
            return
        self.world.accepted[accepted[0]] = self.world.stage.now
        if self._riches is not None:
            self._riches.note(plan)
        self.world.stage.note("ACCEPTED", plan.key, accepted[0][:8])
        steering, listening = self._steer(plan, accepted[0], dice), self._listen(plan, accepted[0], dice)
        await asyncio.gather(*(self._while_readable(accepted[0], doing) for doing in (steering, listening)))

    async def _while_readable(self, task_id: str, doing: Coroutine[Any, Any, None]) -> None:
        """A user who is told that a task cannot be read complains, and gives up."""
        try:
            await doing
        except Corrupt as error:
            self.world.observer.say("quarantined", task_id, error)

    async def _steer(self, plan: TaskPlan, task_id: str, dice: random.Random) -> None:
        for kind, gap in plan.steps:
            await asyncio.sleep(gap)
            await self._ask(task_id, kind, dice)

    async def _listen(self, plan: TaskPlan, task_id: str, dice: random.Random) -> None:
        """Wait for the end, or watch every event; again from there where the API could not answer."""
        seen = 0
        while plan.listen:
            machine = dice.choice(self.world.apis)
            try:
                if plan.listen == "wait":
                    result = await self.world.ask(methodcaller("wait", task_id), machine=machine)
                    self.world.stage.note("WAITED", task_id[:8], result.status)
                else:
                    watching = partial(self._watch, task_id=task_id, since=seen)
                    seen = await self.world.ask(watching, machine=machine)
                return
            except (StoreUnavailable, BusUnavailable, ProcessDied, TaskNotFound):
                self.world.stage.count("api_unavailable")
                await asyncio.sleep(0.3)

    async def _watch(self, api: Any, task_id: str, since: int) -> int:
        seqs: list[int] = []
        async for event in api.watch(task_id, since=since):
            if event.type == STREAMED:
                continue
            if not seqs or event.seq != seqs[-1]:
                seqs.append(event.seq)
        if seqs != list(range(since + 1, since + 1 + len(seqs))):
            self.world.observer.say("watch_gap", task_id, f"after {since} came {seqs}")
        self.world.stage.note("WATCHED", task_id[:8], len(seqs))
        return since + len(seqs)

    async def _submit(self, plan: TaskPlan, dice: random.Random) -> str | None:
        from flowkit.coordinator.creation import Creation

        what = {"flow": plan.flow} if plan.flow else {"graph": plan.graph}
        key = f"{self.world.stage.seed}/{plan.key}"
        creation = Creation(**what, params=plan.params, idempotency_key=key, priority=plan.priority)
        while True:
            machine = dice.choice(self.world.apis)
            try:
                for name, graph in plan.flows.items():
                    await self.world.ask(partial(_put, name=name, graph=graph), machine=machine)
                [task_id] = await self.world.ask(lambda api: api.create([creation]), machine=machine)
                return str(task_id)
            except (StoreUnavailable, BusUnavailable, ProcessDied, FlowNotFound):  # a late read may not see it yet
                self.world.stage.count("api_unavailable")
            except GraphError:  # its deadline has passed before anybody took it
                if not may_be_late(plan.graph):
                    raise
                self.world.stage.count("api_too_late")
                return None
            if self.world.stage.storm and dice.random() < GIVES_UP:
                return None
            await asyncio.sleep(0.3)

    async def _ask(self, task_id: str, kind: str, dice: random.Random) -> None:
        method, options = _call(kind, dice)
        if kind == "restart_child":  # behind its parent's back
            task_id = child_id(task_id, dice.choice(("child", "child[0]")), dice.choice((1, 1, 2)))
        while True:
            machine, said = dice.choice(self.world.apis), "done"
            try:
                if await self.world.ask(methodcaller(method, task_id, **options), machine=machine) is False:
                    said = "not found"
            except RequestRefused:
                said = "refused"
            except TaskNotFound:
                said = "not found"
            except (StoreUnavailable, BusUnavailable, ProcessDied):
                said = "unavailable"
            self.world.stage.count(f"api_{said.replace(' ', '_')}")
            if said == "not found" and kind == "restart_child":
                return  # there may never be one
            if said in ("done", "refused"):  # refused by the coordinator: it was applied, with that answer
                request = self.world.stores[machine.name].requested[task_id]
                self.world.asked.append(Asked(task_id, request.id, kind))
                self.world.stage.note("ASKED", kind, task_id[:8], said)
                return
            await asyncio.sleep(0.3)


async def _put(api: Any, name: str, graph: Any) -> None:
    await api.flows.put(name, graph)


def _call(kind: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    """The API's method for a step, and its options."""
    match kind:
        case "cancel":
            return "cancel", {"grace_sec": dice.choice((2.0, 30.0))}
        case "cancel_node":
            return "cancel", {"grace_sec": 5.0, "node_id": dice.choice(("n0", "n1"))}
        case "signal":
            return "signal", {"name": "go", "payload": {"by": "ada"}}
        case "restart_failed" | "restart_child":
            return "restart", {"failed_only": True}
        case "restart_from":
            return "restart", {"from_node": dice.choice(("n0", "n1"))}
    return kind, {}
