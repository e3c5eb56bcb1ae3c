"""Deletions in simulated weather: whoever dies in the middle of one, no task is ever seen that is not whole, what was
restarted in time is kept, and in the end nothing is left of what was deleted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from operator import methodcaller
from typing import Any

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.coordinator import deletion, lives, retention
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.deletion import Deletion
from flowkit.errors import BusUnavailable, Corrupt, RequestRefused, StoreUnavailable, TaskNotFound
from flowkit.ports import DELETED
from flowkit.testing import World
from flowkit.testing.evidence import Asked, Start
from flowkit.testing.faults import plan_faults
from flowkit.testing.machine import Machine
from flowkit.testing.replica import Write
from flowkit.testing.store import FaultyStore
from flowkit.testing.world import ProcessDied, Report

AWAY = (StoreUnavailable, BusUnavailable, ProcessDied)
# Longer than anything stands still here; the simulated store tells nobody that his time is over.
GRACE_SEC = 60.0
LOOK_SEC = 5.0
STALE_SEC = 3.5
USERS = 5
GRAPH: dict[str, Any] = {
    "nodes": [
        {"node_id": "a", "type": "work", "retry_policy": {"max": 3, "backoff_sec": 0.5, "lost_max": 100}},
        {"node_id": "b", "type": "work", "depends_on": ["a"], "retry_policy": {"max": 3, "lost_max": 100}},
    ]
}
DELETING = ("schedule_removal", "insert_commits", "update_heads")
REMOVING = ("delete_history", "collect_artifacts", "delete_heads")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deletion, lives):
        monkeypatch.setattr(module, "GRACE_SEC", GRACE_SEC)
    monkeypatch.setattr(retention, "LOOK_SEC", LOOK_SEC)
    monkeypatch.setattr(retention, "SHARE", 0.5)


def dies_deleting(world: World) -> None:
    """Whoever deletes dies now and then, before or after a write of it, or with half of the history gone. What is left
    is removed when the storm is over: there the deaths are counted."""
    stage, lives = world.stage, {name: 2 for name in REMOVING}

    async def die(machine: Machine, what: str) -> None:
        stage.count(f"died_{what}")
        machine.crash(stage.dice.uniform(0.5, 8))
        await stage.loop.create_future()

    def boot(machine: Machine, runtime: Any, store: FaultyStore) -> None:
        def mortal(name: str) -> None:
            write = getattr(store, name)

            async def do(*args: Any, **more: Any) -> Any:
                if name in lives and lives[name] and stage.dice.random() < 0.5:
                    lives[name] -= 1
                elif name in lives or not _deletes(name, args) or not stage.chance(0.3):
                    return await write(*args, **more)
                way = stage.dice.choice(("before", "after", "half"))
                if way == "half" and name == "delete_history":
                    await store._write([Write(_half_of(args[0]), (), removes=tuple(args[0]))])
                elif way != "before":
                    await write(*args, **more)
                await die(machine, f"{way}_{name}")

            setattr(store, name, do)

        for name in (*DELETING, *REMOVING):
            mortal(name)

    world.on_boot.append(boot)


def _deletes(name: str, args: tuple[Any, ...]) -> bool:
    match name:
        case "insert_commits":
            return any("deleted" in commit.body for commit in args[0])
        case "update_heads":
            return any(update.status == DELETED for update in args[0])
    return True


def _half_of(task_ids: Any) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def remove(store: Any) -> None:
        for task_id in task_ids:
            commits = store.data.commits.get(task_id, {})
            for seq in list(commits)[::2]:
                del commits[seq]

    return remove


class Play:
    """Users who create tasks, delete them, run them again, or both at once. `gone` are the tasks of which somebody was
    told that they are deleted; `asked` those that somebody asked to delete."""

    def __init__(self, seed: int, mode: str = "chaos", **settings: Any) -> None:
        self.world = World(seed, mode=mode, patience_sec=2000.0)
        self.world.settings |= settings
        self.world.handlers["work"] = self.work
        self.dice = self.world.stage.plan
        self.gone: dict[str, float] = {}
        self.asked: set[str] = set()
        self.ids: dict[int, list[str]] = {}

    def run(self) -> Report:
        return self.world.run(self._play)

    async def _play(self, world: World) -> None:
        plan_faults(world)
        await asyncio.gather(*(self._user(number) for number in range(USERS)))
        await asyncio.sleep(max(0.0, world.heal_at - world.stage.now) + 1.0)
        await self._look_at_all()
        await asyncio.sleep(2 * GRACE_SEC + 8 * LOOK_SEC)
        self._nothing_is_left()
        await self._look_at_all()

    async def work(self, ctx: Any) -> str:
        stage, observer = self.world.stage, self.world.observer
        start = Start(ctx.task_id, ctx.node_id, ctx.attempt, ctx.idempotency_key, ctx.worker_id, stage.now, None,
                      ctx._attempt.token)  # fmt: skip
        observer.begin(start)
        how = "stops"
        try:
            await asyncio.sleep(stage.dice.uniform(0.05, 1.5))
            how = "succeeds"
            return ctx.node_id * 60_000  # tasks share what they give
        finally:
            observer.end(start, how)

    # ---- users

    async def _user(self, number: int) -> None:
        dice = random.Random(self.dice.random())
        await asyncio.sleep(dice.uniform(0, 3))
        while self.world.stage.now < self.world.heal_at - 3:
            task_id = await self._submit(number, dice)
            if not await self._ended(task_id, dice):
                continue
            match dice.choice(("delete", "delete", "twice", "restart", "both", "leave")):
                case "delete":
                    await self._delete(task_id, dice)
                case "twice":
                    await asyncio.gather(*(self._delete(task_id, dice) for _ in range(2)))
                case "restart":
                    await self._restart(task_id, dice)
                case "both":
                    await asyncio.gather(self._delete(task_id, dice), self._restart(task_id, dice))
                case _:
                    await asyncio.sleep(dice.uniform(1, 5))

    async def _api(self, call: Any, dice: random.Random, *, once: bool = False) -> Any:
        while True:
            try:
                return await self.world.ask(call, machine=dice.choice(self.world.apis))
            except AWAY:
                if once:
                    raise
                await asyncio.sleep(0.3)

    async def _submit(self, number: int, dice: random.Random) -> str:
        creation = Creation(graph=GRAPH, idempotency_key=f"user-{number}")
        at = self.world.stage.now
        (task_id,) = await self._api(methodcaller("create", [creation]), dice)
        seen = self.ids.setdefault(number, [])
        if seen and task_id != seen[-1] and seen[-1] not in self.asked and not self._may_expire:
            self.world.observer.say("key_gave_two", task_id, f"the same key also gave {seen[-1]}")
        if self.gone.get(task_id, at) < at - STALE_SEC:
            self.world.observer.say("key_gave_two", task_id, "a key gave a task that had been deleted")
        if task_id not in seen:
            seen.append(task_id)
        self.world.accepted.setdefault(task_id, at)
        return str(task_id)

    async def _ended(self, task_id: str, dice: random.Random) -> bool:
        """Wait for its end; False if it is deleted meanwhile."""
        try:
            await self._api(methodcaller("wait", task_id), dice)
        except TaskNotFound:
            return False
        except Corrupt as error:
            self.world.observer.say("quarantined", task_id, error)
        await asyncio.sleep(dice.uniform(0, 3))
        return True

    async def _delete(self, task_id: str, dice: random.Random) -> None:
        self.asked.add(task_id)
        try:
            if await self._api(methodcaller("delete", task_id), dice) is False:
                return  # deleted by another, or by a try of this one that was not answered
        except RequestRefused:
            self.world.stage.count("refused_delete")
            return
        self.gone[task_id] = self.world.stage.now
        self.world.stage.count("deleted")
        await asyncio.sleep(STALE_SEC)
        try:
            await self._api(methodcaller("get", task_id), dice)
            self.world.observer.say("commit_after_deletion", task_id, "it was seen after it had been deleted")
        except TaskNotFound:
            pass

    async def _restart(self, task_id: str, dice: random.Random) -> None:
        machine = dice.choice(self.world.apis)
        try:
            applied = await self.world.ask(methodcaller("restart", task_id), machine=machine)
        except AWAY:
            return
        except (RequestRefused, TaskNotFound) as error:
            self.world.stage.count(f"restart_{type(error).__name__}")
            return
        if applied:
            self.world.stage.count("restarted")
            request = self.world.stores[machine.name].requested[task_id]
            self.world.asked.append(Asked(task_id, request.id, "restart"))

    # ---- the end

    @property
    def _may_expire(self) -> bool:
        return "retention_sec" in self.world.settings

    async def _look_at_all(self) -> None:
        """What was not deleted is there, with all that it gave; what was deleted is not, for anybody."""
        for task_id in sorted(self.world.accepted):
            for machine in self.world.apis:
                try:
                    result = await self.world.ask(methodcaller("wait", task_id, 300), machine=machine)
                except TaskNotFound:
                    if task_id not in self.asked and not self._may_expire:
                        self.world.observer.say("accepted_task_lost", task_id, "nobody had deleted it")
                    continue
                except Corrupt as error:
                    self.world.observer.say("wrong_value", task_id, error)
                    continue
                if task_id in self.gone:
                    self.world.observer.say("commit_after_deletion", task_id, "it is there though it was deleted")
                if {name: len(output) for name, output in result.outputs.items()} != {"a": 60_000, "b": 60_000}:
                    self.world.observer.say("wrong_value", task_id, f"its outputs: {sorted(result.outputs)}")

    def _nothing_is_left(self) -> None:
        data = self.world.replica.majority.data
        later = {head.task_id for head in data.heads.values() if head.status == DELETED and head.life}
        for task_id in self.gone:
            left = [
                name
                for name, there in (
                    ("head", task_id in data.heads and task_id not in later),
                    ("commits", bool(data.commits.get(task_id))),
                    ("requests", bool(data.requests.get(task_id))),
                    ("artifacts", bool(data.artifacts_of.get(task_id))),
                )
                if there
            ]
            if left:
                self.world.observer.say("head_wrong", task_id, f"what is left of it: {', '.join(left)}")
        alive = {task for tasks in data.claims.values() for task in tasks}
        kept = {ref for kind, ref in data.blobs if kind == "artifact"}
        if kept != set(data.claims) or not alive <= set(data.heads):
            self.world.observer.say("head_wrong", "", f"artifacts of {sorted(alive - set(data.heads))} are left")


def assert_good(report: Report) -> None:
    said = "\n".join(map(str, report.violations))
    assert not report.violations, f"seed {report.seed}, {report.mode}:\n{said}"


@pytest.mark.timeout(240)
def test_whoever_dies_in_the_middle_of_a_deletion_leaves_nothing_half_done() -> None:
    counts: dict[str, int] = {}
    for seed in range(12):
        play = Play(seed)
        dies_deleting(play.world)
        report = play.run()
        assert_good(report)
        for name, count in report.counts.items():
            counts[name] = counts.get(name, 0) + count
    assert counts["deleted"] > 30
    assert counts["restarted"] > 10
    for name in (*DELETING, *REMOVING):
        assert any(counts.get(f"died_{way}_{name}") for way in ("before", "after", "half")), f"nobody died at {name}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mode", ["chaos", "ccrash", "outage"])
def test_tasks_that_expire_while_users_run_them_again_are_gone_or_whole(mode: str) -> None:
    expired = 0
    for seed in range(100, 106):
        play = Play(seed, mode, retention_sec=4.0)
        report = play.run()
        assert_good(report)
        expired += report.counts["TasksDeleted"]
    assert expired > 10


@pytest.mark.timeout(240)
def test_in_calm_weather_too() -> None:
    for seed in range(3):
        assert_good(Play(seed, "ccrash").run())


# The checks have teeth.

_put_blob = MemoryStore.put_blob


async def _without_tombstone(self: Deletion, heads: Any) -> list[Any]:
    """The head is trusted."""
    await self._store.update_heads([self._mark(head, head.seq + 1) for head in heads])
    return list(heads)


async def _without_asking(self: Any, ref: str, data: bytes, *, kind: str, for_task: str = "", **more: Any) -> None:
    """Artifacts belong to whoever put them first."""
    if kind == "artifact" and ref in self.data.claims:
        return
    await _put_blob(self, ref, data, kind=kind, for_task=for_task, **more)


def found(wanted: str, seeds: int, **settings: Any) -> bool:
    """Whether this kind of violation is found within so many seeds."""
    for seed in range(seeds):
        play = Play(seed, **settings)
        dies_deleting(play.world)
        if wanted in {violation.kind for violation in play.run().violations}:
            return True
    return False


@pytest.mark.timeout(240)
def test_without_a_tombstone_restarts_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deletion, "_bury", _without_tombstone)

    assert found("request_lost", 60, retention_sec=2.0)


@pytest.mark.timeout(240)
def test_without_a_while_for_those_who_stood_still_deleted_tasks_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deletion, lives):
        monkeypatch.setattr(module, "GRACE_SEC", 0.0)
    monkeypatch.setattr(retention, "LOOK_SEC", 0.5)

    assert found("commit_after_deletion", 60, retention_sec=0.5)


@pytest.mark.timeout(240)
def test_artifacts_that_go_with_the_first_who_put_them_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "put_blob", _without_asking)

    assert found("wrong_value", 20)
