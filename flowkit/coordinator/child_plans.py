"""Says what a restart would mean for the children that go on: of the first of each task, and how many there are beside
them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from flowkit.coordinator.going_on import GONE, why_not
from flowkit.coordinator.history import History, Past
from flowkit.core.derived import number_of
from flowkit.core.model import Task, TaskStatus
from flowkit.core.opening import child_id
from flowkit.core.replan import ChildFate, ChildPlan, RestartPlan, plan_to_go_on
from flowkit.ports import Store

MOST_CHILDREN: Final = 20
"""So many children of one task are looked at."""
MOST_IN_ALL: Final = 100
"""And so many in all: their children have children."""


class ChildPlans:
    """One look at a task's children, and at theirs."""

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history
        self._left = MOST_IN_ALL

    async def add(self, task: Task, plan: RestartPlan) -> RestartPlan:
        """The plan with what it means for the children. Raises `StoreUnavailable`."""
        if not plan.within:
            return plan
        shown = _first(task, plan)[: max(0, min(MOST_CHILDREN, self._left))]
        self._left -= len(shown)
        ids = {name: child_id(task.task_id, name, task.runs[name].child_of) for name in shown}
        pasts = await self._history.load(list(ids.values()))
        children = [await self._of(name, child, pasts.get(child)) for name, child in ids.items()]
        return replace(plan, children=tuple(children), more_children=len(plan.within) - len(children))

    async def _of(self, name: str, child: str, past: Past | None) -> ChildPlan:
        why = await why_not(self._store, past)
        if why or past is None or past.task is None:
            return ChildPlan(name, child, ChildFate.FRESH, why=why or GONE)
        task = past.task
        if task.status is TaskStatus.FINISHED:
            return ChildPlan(name, child, ChildFate.TAKEN, why="it has finished since")
        if not task.ended:
            return ChildPlan(name, child, ChildFate.AWAITED, why=f"it is {task.status}")
        return ChildPlan(name, child, ChildFate.GOES_ON, await self.add(task, plan_to_go_on(task)))


def _first(task: Task, plan: RestartPlan) -> list[str]:
    """Nodes as the graph has them, each before its items, and these by number."""
    places = {name: place for place, name in enumerate(task.graph.nodes)}

    def place(name: str) -> tuple[int, int]:
        if name in places:
            return places[name], -1
        return places.get(name[: name.rindex("[")], len(places)), number_of(name)

    return sorted(plan.within, key=place)
