"""What the benchmark's nodes do: next to nothing, so that what is measured is the engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flowkit import Context, Retry


async def hop(n: int = 0, at: float = 0.0) -> dict[str, Any]:
    """One more than what came in, and when (this machine's monotonic clock) the handler began."""
    return {"n": n + 1, "at": time.monotonic()}


async def double(i: int) -> int:
    return 2 * i


async def total(inputs: dict[str, Any]) -> int:
    """The sum over all parents, whether they are numbers or hops."""
    return sum(part["n"] if isinstance(part, dict) else part for part in inputs.values())


async def numbers(n: int) -> list[int]:
    return list(range(n))


async def add_up(parts: list[int]) -> int:
    return sum(parts)


class Naps:
    """Makes every first attempt wait, and notes how late the second one comes."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    @property
    def first_due(self) -> float | None:
        """When (monotonic) the first of those that wait is due."""
        return min(self._due.values(), default=None)

    @property
    def waiting(self) -> int:
        return len(self._due)

    async def nap(self, ctx: Context, after: float) -> float:
        now = time.monotonic()
        due = self._due.pop(ctx.idempotency_key, None)
        if due is None:
            self._due[ctx.idempotency_key] = now + after
            raise Retry("not yet", after_sec=after)
        return now - due


def handlers(naps: Naps) -> Mapping[str, Any]:
    return {"hop": hop, "double": double, "total": total, "numbers": numbers, "add_up": add_up, "nap": naps.nap}
