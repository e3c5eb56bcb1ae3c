"""One service over HTTP: its app, the socket it listens on, who may come in, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flowkit.errors import (
    ConfigError,
    FlowKitError,
    GraphError,
    IdempotencyConflict,
    RequestRefused,
    SecretNameError,
    SecretNotFound,
    SecretRefused,
    SecretsUnavailable,
    SecretValueError,
    ServiceUnavailable,
    StoreUnavailable,
    TaskNotFound,
    did_you_mean,
)
from flowkit.services.connection import Connection
from flowkit.services.door import MB, MOST_AT_ONCE, Door, Guard, Refusal
from flowkit.services.keys import OPERATOR, Keys, Principal
from flowkit.services.secret_values import SecretMissing
from flowkit.services.settings import LOOPBACK, Settings
from flowkit.telemetry import LoopFailed, Telemetry

CHECK_SEC: Final = 5.0
START_SEC: Final = 30.0
STATUS: Final[Mapping[type[FlowKitError], int]] = {
    TaskNotFound: 404,
    SecretNotFound: 404,
    SecretRefused: 403,
    RequestRefused: 409,
    IdempotencyConflict: 409,
    GraphError: 422,
    SecretNameError: 422,
    SecretValueError: 422,
    SecretMissing: 422,
    StoreUnavailable: 503,
    SecretsUnavailable: 503,
    ServiceUnavailable: 503,
}
Verb = Callable[..., Awaitable[Any]]
"""Answers one verb: its parameters are what the framework reads of the request, by their names and types."""
Check = Callable[[], Awaitable[str]]
"""Looks at one thing that a service depends on: says what it found, raises where it is not well."""


def make_app(settings: Settings, telemetry: Telemetry) -> FastAPI:
    """An app whose every error has a code, and says what to do. It shows no value that it was sent."""
    app = FastAPI(title=f"FlowKit {settings.kind.name}", docs_url=None, redoc_url=None)

    def said(status: int, code: str, detail: str, **headers: str) -> Response:
        return JSONResponse({"detail": detail, "code": code}, status, headers or None)

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return said(refusal.status, refusal.code, refusal.detail,
                    **({"retry-after": str(refusal.retry_after)} if refusal.retry_after else {}))  # fmt: skip

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> Response:
        parts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10]]
        return said(422, "E_REQUEST", "; ".join(parts))

    @app.exception_handler(HTTPException)
    async def no_such_verb(request: Request, error: HTTPException) -> Response:
        if error.status_code not in (404, 405):
            return said(error.status_code, "E_REQUEST", str(error.detail))
        verbs = [f"{method} {route.path}" for route in app.routes for method in sorted(getattr(route, "methods", ()))
                 if method != "HEAD" and hasattr(route, "path")]  # fmt: skip
        asked = f"{request.method} {request.url.path}"[:200]
        return said(error.status_code, "E_VERB", f"there is no {asked}{did_you_mean(asked, verbs)}")

    @app.exception_handler(FlowKitError)
    async def ours(_: Request, error: FlowKitError) -> Response:
        status = next((number for kind, number in STATUS.items() if isinstance(error, kind)), 500)
        return said(status, error.code, str(error))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        telemetry.emit(LoopFailed(settings.kind.name, request.url.path, error, 0.0))
        return said(500, "E_INTERNAL", f"the {settings.kind.name} failed; its log says how")

    return app


def add_verbs(app: FastAPI, verbs: Mapping[str, Verb]) -> None:
    """Let an app answer verbs such as `GET /keys`."""
    for said, verb in verbs.items():
        method, path = said.split()
        app.add_api_route(path, verb, methods=[method])


def add_health(app: FastAPI, settings: Settings, checks: Mapping[str, Check],
               draining: Callable[[], bool]) -> None:  # fmt: skip
    """`GET /health`: 200 while everything that the service depends on is well, else 503; `checks` looks at each."""

    async def one(check: Check) -> dict[str, str]:
        try:
            async with asyncio.timeout(CHECK_SEC):
                return {"status": "ok", "detail": await check()}
        except TimeoutError:
            return {"status": "failed", "detail": f"no answer within {CHECK_SEC:g} s"}
        except FlowKitError as error:
            return {"status": "failed", "detail": f"{type(error).__name__} [{error.code}]"}

    @app.get("/health")
    async def health() -> Response:
        found = dict(zip(checks, await asyncio.gather(*map(one, checks.values())), strict=True))
        well = all(part["status"] == "ok" for part in found.values())
        status = "draining" if draining() else "ok" if well else "failed"
        body = {"status": status, "service": settings.kind.name, "checks": found}
        return JSONResponse(body, 200 if status == "ok" else 503)


def keys_guard(keys: Keys) -> Guard:
    """Whoever has a token of the service's."""

    def who(method: str, path: str, token: str) -> Principal | None:
        return keys.who(token)

    return who


def principal_of(request: Request) -> Principal:
    """Who asks. For what is open to all, nobody does."""
    found: Principal | None = getattr(request.state, "principal", None)
    if found is None:
        raise Refusal(401, "E_TOKEN", "this needs a token of the service's")
    return found


def operator_only(request: Request, *others: str) -> Principal:
    """Raises `Refusal` for anybody else but the operator, and these."""
    found = principal_of(request)
    if found.name not in (OPERATOR, *others):
        raise Refusal(403, "E_FORBIDDEN", f"{found.name!r} may not do this; the operator's token may")
    return found


class HttpServer:
    """Listens, on loopback unless it was told otherwise, and serves an app behind its door. Raises `ConfigError` for
    an address that it may not listen on."""

    def __init__(self, app: Any, settings: Settings, who: Guard, *, most_bytes: int = MB,
                 most_at_once: int = MOST_AT_ONCE) -> None:  # fmt: skip
        self._settings = settings
        self._host = settings.text("HOST") or "127.0.0.1"
        self._cert, self._key = settings.text("TLS_CERT"), settings.text("TLS_KEY")
        self._drain_sec = settings.number("DRAIN_SEC", 0, 86_400)
        if bool(self._cert) != bool(self._key):
            raise ConfigError("TLS needs both TLS_CERT and TLS_KEY")
        if self._host not in LOOPBACK and not self._cert and not settings.flag("WITHOUT_TLS"):
            raise ConfigError(
                f"HOST={self._host} would let other machines send tokens in the open: give TLS_CERT and TLS_KEY, or "
                "set WITHOUT_TLS=1 on a network that encrypts by itself"
            )
        self._port = settings.whole("PORT", 0, 65_535) if settings.text("PORT") else None
        self._app = Door(app, who, most_bytes=most_bytes, most_at_once=most_at_once)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.draining = False

    @property
    def address(self) -> str:
        """Where it listens, with the port that it has got."""
        return self.address_at("")

    def address_at(self, name: str) -> str:
        """The same, where this machine is called so by others."""
        assert self._server is not None
        host, port = self._server.at
        host = name or host
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._cert else 'http'}://{shown}:{port}"

    async def start(self, ports: Iterator[int] | None = None) -> None:
        """Listen on PORT, else on the first free one of `ports`. Raises `ConfigError`."""
        listening = self._listen(ports)
        try:
            config = uvicorn.Config(
                self._app, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
                server_header=False, date_header=False, proxy_headers=False, backlog=128, timeout_keep_alive=5,
                h11_max_incomplete_event_size=64 * 1024, timeout_graceful_shutdown=max(1, int(self._drain_sec)),
                ssl_certfile=self._cert or None, ssl_keyfile=self._key or None,
            )  # fmt: skip
            self._server = _Server(config, listening.getsockname()[:2])
            config.load()
        except OSError as error:
            listening.close()
            raise ConfigError(f"TLS_CERT and TLS_KEY cannot be used: {error}") from error
        self._serving = asyncio.create_task(self._server.serve([listening]), name="http")
        async with asyncio.timeout(START_SEC):
            while not self._server.started and not self._serving.done():
                await asyncio.sleep(0.005)
        if self._serving.done():
            self._serving.result()

    def _listen(self, ports: Iterator[int] | None) -> socket.socket:
        wanted = (ports or [0]) if self._port is None else [self._port]
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        trouble: OSError | None = None
        for port in wanted:
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((self._host, port))
                listening.listen(128)
                return listening
            except OSError as error:
                listening.close()
                trouble = error
        why = (trouble.strerror or trouble) if trouble else "no port is free"
        raise ConfigError(f"the {self._settings.kind.name} cannot listen on {self._host}: {why}; set PORT")

    async def stop(self) -> None:
        """Take no more requests, and let those that are there end, for DRAIN_SEC at most."""
        self.draining = True
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._serving}, timeout=self._drain_sec + 2)
        if not done:
            self._server.force_exit = True
            self._serving.cancel()
            await asyncio.wait({self._serving}, timeout=2)


class _Server(uvicorn.Server):
    """Signals are for the process to hear."""

    def __init__(self, config: uvicorn.Config, at: tuple[str, int]) -> None:
        super().__init__(config)
        self.at = at

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
