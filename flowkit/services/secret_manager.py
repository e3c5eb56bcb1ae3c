"""The secret manager over HTTP, by the verbs of FlowKit's predecessors: what is sealed is the same, and so is the
record of its uses."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import Query, Request
from pydantic import BaseModel, Field

from flowkit.backend import open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.errors import SecretRefused
from flowkit.ports import SecretUse
from flowkit.safe import open_manager
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.secrets import Secrets
from flowkit.secrets.values import LARGEST
from flowkit.services.door import Refusal
from flowkit.services.keys import OPERATOR, Keys, Principal
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
from flowkit.telemetry import Telemetry

PAGE = 1000
MOST_KEYS = 100_000
Short = Annotated[str, Query(max_length=200)]


class Set(BaseModel):
    """A secret to be stored. A validation error shows no value: see `make_app`."""

    key: str = Field(max_length=200)
    value: str = Field(max_length=LARGEST)


class SecretManagerService:
    """The secrets of the tenant of whoever asks. The operator sets, deletes and lists; a value is given only to those
    whom ALLOW_GET names."""

    def __init__(self, settings: Settings, keys: Keys, telemetry: Telemetry) -> None:
        cfg = CoordinatorConfig.load()
        self._where = settings.where
        self._backend = open_backend(settings.db, cfg)
        self._cfg = cfg
        self._telemetry = telemetry
        self._may_get = frozenset(filter(None, (name.strip() for name in settings.text("ALLOW_GET").split(","))))
        self._manager: SecretManager | None = None
        app = make_app(settings, telemetry)
        self._http = HttpServer(app, settings, keys_guard(keys), most_bytes=LARGEST * 7)  # JSON may escape each byte
        add_verbs(app, self._verbs())
        checks = {"store": self._check_store, "master_keys": self._check_keys}
        add_health(app, settings, checks, lambda: self._http.draining)

    async def start(self) -> None:
        async with AsyncExitStack() as undo:
            await self._backend.store.start()  # without Kafka: nothing of a secret travels there
            undo.push_async_callback(self._backend.store.stop)
            self._manager = open_manager(self._backend, self._cfg, SystemClock(), self._telemetry)
            await self._manager.start()
            await self._manager.cabinet.keys.current()
            await self._http.start()
            undo.pop_all()

    @property
    def address(self) -> str:
        return self._http.address

    def hello(self) -> list[str]:
        """What to say once it serves."""
        allowed = ", ".join(sorted(self._may_get)) or "nobody: ALLOW_GET=node-runner lets the node runner have them"
        return [f"secret-manager at {self.address}, on {self._where}; values are given to {allowed}"]

    async def stop(self) -> None:
        await self._http.stop()
        await self._backend.store.stop()

    # ------------------------------------------------------------------------------------------ verbs

    def _verbs(self) -> dict[str, Verb]:
        return {
            "POST /set": self._set,
            "GET /get/{key}": self._get,
            "DELETE /delete/{key}": self._delete,
            "GET /keys": self._keys,
        }

    async def _set(self, body: Set, request: Request) -> dict[str, object]:
        view = await self._of(operator_only(request)).set(body.key, body.value)
        said: dict[str, object] = {"message": "stored", "key": view.name, "version": view.version}
        return {**said, "warnings": list(view.warnings)} if view.warnings else said

    async def _get(
        self, request: Request, key: str, flow: Short = "", node: Short = "", runner_id: Short = ""
    ) -> dict[str, str]:
        """A secret that is for some flows or nodes alone is given for those alone."""
        principal = principal_of(request)
        secrets = self._of(principal)
        use = SecretUse(principal.tenant, runner_id, node, 0, "", secrets.principal, flow)
        if principal.name not in self._may_get:
            raise await self._refused(secrets, use, principal, key)
        found = await secrets.manager.resolve(principal.tenant, [key], use, listed=[key])
        return {"key": key, "value": found.values[key]}

    async def _delete(self, key: str, request: Request) -> dict[str, str]:
        if not await self._of(operator_only(request)).delete(key):
            raise Refusal(404, "E_SECRET_UNKNOWN", f"there is no secret {key[:200]!r}")
        return {"message": "deleted", "key": key}

    async def _keys(self, request: Request) -> dict[str, list[str]]:
        secrets = self._of(operator_only(request))
        names: list[str] = []
        cursor: str | None = None
        while len(names) < MOST_KEYS:
            page = await secrets.list(limit=PAGE, cursor=cursor)
            names += [one.name for one in page.secrets]
            cursor = page.cursor
            if cursor is None:
                return {"keys": names}
        raise Refusal(413, "E_TOO_MANY", f"there are more than {MOST_KEYS:,}: flowkit secrets list gives pages")

    def _of(self, principal: Principal) -> Secrets:
        assert self._manager is not None
        return Secrets(self._manager, tenant=principal.tenant, principal=f"service:{principal.name}")

    async def _refused(self, secrets: Secrets, use: SecretUse, principal: Principal, key: str) -> SecretRefused:
        error = SecretRefused(
            f"{principal.name!r} may not have values: the operator allows it by ALLOW_GET={principal.name}"
            + (", or reads them with flowkit secrets get --reveal" if principal.name == OPERATOR else "")
        )
        await secrets.manager.record_refusal(use, error, note=f"asked for {key[:200]!r}")
        return error

    # ------------------------------------------------------------------------------------------ health

    async def _check_store(self) -> str:
        assert self._manager is not None
        await self._manager.cabinet.store.newest_secrets("default", limit=1, after="")
        return "it answers"

    async def _check_keys(self) -> str:
        assert self._manager is not None
        await self._manager.cabinet.keys.current()
        return "there is one"
