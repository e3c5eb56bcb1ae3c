"""Reads the requests that the API wrote down, and hands them to their tasks in order (rule 10)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.offsets import Receipt
from flowkit.core.graph import Graph
from flowkit.core.reports import Requested
from flowkit.errors import Corrupt, GraphError
from flowkit.ports import Request, Store
from flowkit.wire.codec import loads


class RequestReader:
    """A doorbell makes it read all requests of a task; the sweeper brings those that no doorbell announced."""

    def __init__(self, store: Store, engine: Engine, graphs: Graphs) -> None:
        self._store = store
        self._graphs = graphs
        self._engine = engine
        self._rung: dict[str, list[Receipt]] = {}
        self._wake = asyncio.Event()

    def read_soon(self, task_id: str, receipt: Receipt | None = None) -> None:
        receipts = self._rung.setdefault(task_id, [])
        if receipt is not None:
            receipts.append(receipt)
        self._wake.set()

    async def step(self) -> None:
        """Wait for a doorbell, read, hand over. What could not be read stays rung."""
        await self._wake.wait()
        self._wake.clear()
        for task_id in list(self._rung):
            try:
                await self.hand_over(await self._store.read_requests(task_id))
            except BaseException:
                self._wake.set()
                raise
            receipts = self._rung.pop(task_id)
            for receipt in receipts:
                receipt.settle()
        self._engine.pump_dirty()

    async def hand_over(self, requests: Iterable[Request]) -> None:
        """Feed open requests, in the order given, to the tasks that are owned here. Raises `StoreUnavailable` where an
        edited graph cannot be read now."""
        for request in requests:
            if request.applied or request.partition not in self._engine.owned:
                continue
            args = _args(request)
            if args.get("graph_ref"):
                args["graph"] = await self._edited(args["graph_ref"])
            if request.partition not in self._engine.owned:
                continue
            cell = self._engine.get(request.task_id, request.partition)
            if self._answered_already(cell, request) or _waits(cell, request):
                continue
            asked = Requested(request.n, request.id, request.kind, args, request.principal)
            self._engine.feed(cell, Item(asked, None, request.tenant))

    async def _edited(self, ref: object) -> Graph | None:
        """The graph that a restart is to go on with; None if there is none that can be read."""
        try:
            return await self._graphs.get(str(ref))
        except (Corrupt, GraphError):
            return None

    def _answered_already(self, cell: Cell, request: Request) -> bool:
        """An answered request whose mark was lost is marked again."""
        if cell.task is None or request.n > cell.task.applied:
            return False
        if cell.live and cell.flight is None:
            if request.n not in cell.to_mark:
                cell.to_mark.append(request.n)
            self._engine.heads.touch(cell)
        return True


def _args(request: Request) -> dict[str, Any]:
    try:
        args = loads(request.args)
    except Corrupt:
        return {}
    return args if isinstance(args, dict) else {}


def _waits(cell: Cell, request: Request) -> bool:
    return any(isinstance(item.report, Requested) and item.report.n == request.n for item in cell.queue)
