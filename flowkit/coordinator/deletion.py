"""Deletes tasks that have ended. A tombstone ends the history, by the very insert that any decision would need; then
the head says so; and once nobody can be under way any more who read the task before, what is left of it is removed.

Every step can be done again, by anybody, and whoever dies leaves a head from which the rest is found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from flowkit.coordinator.ids import id_of_life
from flowkit.ports import DELETED, Clock, Commit, Head, HeadFilter, HeadUpdate, Outcome, Removal, Store
from flowkit.wire.tombstone import is_tombstone, tombstone

GRACE_SEC: Final = 600.0
"""So long the commits of a deleted task keep their places taken. Every operation on the store is over within seconds,
and a process that was frozen for as long as this is told so by its timeouts."""
HINT_SEC: Final = 30.0
"""After this, a deletion that was begun and not finished is finished by the owner of the task."""
POINTER_SEC: Final = 86_400.0
"""How often it is looked whether the key of a deleted task has a living one."""
PAGE: Final = 500
AT_ONCE: Final = 200

Tell = Callable[[Sequence[tuple[Head, Commit]]], Awaitable[None]]


async def tell_nobody(deleted: Sequence[tuple[Head, Commit]]) -> None:
    """For whoever has nobody to tell."""


class Deletion:
    """`by` names who deletes, in the tombstone. `tell` hears of the tasks that were deleted here, with their
    tombstones; it must not raise."""

    def __init__(self, store: Store, clock: Clock, by: str, tell: Tell = tell_nobody) -> None:
        self._store = store
        self._clock = clock
        self._by = by
        self._tell = tell

    # ------------------------------------------------------------------------------------------ so that nobody sees it

    async def announce(self, head: Head) -> Head | None:
        """Note in the head that its task is being deleted; None where the head has moved. Raises `StoreUnavailable`."""
        if head.remove_at is not None:
            return head
        at = self._clock.wall() + HINT_SEC
        noted = await self._store.schedule_removal(Removal(head, at, head.life)) is Outcome.OK
        return replace(head, remove_at=at) if noted else None

    async def take_back(self, head: Head) -> None:
        """The task lives on."""
        await self._store.schedule_removal(Removal(head, None, head.life))

    async def bury(self, heads: Sequence[Head]) -> list[Head]:
        """Delete tasks of which the commits up to the head's `seq` say that they have ended, if nothing was committed
        since. Gives those that are deleted for sure, and whose heads say so. Raises `StoreUnavailable`."""
        dead: list[Head] = []
        for start in range(0, len(heads), AT_ONCE):
            dead += await self._bury(heads[start : start + AT_ONCE])
        return dead

    async def _bury(self, heads: Sequence[Head]) -> list[Head]:
        now = self._clock.wall()
        stones = [tombstone(head.task_id, head.seq + 1, at=now, by=self._by) for head in heads]
        outcomes = await self._store.insert_commits(stones)
        ends: dict[str, Commit] = {}
        for head, stone, outcome in zip(heads, stones, outcomes, strict=True):
            if outcome is Outcome.OK:
                ends[head.task_id] = stone
            elif (end := await self._end_of(head)) is not None:
                ends[head.task_id] = end
        dead = [head for head in heads if head.task_id in ends]
        if not dead:
            return []
        mine = {stone.id for stone in stones}
        await self._tell([(head, ends[head.task_id]) for head in dead if ends[head.task_id].id in mine])
        outcomes = await self._store.update_heads([self._mark(head, ends[head.task_id].seq) for head in dead])
        doubtful = [h.task_id for h, outcome in zip(dead, outcomes, strict=True) if outcome is not Outcome.OK]
        if doubtful:
            marked = {head.task_id for head in await self._store.read_heads(doubtful) if head.status == DELETED}
            dead = [head for head in dead if head.task_id in marked or head.task_id not in doubtful]
        return dead

    async def was_begun(self, head: Head) -> bool:
        """Whether somebody has begun to delete the task, though its head is none of a deleted one yet."""
        return head.remove_at is not None or (not head.active and await self._end_of(head) is not None)

    async def finish(self, head: Head) -> None:
        """A deletion that was begun is done, or called off where its task lives on. Raises `StoreUnavailable`."""
        lives = await self._end_of(head) is None and (head.active or _any_active(await self.family(head)))
        if not lives:
            lives = not await self.bury([head]) and await self.has_moved(head)
        if lives:
            await self.take_back(head)

    async def has_moved(self, head: Head) -> bool:
        """Whether something was decided about the task since, and nobody has deleted it."""
        commits = await self._store.read_commits([head.task_id], after=head.seq)
        return bool(commits) and not is_tombstone(commits[-1])

    async def _end_of(self, head: Head) -> Commit | None:
        """The tombstone, if there is one: another's, or one's own of before."""
        commits = await self._store.read_commits([head.task_id], after=head.seq)
        return commits[-1] if commits and is_tombstone(commits[-1]) else None

    def _mark(self, head: Head, seq: int) -> HeadUpdate:
        now = self._clock.wall()
        return HeadUpdate(
            task_id=head.task_id,
            status=DELETED,
            seq=seq,
            published_seq=seq,
            active=False,
            next_wake=None,
            updated_at=now,
            ended_at=head.ended_at,
            error=head.error,
            snapshot=head.snapshot,
            remove_at=now + GRACE_SEC,
        )

    # ------------------------------------------------------------------------------------------ so that nothing is left

    async def remove(self, heads: Sequence[Head]) -> list[Head]:
        """Remove what is left of these tasks, whose time has come. Gives those of which nothing is left. Raises
        `StoreUnavailable`."""
        for head in heads:
            if head.status != DELETED:
                await self.finish(head)
        alone = await self._without_family([head for head in heads if head.status == DELETED])
        ids = [head.task_id for head in alone]
        if not ids or await self.purge(ids) is not Outcome.OK:
            return []
        last = [head for head in alone if not await self._is_counted_on(head)]
        return last if await self._store.delete_heads(last) is Outcome.OK else []

    async def purge(self, task_ids: Sequence[str]) -> Outcome:
        """Remove all but the heads."""
        outcome = await self._store.delete_history(task_ids)
        return await self._store.collect_artifacts(task_ids) if outcome is Outcome.OK else outcome

    async def _without_family(self, heads: Sequence[Head]) -> list[Head]:
        """Those without living children; children that were forgotten are deleted now, and their parents wait."""
        parents = await self._store.parents_among([head.task_id for head in heads])
        alone = []
        for head in heads:
            family = await self.family(head) if head.task_id in parents else []
            if not family:
                alone.append(head)
                continue
            await self.bury([one for one in family if not one.active])
            await self._store.schedule_removal(Removal(head, self._clock.wall() + GRACE_SEC, head.life))
        return alone

    async def _is_counted_on(self, head: Head) -> bool:
        """Whether a later task of its idempotency key is found by this head: then the head stays, and nothing else."""
        if head.life == 0 or not await self._store.read_heads([id_of_life(head.task_id, head.life)]):
            return False
        await self._store.schedule_removal(Removal(head, self._clock.wall() + POINTER_SEC, head.life))
        return True

    # ------------------------------------------------------------------------------------------ children

    async def family(self, head: Head) -> list[Head]:
        """The children of a task that are not deleted, and their children."""
        found: list[Head] = []
        generation = [head.task_id]
        while generation and (parents := sorted(await self._store.parents_among(generation))):
            children = [child for parent in parents for child in await self._children(parent)]
            found += children
            generation = [child.task_id for child in children]
        return found

    async def _children(self, parent: str) -> list[Head]:
        found: list[Head] = []
        after: tuple[float, str] | None = None
        while page := await self._store.list_heads(HeadFilter(parent=parent), limit=PAGE, after=after):
            found += page
            after = (page[-1].created_at, page[-1].task_id)
        return found


def _any_active(heads: Sequence[Head]) -> bool:
    return any(head.active for head in heads)
