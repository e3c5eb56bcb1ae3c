"""The node runner: gives a node's code, with the secrets that it asks for, to a node processing unit, and waits."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel, Field

from flowkit.core.code import LONGEST_SOURCE
from flowkit.errors import ConfigError, FlowKitError, ServiceUnavailable
from flowkit.npu_control import DONE, ERROR
from flowkit.services import codes, http
from flowkit.services.door import MB, Refusal
from flowkit.services.keys import Keys
from flowkit.services.lines import Lines
from flowkit.services.register import Npu, Register
from flowkit.services.secret_values import SecretValues
from flowkit.services.serving import HttpServer, Verb, add_health, add_verbs, keys_guard, make_app, operator_only
from flowkit.services.settings import Settings, service_address
from flowkit.services.unit import STOPPED, NodeJob, Unit, checked_runner_id, read_job
from flowkit.telemetry import Telemetry

LOOK_SEC: Final = 2.0
LOST_AFTER: Final = 3
UNIT: Final = "npu"
MOST_WAITING: Final = 2000
UNITS_TRIED: Final = 3


class AddNode(BaseModel):
    """One node to be run to its end."""

    node_name: str = Field(min_length=1, max_length=128)
    code: str = Field(min_length=1, max_length=2 * LONGEST_SOURCE)
    inputs: dict[str, Any] = {}
    runner_id: str


class AddNpu(BaseModel):
    """A unit introduces itself. `token` is what it wants to be shown."""

    address: str = Field(max_length=300)
    id: str = Field(min_length=1, max_length=100)
    token: str = Field("", max_length=512)


class Pool(BaseModel):
    """How a unit's pool is."""

    uptime: float = Field(0, ge=0)
    successful_tasks: int = Field(0, ge=0)
    failed_tasks: int = Field(0, ge=0)
    queued_tasks: int = Field(0, ge=0)


class Result(BaseModel):
    """What came of a node."""

    nodes: list[str] = []
    outputs: Any = {}
    message: str = ""
    status: str = DONE
    logs: list[str] = []
    code: str = ""
    traceback: str = ""
    usage: dict[str, Any] = {}


class Lost(Exception):
    """The unit that had the node is gone, or has forgotten it."""


class Waiting:
    """A node that a unit has."""

    result: asyncio.Future[Result]

    def __init__(self) -> None:
        self.lines = Lines()
        self.begin()

    def begin(self) -> None:
        """Wait for what the next unit says."""
        self.result = asyncio.get_running_loop().create_future()


class NodeRunnerService:
    """Chooses the registered unit with the least to do; where none is registered, runs the node itself."""

    def __init__(self, settings: Settings, keys: Keys, telemetry: Telemetry) -> None:
        self._settings = settings
        self._register = Register()
        self._secrets = SecretValues(settings)
        self._own = Unit(settings, telemetry)
        self._own_trouble = ""
        self._waiting: dict[str, Waiting] = {}
        self._patience = settings.number("WALL_SEC", 0.1, 86_400) + 60.0
        app = make_app(settings, telemetry)
        self._http = HttpServer(app, settings, keys_guard(keys), most_bytes=16 * MB,
                                most_at_once=MOST_WAITING + 200)  # fmt: skip
        add_verbs(app, self._verbs())
        checks = {"units": self._check_units}
        if self._secrets.address:
            checks["secret_manager"] = self._secrets.check
        add_health(app, settings, checks, lambda: self._http.draining)

    async def start(self) -> None:
        async with AsyncExitStack() as undo:
            try:
                await self._own.start()
            except ConfigError as error:  # then it needs units; its health says so while there is none
                self._own_trouble = str(error)
            undo.push_async_callback(self._own.stop, 0)
            await self._http.start()
            undo.pop_all()

    @property
    def address(self) -> str:
        return self._http.address

    def hello(self) -> list[str]:
        """What to say once it serves."""
        own = f"runs nodes itself until units register (not here: {self._own_trouble})" if self._own_trouble else (
            f"runs nodes itself, at level {self._own.level}, until units register")  # fmt: skip
        secrets = self._secrets.address or "none (SECRET_MANAGER)"
        return [f"node-runner at {self.address}, {own}; secret manager: {secrets}"]

    async def stop(self) -> None:
        await self._http.stop()
        await self._own.stop(0)

    # ------------------------------------------------------------------------------------------ verbs

    def _verbs(self) -> dict[str, Verb]:
        return {
            "POST /nodes/add-node": self._add_node,
            "POST /npu/add": self._add_npu,
            "POST /npu/pool/{npu_id}": self._pool,
            "GET /npu/all": self._all_npus,
            "POST /npu/log/{runner_id}": self._log,
            "POST /npu/result/{runner_id}": self._result,
        }

    async def _add_node(self, body: AddNode, request: Request) -> dict[str, Any]:
        operator_only(request, "control-unit")
        job = read_job(body.node_name, body.code, body.inputs, body.runner_id, codes.decode(body.code))
        result = await self._unless_gone(request, self._run(job))
        said = result.model_dump(include={"nodes", "outputs", "message", "status"})
        more = {"error_code": result.code, "traceback": result.traceback, "usage": result.usage}
        sent = {"node_name": job.node_name, "code": body.code, "inputs": job.inputs, "runner_id": job.runner_id}
        known = {name: value for name, value in more.items() if value}
        return {**sent, "status": result.status, "logs": result.logs, "outputs": said, **known}

    async def _add_npu(self, body: AddNpu, request: Request) -> dict[str, str]:
        operator_only(request, UNIT)
        try:
            plain = self._settings.flag("WITHOUT_TLS")
            address = service_address("address", body.address, plain=plain)
        except ConfigError as error:
            raise Refusal(422, "E_ADDRESS", str(error)) from None
        if not address:
            raise Refusal(422, "E_ADDRESS", "a unit has an address, such as http://127.0.0.1:10500")
        self._register.add(body.id, address, body.token)
        return {"message": "registered", "id": body.id}

    async def _pool(self, npu_id: str, body: Pool, request: Request) -> dict[str, str]:
        operator_only(request, UNIT)
        self._register.note(npu_id, body.model_dump())
        return {"message": "noted", "id": npu_id}

    async def _all_npus(self, request: Request) -> dict[str, Any]:
        operator_only(request)
        npus = self._register.views()
        return {"count": len(npus), "npus": npus}

    async def _log(self, runner_id: str, request: Request, log: str = "") -> dict[str, str]:
        operator_only(request, UNIT)
        self._find(runner_id).lines.note(log)
        return {"message": "noted"}

    async def _result(self, runner_id: str, body: Result, request: Request) -> dict[str, str]:
        operator_only(request, UNIT)
        if body.status not in (DONE, ERROR):
            raise Refusal(422, "E_REQUEST", f"status is DONE or ERROR, not {body.status[:40]!r}")
        waiting = self._find(runner_id)
        if waiting.result.done():
            raise Refusal(409, "E_ENDED", "this node has its result already")
        waiting.result.set_result(body)
        return {"message": "noted"}

    def _find(self, runner_id: str) -> Waiting:
        found = self._waiting.get(checked_runner_id(runner_id))
        if found is None:
            raise Refusal(404, "E_RUNNER_ID", f"nobody waits for {runner_id[:60]} here")
        return found

    # ------------------------------------------------------------------------------------------ one node

    async def _unless_gone(self, request: Request, work: Any) -> Result:
        """What comes of the work. Whoever asked may go: then it is ended."""
        running = asyncio.ensure_future(work)
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=LOOK_SEC)
                if not running.done() and await request.is_disconnected():
                    raise Refusal(400, "E_GONE", "whoever asked has gone")
            result: Result = running.result()
            return result
        finally:
            running.cancel()
            await asyncio.wait({running}, timeout=LOOK_SEC)

    async def _run(self, job: NodeJob) -> Result:
        if job.runner_id in self._waiting:
            raise Refusal(409, "E_RUNNER_ID", f"{job.runner_id} runs already: each run has a runner_id of its own")
        if len(self._waiting) >= MOST_WAITING:
            raise Refusal(503, "E_BUSY", f"{MOST_WAITING} nodes run already: ask again later", retry_after=1)
        waiting = self._waiting[job.runner_id] = Waiting()
        try:
            values = await self._secrets.values(job.names, node=job.node_name, runner_id=job.runner_id)
            job = NodeJob(job.node_name, job.source, job.inputs, job.runner_id, values)
            async with asyncio.timeout(self._patience):
                return await self._somewhere(job, waiting)
        except TimeoutError:
            raise Refusal(504, "E_TIMEOUT", f"the node did not end within {self._patience:g} s") from None
        finally:
            del self._waiting[job.runner_id]

    async def _somewhere(self, job: NodeJob, waiting: Waiting) -> Result:
        """On the unit with the least to do; on another if that one is lost, or full."""
        tried: list[str] = []
        full: Refusal | None = None
        while len(tried) < UNITS_TRIED and (npu := self._register.choose(tried)) is not None:
            tried.append(npu.id)
            npu.sent += 1
            try:
                return await self._on(npu, job, waiting)
            except Lost:
                waiting.lines.note(f"[WARNING] unit {npu.id} was lost; the node runs again elsewhere")
            except Refusal as refusal:
                if refusal.status != 503:
                    raise
                full = refusal
            finally:
                npu.sent -= 1
        if not tried and not self._own_trouble:
            return await self._here(job)
        raise full or Refusal(503, "E_NO_NPU", self._no_unit(tried), retry_after=2)

    def _no_unit(self, tried: list[str]) -> str:
        if tried:
            return f"{len(tried)} units were lost while they ran the node, and there is no other"
        return f"no node processing unit is registered (flowkit service npu), and here: {self._own_trouble}"

    async def _here(self, job: NodeJob) -> Result:
        run = self._own.submit(job)
        try:
            await run.ended.wait()
        finally:
            self._own.cancel(run.runner_id)
        return Result(**run.result(), logs=run.logs)

    async def _on(self, npu: Npu, job: NodeJob, waiting: Waiting) -> Result:
        waiting.begin()
        body = {"node_name": job.node_name, "code": codes.encode(job.source), "inputs": job.inputs,
                "runner_id": job.runner_id, "secrets": dict(job.secrets)}  # fmt: skip
        try:
            answer = await http.ask("POST", f"{npu.address}/run-node", body, token=npu.token)
        except ServiceUnavailable:
            await self._end(npu, job)  # perhaps only its answer was lost
            raise Lost from None
        if not answer.ok:
            raise Refusal(answer.status, answer.code, f"unit {npu.id}: {answer.detail}", retry_after=1)
        try:
            result = await self._hear(npu, job, waiting)
            if result.code == STOPPED[0]:
                raise Lost
        except BaseException:
            await self._end(npu, job)
            raise
        result.logs = [*waiting.lines.kept, *result.logs]
        return result

    async def _hear(self, npu: Npu, job: NodeJob, waiting: Waiting) -> Result:
        """The unit tells the result. It is asked from time to time, too: what it told may be lost, and so may it."""
        missed = 0
        while True:
            done, _ = await asyncio.wait({waiting.result}, timeout=LOOK_SEC)
            if done:
                return waiting.result.result()
            try:
                answer = await http.ask("GET", f"{npu.address}/result/{job.runner_id}", token=npu.token, timeout=5.0)
                missed = 0
            except ServiceUnavailable:
                missed += 1
                if missed >= LOST_AFTER:
                    raise Lost from None
                continue
            if answer.status == 404:
                raise Lost
            if answer.ok and isinstance(answer.said, dict) and answer.said.get("status") in (DONE, ERROR):
                return Result.model_validate({name: answer.said[name] for name in Result.model_fields
                                              if name in answer.said})  # fmt: skip

    async def _end(self, npu: Npu, job: NodeJob) -> None:
        """Nobody waits any more: what runs need not."""
        try:
            await asyncio.shield(
                http.ask("POST", f"{npu.address}/cancel/{job.runner_id}", token=npu.token, timeout=3.0)
            )
        except FlowKitError:
            return  # it is lost, and ends by its time limit at the latest

    # ------------------------------------------------------------------------------------------ health

    async def _check_units(self) -> str:
        if self._register.awake:
            return f"{self._register.awake} registered"
        if self._own_trouble:
            raise ServiceUnavailable(self._no_unit([]))
        return f"none is registered; nodes run here, at level {self._own.level}"
