"""Writes requests down behind those there are, and rings for whoever coordinates the task (rule 10)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from flowkit.coordinator.engine import Engine
from flowkit.coordinator.requests import RequestReader
from flowkit.errors import StoreUnavailable
from flowkit.ports import Bus, Outcome, Record, Request, Store
from flowkit.service import Supervisor
from flowkit.wire.messages import Knock, encode_facts_batch
from flowkit.wire.topics import Topics

INSERT_TRIES = 8


class Asking:
    """`engine` and `requests` are None in a process that coordinates nothing."""

    def __init__(self, *, store: Store, bus: Bus, topics: Topics, supervisor: Supervisor, engine: Engine | None = None,
                 requests: RequestReader | None = None) -> None:  # fmt: skip
        self._store = store
        self._bus = bus
        self._topics = topics
        self._supervisor = supervisor
        self._engine = engine
        self._requests = requests

    async def ask(self, request: Request) -> Request:
        """The request as it was written, under the next free number; one of the same id that is there already. Raises
        `StoreUnavailable`."""
        for attempt in range(INSERT_TRIES):
            written = await self._insert(request)
            if written is not None:
                self._ring(written)
                return written
            await asyncio.sleep(min(1.0, 0.1 * 2**attempt))
        what = f"the request to {request.kind} task {request.task_id}"
        raise StoreUnavailable(f"{what} could not be confirmed; ask again")

    async def _insert(self, request: Request) -> Request | None:
        """None where the answer is not clear."""
        there = await self._store.read_requests(request.task_id)
        mine = next((old for old in there if old.id == request.id), None)
        if mine is not None:
            return mine
        request = replace(request, n=max((old.n for old in there), default=0) + 1)
        outcome = await self._store.insert_request(request)
        return request if outcome is Outcome.OK else None

    def _ring(self, request: Request) -> None:
        if self._engine is not None and self._requests is not None and request.partition in self._engine.owned:
            self._requests.read_soon(request.task_id)
            return
        self.knock(request.partition, [Knock(request.task_id, request.tenant, "request")], request.principal)

    def knock(self, partition: int, items: Sequence[Knock], principal: str) -> None:
        """Tell the owner of a partition that something stands in the store; a lost knock is the sweeper's business."""
        value = encode_facts_batch(principal, "", -1, items)
        record = Record(self._topics.facts, partition, value, items[0].task_id.encode())
        self._supervisor.spawn(self._publish(record), "knock")

    async def _publish(self, record: Record) -> None:
        await self._bus.publish([record])
