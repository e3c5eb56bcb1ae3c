"""The control unit: takes Flow Control Blocks, and runs each as a task that a coordinator keeps going."""

from __future__ import annotations

import logging
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel, Field

from flowkit.backend import open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.views import TaskView
from flowkit.core.code import LONGEST_SOURCE
from flowkit.errors import ConfigError, Permanent, Retry, ServiceUnavailable, TaskNotFound
from flowkit.npu_control import DONE
from flowkit.services import codes, fcb, http
from flowkit.services.door import MB, Refusal
from flowkit.services.engine_traces import EngineTraces
from flowkit.services.fcb import Block, Step
from flowkit.services.keys import Keys, token_for
from flowkit.services.serving import HttpServer, Verb, add_health, add_verbs, keys_guard, make_app, operator_only
from flowkit.services.settings import Settings
from flowkit.telemetry import Telemetry
from flowkit.worker.context import Context
from flowkit.worker.worker import Worker, runs_code

ANSWER_SEC: Final = 86_400.0
"""How long a node may take is for the node runner to say."""
WAITING: Final = 64
BUSY: Final = (429, 503)
LEVELS: Final = {"DEBUG": logging.DEBUG, "WARNING": logging.WARNING, "ERROR": logging.ERROR}


class NodeSpec(BaseModel):
    """One node: its code as base64, or as it is. `flow_lvl` is a note that traces show."""

    name: str = Field(min_length=1, max_length=128)
    code: str = Field(min_length=1, max_length=2 * LONGEST_SOURCE)
    flow_lvl: int | str | None = None


class AddFlow(BaseModel):
    """A flow: its nodes, where it begins, and what that one gets."""

    nodes: dict[str, NodeSpec] = Field(max_length=fcb.MOST_NODES)
    curr_inp: dict[str, Any] = {}
    curr_node: NodeSpec


class ControlUnitService:
    """With NODE_RUNNER_ADDR nodes run where the node runner lets them. Without, they are nodes of type `code`: on a
    file they run in this process, elsewhere on any worker with the role `code`."""

    def __init__(self, settings: Settings, keys: Keys, telemetry: Telemetry) -> None:
        self._settings = settings
        self._runner = settings.address("NODE_RUNNER_ADDR")
        self._runner_file = Path(settings.text("NODE_RUNNER_TOKEN_FILE"))
        self._most_hops = settings.whole("MAX_HOPS", 1, 1_000_000)
        cfg, worker_cfg = CoordinatorConfig.load(), WorkerConfig.load()
        self._backend = open_backend(settings.db, cfg)
        self._coordinator = Coordinator(db=settings.db, cfg=cfg, backend=self._backend, telemetry=telemetry)
        here = self._backend.embedded and not self._runner
        if here and not runs_code(worker_cfg):
            raise ConfigError(
                "this machine shuts programs in at no level, so nodes cannot run here: set NODE_RUNNER_ADDR, or, if "
                "you trust the code, FLOWKIT_CODE_TRUSTED=1 (flowkit doctor says more)"
            )
        worker_cfg.roles = []
        if self._runner:  # then its nodes only wait
            worker_cfg.slots = max(worker_cfg.slots, WAITING)
        handlers: dict[str, Any] = {fcb.ROUTE: fcb.route}
        if self._runner:  # of several control units, those without one run none of its nodes
            handlers[fcb.RUN] = self._run_node
        self._worker = Worker(
            db=settings.db, cfg=worker_cfg, handlers=handlers,
            backend=self._backend, also_code=here, coordinator_cfg=cfg, telemetry=telemetry,
        )  # fmt: skip
        self._traces = EngineTraces(self._backend, SystemClock(), telemetry)
        app = make_app(settings, telemetry)
        self._http = HttpServer(app, settings, keys_guard(keys), most_bytes=16 * MB)
        add_verbs(app, self._verbs())
        checks = {"database": self._check_database}
        if self._runner:
            checks["node_runner"] = self._check_runner
        add_health(app, settings, checks, lambda: self._http.draining)

    async def start(self) -> None:
        async with AsyncExitStack() as undo:
            await self._coordinator.start()
            undo.push_async_callback(self._coordinator.stop)
            if self._backend.embedded and not self._coordinator.coordinating:
                raise ConfigError(
                    f"another process coordinates {self._settings.where}: stop it, give the control unit a file of its "
                    "own (DB), or run both on MongoDB (MONGODB)"
                )
            await self._worker.start()
            undo.push_async_callback(self._worker.stop, 0)
            await self._http.start()
            undo.pop_all()

    @property
    def address(self) -> str:
        return self._http.address

    def hello(self) -> list[str]:
        """What to say once it serves."""
        where = f"the node runner at {self._runner}" if self._runner else (
            "this process" if self._backend.embedded else "workers with the role code")  # fmt: skip
        return [f"control-unit at {self.address}, on {self._settings.where}; nodes run by {where}"]

    async def stop(self) -> None:
        """Take no more requests, let attempts end, and hand back the rest: they go on with the next start."""
        await self._http.stop()
        await self._worker.stop(self._settings.number("DRAIN_SEC", 0, 86_400))
        await self._coordinator.stop()

    # ------------------------------------------------------------------------------------------ verbs

    def _verbs(self) -> dict[str, Verb]:
        return {
            "POST /fcb/add": self._add,
            "GET /fcb/{flow_id}": self._show,
            "POST /fcb/{flow_id}/pause": self._pause,
            "POST /fcb/{flow_id}/resume": self._resume,
            "POST /fcb/{flow_id}/cancel": self._cancel,
            "POST /fcb/{flow_id}/restart": self._restart,
        }

    async def _add(self, body: AddFlow, request: Request) -> dict[str, str]:
        _check_tenant(request)
        block = _block(body)
        graph = fcb.make_graph(block, most_hops=self._most_hops, by_runner=bool(self._runner))
        flow_id = await self._coordinator.create_task(
            graph=graph, params=fcb.params_of(block, body.curr_inp), labels={fcb.LABEL: "yes"}
        )
        return {"message": "flow started", "flow_id": flow_id}

    async def _show(self, flow_id: str, request: Request) -> dict[str, Any]:
        _check_tenant(request)
        view = await self._flow(flow_id)
        return {"flow_id": flow_id, "status": view.status, "reason": view.reason, "error": view.error,
                "nodes": await self._traces.states(flow_id)}  # fmt: skip

    async def _pause(self, flow_id: str, request: Request) -> dict[str, str]:
        _check_tenant(request)
        await self._flow(flow_id)
        applied = await self._coordinator.pause_task(flow_id)
        return _asked("paused", flow_id, applied)

    async def _resume(self, flow_id: str, request: Request) -> dict[str, str]:
        _check_tenant(request)
        await self._flow(flow_id)
        return _asked("resumed", flow_id, await self._coordinator.resume_task(flow_id))

    async def _cancel(self, flow_id: str, request: Request) -> dict[str, str]:
        _check_tenant(request)
        await self._flow(flow_id)
        return _asked("cancelled", flow_id, await self._coordinator.cancel_task(flow_id))

    async def _restart(self, flow_id: str, request: Request) -> dict[str, str]:
        """A flow that has ended, from its beginning."""
        _check_tenant(request)
        await self._flow(flow_id)
        return _asked("restarted", flow_id, await self._coordinator.restart_task(flow_id))

    async def _flow(self, flow_id: str) -> TaskView:
        """Raises `TaskNotFound` for what is no flow."""
        view = await self._coordinator.get_task(flow_id)
        if fcb.LABEL not in view.labels:
            raise TaskNotFound(f"there is no flow {flow_id!r} here")
        return view

    # ------------------------------------------------------------------------------------------ a node

    async def _run_node(self, node: str, code: str, inputs: dict[str, Any], ctx: Context) -> dict[str, Any]:
        """One node, by the node runner: what it gave."""
        runner_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{ctx.task_id}/{ctx.node_id}/{ctx.attempt}"))
        body = {"node_name": node, "code": codes.encode(code), "inputs": inputs, "runner_id": runner_id}
        token = token_for(self._runner_file, self._settings.kind.name)
        try:
            answer = await http.ask("POST", f"{self._runner}/nodes/add-node", body, token=token, timeout=ANSWER_SEC)
        except ServiceUnavailable as error:
            raise Retry(str(error), code=error.code) from error
        if answer.status in BUSY:
            raise Retry(f"the node runner: {answer.detail}", code=answer.code)
        if not answer.ok or not isinstance(answer.said, dict):
            raise Permanent(answer.code, f"the node runner: {answer.detail}")
        said: dict[str, Any] = answer.said
        for line in said.get("logs", []):
            level = str(line)[1:].partition("]")[0]
            ctx.log.log(LEVELS.get(level, logging.INFO), "%s", line)
        result = said["outputs"]
        if said["status"] != DONE:
            trace = said.get("traceback", "")
            raise Permanent(said.get("error_code") or "node_failed", f"{result['message']}\n{trace}".strip())
        return {"nodes": result["nodes"], "outputs": result["outputs"], "message": result["message"]}

    # ------------------------------------------------------------------------------------------ health

    async def _check_database(self) -> str:
        await self._coordinator.list_tasks(limit=1)
        return f"{self._settings.where} answers"

    async def _check_runner(self) -> str:
        answer = await http.ask("GET", f"{self._runner}/health", timeout=4.0)
        if not answer.ok:
            raise ServiceUnavailable(f"the node runner at {self._runner} is not well")
        return f"{self._runner} answers"


def _block(body: AddFlow) -> Block:
    steps: dict[str, Step] = {}
    if body.nodes.get(body.curr_node.name, body.curr_node).code != body.curr_node.code:
        name = body.curr_node.name[:100]
        raise Refusal(422, "E_NODE_NAME", f"curr_node and nodes.{name} are of one name and have different code")
    for key, spec in {**body.nodes, body.curr_node.name: body.curr_node}.items():
        if key != spec.name:
            raise Refusal(
                422, "E_NODE_NAME", f"nodes.{key[:100]}.name is {spec.name[:100]!r}: the two must be the same"
            )
        steps[spec.name] = Step(spec.name, codes.decode(spec.code), spec.flow_lvl)
    return Block(steps, body.curr_node.name)


def _check_tenant(request: Request) -> None:
    who = operator_only(request)
    if who.tenant != "default":
        raise Refusal(403, "E_FORBIDDEN", f"flows are of the tenant 'default', and this token is of {who.tenant!r}")


def _asked(done: str, flow_id: str, applied: bool) -> dict[str, str]:
    return {"message": done if applied else f"asked for: it will be {done}", "flow_id": flow_id}
