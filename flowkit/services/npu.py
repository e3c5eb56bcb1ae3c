"""A node processing unit: runs nodes' code in the sandbox, and hears scripts that are run by hand."""

from __future__ import annotations

import asyncio
import random
import secrets as dice
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, Field

from flowkit.core.code import LONGEST_SOURCE
from flowkit.errors import ConfigError, FlowKitError, ServiceUnavailable
from flowkit.service import Supervisor
from flowkit.services import codes, http, passes
from flowkit.services.door import MB, Refusal
from flowkit.services.hand import Hand
from flowkit.services.keys import OPERATOR, Keys, Principal, token_for
from flowkit.services.passes import Pass
from flowkit.services.secret_values import SecretValues
from flowkit.services.serving import HttpServer, Verb, add_health, add_verbs, make_app, operator_only, principal_of
from flowkit.services.settings import EVERYWHERE, Settings
from flowkit.services.unit import NodeRun, Unit, checked_runner_id, read_job
from flowkit.telemetry import Telemetry

PORTS: Final = range(10_000, 11_001)
REPORT_SEC: Final = 2.0
TELL_TRIES: Final = 6
RUNNER: Final = "node-runner"
TELL_SEC: Final = 10.0
BY_HAND: Final = "by-hand"


class RunNode(BaseModel):
    """One node to be run. `secrets` are the values that its code may look up; only a node runner sends some."""

    node_name: str = Field(min_length=1, max_length=128)
    code: str = Field(min_length=1, max_length=2 * LONGEST_SOURCE)
    inputs: dict[str, Any] = {}
    runner_id: str
    secrets: dict[str, str] = {}


class Result(BaseModel):
    """What a script gives that is run by hand."""

    nodes: list[str] = Field([], max_length=1000)
    outputs: dict[str, Any] = {}
    message: str = ""
    status: str = "DONE"


class LookUp(BaseModel):
    name: str = Field(max_length=200)


class NpuService:
    """`id` and an own token for the node runner last as long as the process."""

    def __init__(self, settings: Settings, keys: Keys, telemetry: Telemetry) -> None:
        self.id = f"npu-{dice.token_hex(4)}"
        self._settings = settings
        self._keys = keys
        self._runner = settings.address("NODE_RUNNER_ADDR")
        self._runner_file = Path(settings.text("NODE_RUNNER_TOKEN_FILE"))
        self._runner_key = dice.token_urlsafe(32)
        self._pass_key = keys.token_of(OPERATOR)
        self._supervisor = Supervisor("npu", telemetry)
        self._unit = Unit(settings, telemetry)
        self._secrets = SecretValues(settings)
        self._hand = Hand(self._secrets)
        self._self_addr = settings.text("SELF_ADDR")
        if self._runner and settings.text("HOST") in EVERYWHERE and not self._self_addr:
            raise ConfigError(
                f"HOST={settings.text('HOST')} is no address that the node runner could ask at: set SELF_ADDR to what "
                "this machine is called there"
            )
        self._registered = False
        self._telling: set[asyncio.Task[None]] = set()
        app = make_app(settings, telemetry)
        self._http = HttpServer(app, settings, self._who, most_bytes=8 * MB)
        add_verbs(app, self._verbs())
        checks = {"sandbox": self._check_sandbox}
        if self._runner:
            checks["node_runner"] = self._check_runner
        if self._secrets.address:
            checks["secret_manager"] = self._secrets.check
        add_health(app, settings, checks, lambda: self._http.draining)

    async def start(self) -> None:
        async with AsyncExitStack() as undo:
            await self._unit.start()
            undo.push_async_callback(self._unit.stop, 0)
            await self._http.start(iter(random.sample(PORTS, 100)))  # a port, no secret
            undo.pop_all()
        if self._runner:
            self._supervisor.loop("report", self._report, every=REPORT_SEC)

    @property
    def address(self) -> str:
        return self._http.address

    def hello(self) -> list[str]:
        """What to say once it serves."""
        to = f", for the node runner at {self._runner}" if self._runner else ""
        shown = self._settings.token_file
        return [
            f"npu {self.id} at {self.address}, {self._unit.parallel} nodes at a time, at level {self._unit.level}{to}",
            "a script by hand: FLOWKIT_NODE_TOKEN=$(flowkit service npu --pass RUNNER_ID"
            f" --token-file {shown}) python script.py input.json RUNNER_ID {self.address} NODE",
        ]

    async def stop(self) -> None:
        """Take nothing any more, let what runs end, tell the node runner, and leave."""
        self._http.draining = True
        await self._unit.stop(self._settings.number("DRAIN_SEC", 0, 86_400))
        if self._telling:
            await asyncio.wait(set(self._telling), timeout=TELL_SEC)
        await self._http.stop()
        await self._supervisor.stop()

    # ------------------------------------------------------------------------------------------ who may

    def _who(self, method: str, path: str, token: str) -> Principal | None:
        verb, _, runner_id = path.strip("/").partition("/")
        if method == "POST" and verb in ("log", "result", "secret"):
            found = passes.read(self._pass_key, token, time.time())
            return Principal(BY_HAND) if found is not None and _same_id(found.runner_id, runner_id) else None
        if dice.compare_digest(token.encode(), self._runner_key.encode()):
            return Principal(RUNNER)
        return self._keys.who(token)

    def _pass_of(self, request: Request) -> Pass:
        token = request.headers.get("authorization", "").partition(" ")[2].strip()
        found = passes.read(self._pass_key, token, time.time())
        if found is None:
            raise Refusal(401, "E_TOKEN", "the pass has run out")
        return found

    # ------------------------------------------------------------------------------------------ verbs

    def _verbs(self) -> dict[str, Verb]:
        return {
            "GET /": self._root,
            "POST /run-node": self._run_node,
            "POST /log/{runner_id}": self._log,
            "POST /result/{runner_id}": self._result,
            "POST /secret/{runner_id}": self._secret,
            "GET /log/{runner_id}": self._read_log,
            "GET /result/{runner_id}": self._read_result,
            "POST /cancel/{runner_id}": self._cancel,
        }

    async def _root(self) -> dict[str, str]:
        return {"message": "FlowKit node processing unit", "id": self.id}

    async def _run_node(self, body: RunNode, request: Request, response: Response) -> dict[str, Any]:
        job = read_job(body.node_name, body.code, body.inputs, body.runner_id, codes.decode(body.code))
        if missing := [name for name in job.names if name not in body.secrets]:
            say = f"the code asks for the secrets {', '.join(missing)}: a node runner sends them along"
            raise Refusal(422, "E_SECRET_MISSING", say)
        job = type(job)(job.node_name, job.source, job.inputs, job.runner_id, body.secrets)
        run = self._unit.submit(job)
        if principal_of(request).name == RUNNER:
            task = self._supervisor.spawn(self._tell(run), f"tell-{run.runner_id}")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        response.status_code = 202
        return {"message": "accepted", "runner_id": run.runner_id, "status": run.status}

    async def _log(self, runner_id: str, request: Request, message: str = "") -> dict[str, str]:
        self._hand.say(self._pass_of(request), message)
        return {"message": "noted"}

    async def _result(self, runner_id: str, body: Result, request: Request) -> dict[str, str]:
        self._hand.end(self._pass_of(request), body.nodes, body.outputs, body.message, body.status)
        return {"message": "noted"}

    async def _secret(self, runner_id: str, body: LookUp, request: Request) -> dict[str, str]:
        return {"value": await self._hand.look_up(self._pass_of(request), body.name)}

    async def _read_log(self, runner_id: str, request: Request) -> dict[str, Any]:
        run = self._find(runner_id)
        return {"runner_id": run.runner_id, "status": run.status, "logs": run.logs}

    async def _read_result(self, runner_id: str, request: Request) -> dict[str, Any]:
        run = self._find(runner_id)
        return {"runner_id": run.runner_id, "logs": run.logs, **run.result()}

    async def _cancel(self, runner_id: str, request: Request) -> dict[str, Any]:
        if principal_of(request).name != RUNNER:
            operator_only(request)
        run = self._find(runner_id)
        return {"runner_id": run.runner_id, "cancelled": self._unit.cancel(run.runner_id)}

    def _find(self, runner_id: str) -> NodeRun:
        known = checked_runner_id(runner_id)
        found = self._unit.find(known) or self._hand.find(known)
        if found is None:
            raise Refusal(404, "E_RUNNER_ID", f"nothing of {known} is known here (any more)")
        return found

    # ------------------------------------------------------------------------------------------ the node runner

    async def _report(self) -> None:
        """Tell the node runner the pool's figures; to one that does not know this unit (any more), introduce it."""
        figures = self._unit.figures()
        try:
            answer = await self._ask_runner("POST", f"/npu/pool/{self.id}", figures)
            if answer.status == 404:
                said = {"address": self._http.address_at(self._self_addr), "id": self.id, "token": self._runner_key}
                answer = await self._ask_runner("POST", "/npu/add", said)
        except FlowKitError:
            self._registered = False
            raise
        self._registered = answer.ok
        if not answer.ok:
            raise ServiceUnavailable(f"the node runner at {self._runner}: {answer.detail}")

    async def _tell(self, run: NodeRun) -> None:
        await run.ended.wait()
        said = {**run.result(), "logs": run.logs}
        for attempt in range(TELL_TRIES):
            try:
                answer = await self._ask_runner("POST", f"/npu/result/{run.runner_id}", said)
            except ServiceUnavailable:
                if attempt + 1 == TELL_TRIES:
                    raise
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            if answer.ok or answer.status in (404, 409):  # it waits for it no longer
                return
            raise ServiceUnavailable(f"the node runner did not take the result of {run.runner_id}: {answer.detail}")

    async def _ask_runner(self, method: str, path: str, body: Any) -> http.Answer:
        token = token_for(self._runner_file, self._settings.kind.name)
        return await http.ask(method, f"{self._runner}{path}", body, token=token)

    # ------------------------------------------------------------------------------------------ health

    async def _check_sandbox(self) -> str:
        return f"programs run at level {self._unit.level}, {self._unit.open} now or soon"

    async def _check_runner(self) -> str:
        if not self._registered:
            raise ServiceUnavailable(f"the node runner at {self._runner} does not know this unit")
        return f"registered at {self._runner}"


def _same_id(known: str, asked: str) -> bool:
    try:
        return UUID(known) == UUID(asked)
    except ValueError:
        return False
