"""The trace monitor: what ran, node by node, of every flow; and a place for traces of others."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import Query, Request
from pydantic import BaseModel, Field

from flowkit.backend import open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.core.code import LONGEST_SOURCE
from flowkit.errors import TaskNotFound
from flowkit.services.door import MB, Refusal
from flowkit.services.engine_traces import MOST_ROWS, EngineTraces
from flowkit.services.keys import OPERATOR, Keys, Principal
from flowkit.services.posted import open_posted
from flowkit.services.serving import (
    HttpServer,
    Verb,
    add_health,
    add_verbs,
    keys_guard,
    make_app,
    operator_only,
    principal_of,
)
from flowkit.services.settings import Settings
from flowkit.services.unit import checked_runner_id
from flowkit.telemetry import Telemetry

LARGEST: Final = 4 * MB
MOST_FLOWS: Final = 1000
Limit = Annotated[int, Query(ge=1, le=MOST_ROWS)]
FlowId = Annotated[str, Query(min_length=1, max_length=200)]


class Outputs(BaseModel):
    nodes: list[str] = Field([], max_length=1000)
    outputs: Any = {}
    status: str = ""
    message: str = ""


class Trace(BaseModel):
    """A trace that is posted."""

    node_name: str = Field(min_length=1, max_length=200)
    runner_id: str
    code_base64: str = Field("", max_length=2 * LONGEST_SOURCE)
    status: str = Field("", max_length=40)
    inputs: Any = {}
    logs: list[Any] | str = []
    outputs: Outputs = Field(default_factory=lambda: Outputs.model_validate({}))


class TraceMonitorService:
    """Reads the database that a control unit, or any coordinator, works on; needs no Kafka."""

    def __init__(self, settings: Settings, keys: Keys, telemetry: Telemetry) -> None:
        self._where = settings.where
        self._backend = open_backend(settings.db, CoordinatorConfig.load())
        self._telemetry = telemetry
        self._posted = open_posted(settings.db, settings.text("COLLECTION"))
        self._engine: dict[str, EngineTraces] = {}
        app = make_app(settings, telemetry)
        self._http = HttpServer(app, settings, keys_guard(keys), most_bytes=LARGEST)
        add_verbs(app, self._verbs())
        checks = {"database": self._check_database, "posted": self._check_posted}
        add_health(app, settings, checks, lambda: self._http.draining)

    async def start(self) -> None:
        async with AsyncExitStack() as undo:
            await self._backend.store.start()
            undo.push_async_callback(self._backend.store.stop)
            await self._posted.start()
            undo.push_async_callback(self._posted.stop)
            await self._http.start()
            undo.pop_all()

    @property
    def address(self) -> str:
        return self._http.address

    def hello(self) -> list[str]:
        """What to say once it serves."""
        return [f"trace-monitor at {self.address}, on {self._where}"]

    async def stop(self) -> None:
        await self._http.stop()
        await self._posted.stop()
        await self._backend.store.stop()

    # ------------------------------------------------------------------------------------------ verbs

    def _verbs(self) -> dict[str, Verb]:
        return {
            "GET /": self._root,
            "POST /trace": self._post,
            "GET /trace/{runner_id}": self._of_runner,
            "GET /flow/{flow_id}": self._of_flow,
            "GET /flows": self._flows,
            "GET /traces": self._newest,
            "DELETE /trace/{trace_id}": self._delete,
        }

    async def _root(self) -> dict[str, str]:
        return {"message": "FlowKit trace monitor"}

    async def _post(self, body: Trace, request: Request, flow_id: FlowId, flow_lvl: str = "") -> dict[str, Any]:
        who = principal_of(request)
        trace_id = str(uuid.uuid4())
        row = {"trace_id": trace_id, "flow_id": flow_id, "flow_lvl": _level(flow_lvl), "at": time.time(),
               **body.model_dump(), "runner_id": checked_runner_id(body.runner_id)}  # fmt: skip
        number = await self._posted.add(who.tenant, row)
        return {"message": "stored", "trace_id": trace_id, "flow_id": flow_id, "flow_lvl": row["flow_lvl"],
                "current_sequence": number}  # fmt: skip

    async def _of_runner(self, runner_id: str, request: Request) -> dict[str, Any]:
        who, known = operator_only(request), checked_runner_id(runner_id)
        row = await self._posted.of_runner(who.tenant, known) or await self._of(who).find(known)
        if row is None:
            say = f"there is no trace of a run {known}; a flow's are at /flow/FLOW_ID"
            raise Refusal(404, "E_TRACE_UNKNOWN", say)
        return row

    async def _of_flow(self, flow_id: str, request: Request) -> dict[str, Any]:
        rows, count = await self._rows(operator_only(request), flow_id)
        said = {"flow_id": flow_id, "total_nodes": count, "execution_path": [row["node_name"] for row in rows],
                "traces": rows}  # fmt: skip
        return {**said, "more": count - len(rows)} if count > len(rows) else said

    async def _flows(self, request: Request, limit: Limit = MOST_FLOWS) -> dict[str, Any]:
        who = operator_only(request)
        heads, posted = await asyncio.gather(self._of(who).flows(limit), self._posted.flows(who.tenant, limit=limit))
        views: list[dict[str, Any]] = [
            {"flow_id": head.task_id, "name": head.name, "status": head.status, "created_at": head.created_at}
            for head in heads
        ]
        known = {head.task_id for head in heads}
        views += [{"flow_id": flow_id, "status": "posted"} for flow_id in posted if flow_id not in known]
        return {"count": len(views), "flows": views}

    async def _newest(self, request: Request, limit: Limit = 20) -> dict[str, Any]:
        rows = await self._newest_rows(operator_only(request), limit)
        return {"count": len(rows), "traces": rows}

    async def _delete(self, trace_id: str, request: Request) -> dict[str, str]:
        who = operator_only(request)
        if await self._posted.delete(who.tenant, trace_id):
            return {"message": "deleted", "trace_id": trace_id}
        if await self._of(who).find(trace_id) is not None:
            say = "the engine recorded this: it goes with its task (flowkit tasks delete FLOW_ID), never alone"
            raise Refusal(409, "E_RECORDED", say)
        raise Refusal(404, "E_TRACE_UNKNOWN", f"there is no trace {trace_id[:100]!r}")

    def _of(self, who: Principal) -> EngineTraces:
        if who.tenant not in self._engine:
            self._engine[who.tenant] = EngineTraces(self._backend, SystemClock(), self._telemetry, tenant=who.tenant)
        return self._engine[who.tenant]

    async def _rows(self, who: Principal, flow_id: str) -> tuple[list[dict[str, Any]], int]:
        posted = await self._posted.of_flow(who.tenant, flow_id, limit=MOST_ROWS)
        try:
            rows, count = await self._of(who).rows(flow_id, most=MOST_ROWS - len(posted))
        except TaskNotFound:
            if not posted:
                raise
            rows, count = [], 0
        return posted + rows, len(posted) + count

    async def _newest_rows(self, who: Principal, limit: int) -> list[dict[str, Any]]:
        """Of the posted ones, and of the flows that the engine has run."""
        rows = await self._posted.newest(who.tenant, limit=limit)
        for head in await self._of(who).flows(limit):
            try:
                found, _ = await self._of(who).rows(head.task_id)
            except TaskNotFound:
                continue  # it was deleted meanwhile
            rows += found
            if len(rows) >= 2 * limit:
                break
        return sorted(rows, key=_time_of, reverse=True)[:limit]

    # ------------------------------------------------------------------------------------------ health

    async def _check_database(self) -> str:
        await self._of(Principal(OPERATOR)).flows(1)
        return f"{self._where} answers"

    async def _check_posted(self) -> str:
        await self._posted.newest("default", limit=1)
        return "they answer"


def _level(flow_lvl: str) -> int | str | None:
    try:
        return int(flow_lvl)
    except ValueError:
        return flow_lvl[:100] or None


def _time_of(row: dict[str, Any]) -> float:
    return float(row["at"] if "at" in row else row["usage"]["started_at"])
