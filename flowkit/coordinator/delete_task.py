"""The verb `delete_task`: says why a task cannot be deleted, or deletes it, with its children."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.history import History
from flowkit.errors import FlowKitError, RequestRefused, StoreUnavailable
from flowkit.ports import DELETED, Clock, Head, Store

PATIENCE_SEC: Final = 10.0
AGAIN_SEC: Final = 0.2


class DeleteTask:
    """Asks no coordinator, and works where none runs. A head may lag: what counts are the commits."""

    def __init__(self, store: Store, clock: Clock, history: History, deletion: Deletion) -> None:
        self._store = store
        self._clock = clock
        self._history = history
        self._deletion = deletion

    async def __call__(self, task_id: str, tenant: str) -> list[str]:
        """The ids of what was deleted: none, if the tenant has no such task. Raises `RequestRefused`,
        `StoreUnavailable`."""
        until = self._clock.mono() + PATIENCE_SEC
        while True:
            head = await self._head(task_id)
            if head is None or head.tenant != tenant:
                return []
            if head.parent and await self._head(head.parent) is not None:
                raise RequestRefused(f"task {task_id} is a child of task {head.parent}: delete that one")
            family = await self._deletion.family(head)
            ended = await self._ended([head, *family])
            if ended is not None and await self._delete(ended):
                return [one.task_id for one in ended]
            if self._clock.mono() >= until:
                raise _too_late(task_id, unclear=ended is not None)
            await asyncio.sleep(AGAIN_SEC)

    async def _head(self, task_id: str) -> Head | None:
        heads = await self._store.read_heads([task_id])
        return heads[0] if heads and heads[0].status != DELETED else None

    async def _ended(self, heads: Sequence[Head]) -> list[Head] | None:
        """The heads as their ended tasks have them; None where one of them is behind its commits. Raises
        `RequestRefused` for a task that has not ended."""
        ended: list[Head] = []
        for head in heads:
            settled = await self._settled(head, heads[0].task_id) if head.active else head
            if settled is None:
                return None
            ended.append(settled)
        return ended

    async def _settled(self, head: Head, asked: str) -> Head | None:
        past = (await self._history.load([head.task_id])).get(head.task_id)
        if past is None:
            return None
        if past.newer:
            raise RequestRefused(f"task {head.task_id} was written by a newer version of FlowKit: delete it with that")
        if past.task is None:  # nobody will ever decide about it, so that nothing else ends it
            commits = await self._store.read_commits([head.task_id])
            return replace(head, seq=commits[-1].seq if commits else 0, active=False)
        if past.task.ended:
            return None
        which = "it" if head.task_id == asked else f"its child {head.task_id}"
        raise RequestRefused(
            f"task {asked} cannot be deleted: {which} is {past.task.status}; cancel it first, and wait for its end"
        )

    async def _delete(self, heads: Sequence[Head]) -> bool:
        """The task goes before its children: should this die in between, whoever removes it finds them."""
        announced = await self._deletion.announce(heads[0])
        if announced is None:
            return False
        if not await self._deletion.bury([announced]):
            if await self._deletion.has_moved(announced):
                await self._deletion.take_back(announced)
            return False
        await self._deletion.bury(heads[1:])
        return True


def _too_late(task_id: str, *, unclear: bool) -> FlowKitError:
    if unclear:
        return StoreUnavailable(f"the deletion of task {task_id} could not be confirmed; ask again")
    return RequestRefused(
        f"task {task_id} has ended, but its last events are not out: they will be as soon as a coordinator runs; "
        "delete it then"
    )
