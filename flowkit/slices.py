"""Long work on the loop, done in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

TURNS = 8
"""Of the loop: a message takes six to eight from its socket to whoever waits for it, and as many back."""


async def give_way() -> None:
    """Between two pieces of long work: let everything be done that has come meanwhile, and leave. Whoever let the loop
    go round but once would put a piece between any two steps of a message's way."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def in_slices(work: Generator[None, None, T]) -> T:
    """Do it, and give way at every yield."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await give_way()
