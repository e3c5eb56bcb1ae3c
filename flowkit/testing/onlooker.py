"""Counts what is leased of each limit at every moment: never more than there is, and in the end nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from flowkit.core.bounds import UNBOUNDED
from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.core.permits import Claim, claim_of, needs_of, over
from flowkit.testing.replica import Write
from flowkit.wire.facts import decode_facts
from flowkit.wire.limits import decode_limiter
from flowkit.wire.tombstone import is_tombstone

if TYPE_CHECKING:
    from flowkit.testing.world import World

LEAK_SEC = 120
"""So long after the end of all tasks a permit may still be held by one that nobody has asked after."""


class Onlooker:
    """Folds every commit at the moment at which a majority holds it, and adds up who holds what. `most` is how much of
    each limit was held at the worst moment, `leases` how many there were of any node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[str, Task] = {}
        self.held: dict[str, dict[tuple[str, str], int]] = {}
        self.most: Counter[str] = Counter()
        self.claims: dict[str, dict[tuple[str, Claim], bool]] = {}
        self.leases = 0
        world.replica.on_majority = self.see

    async def leaks(self) -> None:
        """Once all is quiet, whoever holds a permit still, some time later, has leaked it."""
        while not self.world.quiet():
            await asyncio.sleep(1.0)
        for _ in range(LEAK_SEC):
            if not self.world.replica.majority.data.limits:
                return
            await asyncio.sleep(1.0)
        for record in self.world.replica.majority.data.limits.values():
            self.world.observer.say("permit_leaked", record.limit_id, record.body)

    def see(self, write: Write) -> None:
        if (commit := write.commit) is None or is_tombstone(commit):
            return
        task = self.tasks.get(commit.task_id)
        if task is None:
            task = self.world.new_task(commit.task_id)
            if task is None:
                raise LookupError(f"task {commit.task_id} has a commit, and no head")
            self.tasks[commit.task_id] = task
            self.claims[commit.task_id] = {}
        before = {name: task.runs[name].attempt for name in task.leased}
        for fact in decode_facts(commit.body):
            evolve(task, fact, commit.at)
        if task.graph.limited or task.bounds is not UNBOUNDED:
            self.look(task)
        after = {name: task.runs[name].attempt for name in task.leased}
        for name in before:
            if after.get(name) != before[name]:
                for held in self.held.values():
                    held.pop((commit.task_id, name), None)
        for name in after:
            if before.get(name) != after[name]:
                self.leased(task, name)

    def leased(self, task: Task, name: str) -> None:
        """At the moment of the lease the record of each limit names it as a holder."""
        self.leases += 1
        claim = claim_of(task, task.runs[name])
        for need in needs_of(task, name):
            record = self.world.replica.majority.data.limits.get(need.limit_id)
            holders = {} if record is None else decode_limiter(record.body, 0.0).holders
            if (task.task_id, name, claim) not in holders:
                self.world.observer.say("lease_without_permit", task.task_id, f"{name} {claim} {need}")
            if need.limit.most is not None:
                self.hold(need.limit_id, need.limit.most, (task.task_id, name), need.limit.weight)

    def look(self, task: Task) -> None:
        """What is over stays over."""
        claims = self.claims[task.task_id]
        for name in (*task.gated, *task.leased):
            claims.setdefault((name, claim_of(task, task.runs[name])), False)
        for (name, claim), was_over in claims.items():
            is_over = over(task, name, claim, "limit:")
            if was_over and not is_over:
                self.world.observer.say("claim_came_back", task.task_id, f"{name} {claim}")
            claims[name, claim] = is_over

    def hold(self, limit_id: str, most: int, who: tuple[str, str], weight: int) -> None:
        held = self.held.setdefault(limit_id, {})
        held[who] = weight
        total = sum(held.values())
        self.most[limit_id] = max(self.most[limit_id], total)
        if total > most:
            self.world.observer.say("over_limit", who[0], f"{total} of {most} are held: {sorted(held)}")
