"""The attempts of a task as its coordinator saw them end: whoever is told of them need not read its commits to count
them. Of a task with many they are told in portions while it runs, so that no more than one is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from flowkit.core import facts as f
from flowkit.core.derived import base_of
from flowkit.core.ending import ending_of
from flowkit.monitor_ports import AttemptRecord, Seen
from flowkit.ports import flow_name

if TYPE_CHECKING:
    from flowkit.core.model import Task
    from flowkit.ports import Head

PORTION: Final = 2000
"""So many attempts, and what else ended in the same commit, are told while the task runs."""

Listener = Callable[[str, Seen], bool]
"""Hears of some attempts of a task. False: it will not count them, so the rest of the story is of no use."""

_Open = tuple[int, str, float, float]
"""An attempt that has not ended: its number, its worker, since when it was ready, and since when leased."""

_ONLY_FOLDED: Final = frozenset({f.ChildStarted, f.TaskRestarted})
"""What follows them, only a fold of all commits can tell."""


class Story:
    """The records of the attempts that ended in commits 1 to `seq`, in the order of their ends, but for those that were
    told. They are the very ones that a fold of these commits gives (`flowkit.trace.task_trace`)."""

    __slots__ = ("_flow", "_open", "_records", "_since", "_tell", "seq")

    def __init__(self, tell: Listener) -> None:
        self.seq = 0
        self._tell = tell
        self._since = 0
        self._records: list[AttemptRecord] = []
        self._open: dict[str, _Open] = {}
        self._flow = ""

    def hear(self, head: Head, task: Task, seq: int, at: float, facts: Sequence[f.Fact]) -> bool:
        """Commit `seq` with these facts was acknowledged; `task` is the state with them. False where the story ends
        here: it is to be forgotten."""
        if seq != self.seq + 1:
            return False
        self.seq = seq
        for fact in facts:
            if type(fact) is f.AttemptLeased:
                ready_at = task.runs[fact.node].ready_at
                self._open[fact.node] = (fact.attempt, fact.worker, at if ready_at is None else ready_at, at)
            elif type(fact) in _ONLY_FOLDED:
                return False
            elif (ending := ending_of(fact)) is not None:
                node, outcome, code, run_sec, usage = ending
                if code == "released" and outcome == "lost":
                    return False
                for each in (node,) if node else list(self._open):
                    self._end(head, task, each, at, outcome, code, run_sec, usage)
        return len(self._records) < PORTION or self._tell(head.task_id, self.take())

    def take(self) -> Seen:
        """What was not told yet. It counts as told from now on."""
        seen = Seen(self._since, self.seq, self._records)
        self._since, self._records = self.seq, []
        return seen

    def _end(self, head: Head, task: Task, node: str, at: float, outcome: str, code: str, run_sec: float,
             usage: f.Usage | None) -> None:  # fmt: skip
        begun = self._open.pop(node, None)
        if begun is None:
            return
        self._flow = self._flow or flow_name(head.flow) or head.name
        attempt, worker, ready_at, leased_at = begun
        self._records.append(
            AttemptRecord(
                head.task_id, head.tenant, self._flow, node, base_of(node), task.node(node).type, attempt,
                task.generation, outcome, code, worker, ready_at, leased_at, at, run_sec, self.seq, usage,
            )
        )  # fmt: skip
