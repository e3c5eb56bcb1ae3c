"""Who in this process watches which task, and for what."""

from __future__ import annotations

import asyncio
from collections import deque

from flowkit.alarms import Alarms
from flowkit.core.model import ENDED_TASK
from flowkit.ports import Commit
from flowkit.wire.events import Event

MOST_WAITING = 1000


class Listener:
    """One watcher of one task. An event says that the task moved, not how: whoever wants to know reads the store, and
    so nothing depends on an event's arrival. `missed`: some were dropped."""

    __slots__ = ("_alarms", "_events", "_hub", "_sleeper", "ends_only", "missed", "task_id")

    def __init__(self, hub: Hub, task_id: str, ends_only: bool, alarms: Alarms[None]) -> None:
        self.task_id = task_id
        self._hub = hub
        self._alarms = alarms
        self._events: deque[Event] | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self.ends_only = ends_only
        self.missed = False

    def put(self, event: Event) -> None:
        if self.ends_only and event.status not in ENDED_TASK:
            return
        if self._events is None:
            self._events = deque()
        elif len(self._events) >= MOST_WAITING:
            self._events.clear()
            self.missed = True
        self._events.append(event)
        self._wake()

    def poke(self) -> None:
        self.missed = True
        self._wake()

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after so many seconds without one."""
        if not self._events and not self.missed:
            await self._sleep(timeout)
        return self._events.popleft() if self._events else None

    async def _sleep(self, timeout: float) -> None:
        # An event and `asyncio.timeout` would cost every waiter of every task several times as much.
        self._sleeper = asyncio.get_running_loop().create_future()
        try:
            await self._alarms.sleep(self._sleeper, timeout)
        finally:
            self._sleeper = None

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def close(self) -> None:
        self._hub.leave(self)


class Hub:
    """Hands committed steps to the listeners of their task: those of this coordinator at once, others' from the bus."""

    def __init__(self) -> None:
        # In the order in which they came, so that a simulated world replays: an order of addresses would not.
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._alarms: Alarms[None] = Alarms()

    def listen(self, task_id: str, *, ends_only: bool = False) -> Listener:
        listener = Listener(self, task_id, ends_only, self._alarms)
        self._listeners.setdefault(task_id, {})[listener] = None
        return listener

    def leave(self, listener: Listener) -> None:
        group = self._listeners.get(listener.task_id)
        if group is not None:
            group.pop(listener, None)
            if not group:
                del self._listeners[listener.task_id]

    def wanted(self, task_id: str) -> bool:
        return task_id in self._listeners

    def tell(self, commit: Commit, tenant: str, status: str) -> None:
        """A commit was acknowledged here."""
        if commit.task_id in self._listeners:
            self.heard(Event(commit.task_id, tenant, commit.seq, commit.at, commit.id, status, None))

    def heard(self, event: Event) -> None:
        """An event came, from here or from the bus."""
        for listener in self._listeners.get(event.task_id, ()):
            listener.put(event)

    def something_changed(self) -> None:
        """Something was committed elsewhere, and no event will tell what: every listener has to read."""
        for group in self._listeners.values():
            for listener in group:
                listener.poke()
