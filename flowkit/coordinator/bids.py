"""What one task's nodes ask for, in the memory of the task's owner: permits, one limit after the other."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

from flowkit.core.bounds import Need
from flowkit.core.permits import Claim


@dataclass(slots=True)
class Bid:
    """A node asks for its permits, one after the other: `got` are at hand. `asked_at` is when the next was asked for
    last and `held_since` when the first came, in this process's monotonic clock; `place` what its limit said of the
    line: how many come before it, and the weight of what is held."""

    node: str
    claim: Claim
    needs: tuple[Need, ...]
    line: tuple[str, str]
    got: int = 0
    asked_at: float = 0.0
    tries: int = 0
    held_since: float = 0.0
    leased: bool = False
    place: tuple[int, int] | None = None

    @property
    def complete(self) -> bool:
        return self.got == len(self.needs)


class Waiting:
    """Nodes of one line that may not ask yet: the highest priority first, then whoever has waited for longest."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, name: str, priority: int) -> None:
        self._count += 1
        heapq.heappush(self._heap, (-priority, self._count, name))

    def pop(self) -> str:
        return heapq.heappop(self._heap)[2]


@dataclass(slots=True)
class Bids:
    """A task's. `waiting` are the nodes that may not ask yet, by line: the first limit and the role; `asking` how many
    do."""

    by_node: dict[str, Bid] = field(default_factory=dict)
    complete: dict[str, None] = field(default_factory=dict)
    waiting: dict[tuple[str, str], Waiting] = field(default_factory=dict)
    asking: Counter[tuple[str, str]] = field(default_factory=Counter)
