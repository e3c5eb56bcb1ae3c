"""What all parts of a simulated world share: virtual time, dice, counters, the record of what happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from flowkit.testing.loop import VirtualHandle, VirtualLoop

EPOCH = 1_700_000_000.0


class Stage:
    """`storm` says that random faults may happen now; `without` names the guards that are taken away."""

    def __init__(self, seed: int, mode: str, *, without: frozenset[str] = frozenset(), trace: bool = False) -> None:
        self.seed = seed
        self.mode = mode
        self.without = without
        self.chaos = mode == "chaos"
        self.storm = self.chaos
        # One stream each: with a guard taken away the same faults are planned as with it.
        self.plan = _dice(f"{seed}/{mode}/plan")
        self.dice = _dice(f"{seed}/{mode}/net")
        order = _dice(f"{seed}/{mode}/order") if self.chaos else None
        self.loop = VirtualLoop(dice=order, limit=1e6)  # type: ignore[abstract]  # no files, no sockets
        self.counts: Counter[str] = Counter()
        # What directed faults ask of the users: tasks with a timeout, nodes that all run for long.
        self.wanted: set[str] = set()
        # How often, while the storm lasts, what directed faults make more likely than it is.
        self.tilt = {
            "stale_read": 0.04,
            "late_work": 0.0,
            "lost_work": 0.0,
            "lost_stop": 0.0,
            "late_child_end": 0.0,
            "late_head": 0.0,
        }
        self.trace: list[str] | None = [] if trace else None
        self._root = self.loop.root.context()
        self._hash = blake2b(digest_size=8)

    @property
    def now(self) -> float:
        return self.loop.time()

    def latency(self) -> float:
        """About 3 ms, sometimes much more."""
        return self.dice.expovariate(300) + 0.0005

    def chance(self, share: float) -> bool:
        """True in that share of the calls, while the storm lasts."""
        return self.storm and self.dice.random() < share

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> VirtualHandle:
        """Call something `delay` seconds from now; it belongs to the world, not to the process that asked."""
        return self.loop.call_later(delay, call, *args, context=self._root)

    def at(self, when: float, call: Callable[..., object], *args: Any) -> VirtualHandle:
        return self.loop.call_at(max(when, self.now), call, *args, context=self._root)

    def count(self, what: str, by: int = 1) -> None:
        self.counts[what] += by

    def note(self, *what: object) -> None:
        """One line of the history; what happened in which order makes the trace's hash."""
        line = f"{self.now:9.3f} {' '.join(map(str, what))}"
        self._hash.update(line.encode("utf-8", "replace"))
        if self.trace is not None:
            self.trace.append(line)

    def digest(self) -> str:
        """The hash of everything noted, of every die thrown and every callback run so far."""
        rest = (self.loop.steps, round(self.now, 6), self.dice.getstate()[1], sorted(self.counts.items()))
        return blake2b(self._hash.digest() + repr(rest).encode(), digest_size=8).hexdigest()


def _dice(name: str) -> random.Random:
    return random.Random(name)  # noqa: S311
