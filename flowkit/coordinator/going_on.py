"""Asks children of earlier attempts to go on where they had ended, and says which of them cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flowkit.coordinator.artifacts import answered, materialise, output_of_ended
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.history import History, Past
from flowkit.core.effects import Continue, Steer
from flowkit.core.model import ENDED_TASK, TaskStatus
from flowkit.core.node_run import NodeRun
from flowkit.core.payload import holds_artifacts
from flowkit.core.reports import ChildGone
from flowkit.core.scope import Unanswered
from flowkit.core.settling import continue_of
from flowkit.errors import Corrupt, ExprError, InputError, StoreUnavailable
from flowkit.ports import DELETED, Clock, Head, Request, Store
from flowkit.wire.codec import dumps

MOST_STEERED: Final = 16
"""Children that are steered at once: ten thousand must not crowd out the engine."""
GONE: Final = "it was deleted"
UNMADE: Final = (InputError, ExprError, Unanswered, Corrupt)
"""Why the params of a child cannot be made (again)."""


class GoingOn:
    """`again` and `gone` are told what is to be tried once more, and of whom nothing can be expected."""

    def __init__(self, *, store: Store, clock: Clock, history: History, asking: Asking,
                 again: Callable[[Cell, Continue], None], gone: Callable[[Cell, ChildGone], None]) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._history = history
        self._asking = asking
        self._again = again
        self._gone = gone
        self.steering = asyncio.Semaphore(MOST_STEERED)

    async def ask_all(self, asked: Sequence[tuple[Cell, Continue]]) -> None:
        """Ask each to go on; those that cannot are as good as none."""
        if not asked:
            return
        try:
            found = await self._store.read_heads([effect.child for _, effect in asked])
        except StoreUnavailable:
            for cell, effect in asked:
                self._again(cell, effect)
            return
        heads = {head.task_id: head for head in found}
        async with asyncio.TaskGroup() as asking:
            for cell, effect in asked:
                asking.create_task(self._ask_or_say(cell, effect, heads.get(effect.child)))

    async def _ask_or_say(self, cell: Cell, effect: Continue, head: Head | None) -> None:
        try:
            why = await self.why_not(head)
            if not why and head is not None:
                await self._ask(cell, head, effect)
                return
        except StoreUnavailable:
            self._again(cell, effect)
            return
        except Corrupt as error:  # its params hang on an artifact that is no more: a new child will say so
            why = f"its params cannot be made: {error}"
        self._gone(cell, ChildGone(effect.name, effect.attempt, effect.child, why))

    async def _ask(self, cell: Cell, head: Head, effect: Continue) -> None:
        """Write down for a child that it is to go on: once, however often that is done. Raises `StoreUnavailable`,
        `Corrupt`."""
        if cell.dead:
            return
        args: dict[str, Any] = {"attempt": effect.attempt}
        if effect.deadline is not None:
            args["deadline"] = effect.deadline
        if effect.inputs is not None:
            params = effect.inputs
            args["params"] = await materialise(self._store, params) if holds_artifacts(params) else params
        async with self.steering:
            request_id = f"continue-{effect.attempt}"
            asked = await self._asking.ask(self.request(head, request_id, "continue", args))
            if asked.applied and effect.unheard:  # by a coordinator of an older version, which refused it
                await self._asking.ask(self.request(head, f"{request_id}-after-{asked.n}", "continue", args))

    def request(self, child: Head, request_id: str, kind: str, args: Mapping[str, Any]) -> Request:
        """What a parent asks of its child; a request of the same id is written once."""
        text, now = dumps(args).decode(), self._clock.wall()
        return Request(child.task_id, 1, request_id, kind, text, child.partition, child.tenant, child.principal, now)

    async def was_asked(self, cell: Cell, effect: Steer, head: Head) -> bool:
        """See to it that a child of an earlier attempt was asked to go on before anything else is asked of it: a cancel
        that came first would find a task that has ended. False where that is not possible now."""
        task = cell.task
        run = task.runs[effect.name] if task is not None else None
        if task is None or run is None or (run.child, run.attempt) != (effect.child, effect.attempt):
            return True  # nobody waits for it any more
        try:
            await self._ask(cell, head, await answered(self._store, task, lambda: continue_of(task, effect.name)))
        except (StoreUnavailable, *UNMADE):
            return False
        return True

    # ------------------------------------------------------------------------------------------ whether it can

    async def why_not(self, head: Head | None, past: Past | None = None) -> str:
        """Why a child cannot go on, empty if it can; of one that has finished, the output is wanted. Raises
        `StoreUnavailable`."""
        if head is None or head.status == DELETED:
            return GONE
        if head.status not in ENDED_TASK:
            return ""
        if past is None:
            async with self.steering:
                past = (await self._history.load([head.task_id])).get(head.task_id)
        return await why_not(self._store, past)


async def why_not(store: Store, past: Past | None) -> str:
    """Why a child with this past cannot go on, empty if it can. Raises `StoreUnavailable`."""
    if past is None:
        return GONE
    if past.task is None:
        return "" if past.newer else f"it cannot be read: {past.error}"
    if past.task.status is not TaskStatus.FINISHED:
        return ""
    try:
        output = await output_of_ended(store, past.task)
        if holds_artifacts(output):
            await materialise(store, output)
    except (Corrupt, InputError, ExprError) as error:
        return f"its output is no more: {error}"
    return ""


def goes_on(run: NodeRun) -> bool:
    """Whether the child of a node's attempt is that of an earlier one."""
    return bool(run.child) and run.child_of != run.attempt


def was_not_asked(run: NodeRun, past: Past | None) -> bool:
    """Whether a child of an earlier attempt does not know of this one."""
    return goes_on(run) and past is not None and past.task is not None and past.task.for_attempt < run.attempt
