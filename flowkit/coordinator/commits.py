"""Group commit: what was decided about many tasks goes to the store together, in one write at a time per flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from flowkit.coordinator.cell import Flight
from flowkit.ports import Outcome, Store

MAX_BATCH = 2000
MAX_BATCH_BYTES = 16 * 1024 * 1024


class CommitLog:
    """Inserts the first commit of each flight handed to it, and tells the owner what became of it.

    Commits that arrive while a write is out wait for the next: under load batches grow by themselves.
    """

    def __init__(
        self, store: Store, on_outcome: Callable[[Flight, Outcome], None], on_batch: Callable[[], None]
    ) -> None:
        self._store = store
        self._on_outcome = on_outcome
        self._on_batch = on_batch
        self._pending: deque[Flight] = deque()
        self._wake = asyncio.Event()

    def append(self, flight: Flight) -> None:
        self._pending.append(flight)
        self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._pending)

    async def step(self) -> None:
        """Wait for commits, write one batch, and hand out the outcomes."""
        await self._wake.wait()
        batch = self._take()
        if not batch:
            return
        outcomes = [Outcome.UNKNOWN] * len(batch)
        try:
            outcomes = await self._store.insert_commits([flight.commits[0] for flight in batch])
        finally:
            for flight, outcome in zip(batch, outcomes, strict=True):
                self._on_outcome(flight, outcome)
        self._on_batch()

    def _take(self) -> list[Flight]:
        batch: list[Flight] = []
        size = 0
        while self._pending and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            flight = self._pending.popleft()
            if flight.cell.dead:
                continue
            batch.append(flight)
            size += len(flight.commits[0].body)
        if not self._pending:
            self._wake.clear()
        return batch
