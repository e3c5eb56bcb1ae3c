"""What one task's nodes ask for, in the memory of the task's owner: permits, one limit after the other."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import field

from flowkit.core.bounds import Need
from flowkit.core.permits import Claim
from flowkit.records import dataclass


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


@dataclass(slots=True)
class Bids:
    """A task's. `waiting` are the nodes that may not ask yet, by line: the first limit and the role; `asking` how many
    do."""

    by_node: dict[str, Bid] = field(default_factory=dict)
    complete: dict[str, None] = field(default_factory=dict)
    waiting: dict[tuple[str, str], deque[str]] = field(default_factory=dict)
    asking: Counter[tuple[str, str]] = field(default_factory=Counter)
