"""Attempts that wait for a slot: tasks take turns, the attempts of one task go first come, first served."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from flowkit.worker.attempt import Attempt


class Turns:
    """A wide task may have hundreds of attempts here at once; the single one of another must not wait for them all. The
    order of the coordinator, which knows priorities, holds within a task; the few that are ahead of it are short."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Attempt]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, attempt: Attempt) -> None:
        line = self._lines.get(attempt.job.task_id)
        if line is None:
            line = self._lines[attempt.job.task_id] = deque()
        line.append(attempt)

    def put_back(self, attempts: Iterable[Attempt]) -> None:
        """They have had their turn, and could not take it: they go first, in this order."""
        for attempt in reversed(list(attempts)):
            line = self._lines.setdefault(attempt.job.task_id, deque())
            line.appendleft(attempt)
            self._lines.move_to_end(attempt.job.task_id, last=False)

    def take(self) -> Attempt:
        """The next attempt; its task goes behind the others. Raises `KeyError` when none waits."""
        task_id, line = self._lines.popitem(last=False)
        attempt = line.popleft()
        if line:
            self._lines[task_id] = line
        return attempt

    def keep(self, wanted: Callable[[Attempt], bool]) -> None:
        """Forget those that are not wanted any more."""
        for task_id, line in list(self._lines.items()):
            kept = deque(attempt for attempt in line if wanted(attempt))
            if kept:
                self._lines[task_id] = kept
            else:
                del self._lines[task_id]

    def clear(self) -> None:
        self._lines.clear()
