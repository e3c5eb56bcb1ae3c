"""The worker as users embed it: handlers, on whatever database they hand over."""

from __future__ import annotations

import asyncio
import signal
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flowkit.adapters.timed import timed_bus, timed_store
from flowkit.clock import SystemClock, whole_clock
from flowkit.code_policies import read_code_policies
from flowkit.config import CoordinatorConfig, WorkerConfig, own_settings
from flowkit.core.code import CODE
from flowkit.core.signature import read_signature
from flowkit.errors import ConfigError
from flowkit.hurry import done_before
from flowkit.observing import observing_of
from flowkit.ports import Bus, Clock, Outcome, Renewal, SecretSource, Store
from flowkit.telemetry import Telemetry
from flowkit.worker.attempt_secrets import HandlerSecrets, Secrets
from flowkit.worker.gauge import ProcessGauge
from flowkit.worker.heart import Renewer
from flowkit.worker.program_secrets import FromManager
from flowkit.worker.registry import Registry
from flowkit.worker.runtime import WorkerRuntime

if TYPE_CHECKING:
    from flowkit.backend import Backend
    from flowkit.wire.messages import Held
    from flowkit.worker.input_adapters import InputAdapters, OwnAdapter
    from flowkit.worker.programs import Programs

RENEW_SEC = 5.0
ALONE_SEC = 2.0


class Worker:
    """Runs the nodes of its roles.

    `db` is a PyMongo `AsyncDatabase`, a Motor database, a `mongodb://` or `sqlite:///` URL, or None (embedded: then it
    serves a coordinator in this process). `handlers` are a list of functions (a role is a function's name), a dict
    `role -> handler`, or a module; `roles` chooses among them, and `code` is the role of nodes that bring their own;
    with `also_code` it is served beside the others wherever that can be. `labels` are for nodes that ask for them;
    `secrets` is where the secrets of nodes come from, by default the secret manager, which on a file has its keys by
    `coordinator_cfg`. `input_adapters` are async generator functions by name, which make a class's batches where a
    graph names them.
    Raises `ConfigError` for roles without a handler, for labels that are no texts, and for adapters that could never be
    called.
    """

    def __init__(self, *, db: Any = None, cfg: WorkerConfig | None = None, clock: Clock | None = None,
                 roles: Sequence[str] | None = None, handlers: Any = None, telemetry: Telemetry | None = None,
                 backend: Backend | None = None, labels: Mapping[str, str] | None = None,
                 input_adapters: Mapping[str, OwnAdapter] | None = None, secrets: Secrets | None = None,
                 also_code: bool = False, coordinator_cfg: CoordinatorConfig | None = None) -> None:  # fmt: skip
        self.cfg = own_settings(cfg, WorkerConfig)
        self.cfg.labels = _labels(self.cfg.labels if labels is None else labels)
        self.db = db
        self.clock = clock if clock is not None else SystemClock()
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self._backend = backend if backend is not None else _open(db, self.cfg)
        if self._backend.embedded:
            self.cfg.facts_partitions = 1
        wanted = self.cfg.roles if roles is None else list(roles)
        self._coordinator_cfg = coordinator_cfg
        knows = secrets is not None or self._backend.embedded or bool(self.cfg.secrets_address)
        secrets = secrets if secrets is not None else FromManager(self._secret_source, lambda: self.worker_id)
        self._secrets = HandlerSecrets(secrets, read_code_policies(self.cfg.code_policy)) if knows else None
        self._programs = _programs(self.cfg, wanted, secrets, anyway=also_code)
        self._registry = _registry(handlers, wanted, code=self._programs is not None)
        self.cfg.roles = [role for role in self._registry.roles if role != CODE or CODE in wanted]
        self._adapters = _input_adapters(input_adapters) if input_adapters else None
        self._runtime = self._make_runtime(self._backend)
        schemas = self._runtime.schemas
        self._signatures = {role: read_signature(schemas.get(role)) for role in self._registry.roles}
        self._started = False
        self._unmeasure: Callable[[], None] = lambda: None

    @property
    def worker_id(self) -> str:
        """The id that leases name: `cfg.worker_id`, or one of its own for each process."""
        return self._runtime.worker_id

    @property
    def worker_version(self) -> str:
        """`cfg.worker_version`: what its hello says of the code that it runs."""
        return self.cfg.worker_version

    @property
    def handlers(self) -> dict[str, Any]:
        """The handlers by role, as they were given."""
        return {role.name: role.given for role in self._registry if role.name != CODE}

    @property
    def serves_code(self) -> bool:
        """Whether it runs nodes that bring their own code."""
        return self._programs is not None

    @property
    def input_adapters(self) -> Mapping[str, Callable[..., AsyncIterator[Any]]]:
        """The input adapters by name: those that every worker has, and its own."""
        return (self._adapters or _input_adapters({})).by_name

    @property
    def active(self) -> list[Held]:
        """The attempts that run now."""
        return self._runtime.active

    # ------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect and begin. Raises `BusUnavailable` or `StoreUnavailable` with the address and a hint, and
        `ConfigError` where it is to run code and nothing is there to run it with."""
        if self._started:
            raise ConfigError("this worker has been started already")
        observing = observing_of(self.telemetry)
        await observing.begin(self.cfg, part="worker", embedded=self._backend.embedded)
        try:
            await self._connect()
        except BaseException:
            await observing.end()
            raise
        self._unmeasure = self.telemetry.measure(self._runtime.readings)
        self._backend.workers.append(self._signatures)
        self._started = True

    async def _connect(self) -> None:
        backend = self._backend
        await backend.start()
        try:
            self._check_company()
            await self._open_programs()
            self._runtime.use(timed_store(backend.store, self.telemetry), timed_bus(backend.bus, self.telemetry))
            await self._runtime.start()
        except BaseException:
            await backend.stop()
            raise

    async def _open_programs(self) -> None:
        """A worker whose duty it is to run code begins with finding out how; else that is found out when code comes."""
        if self._programs is None or CODE not in self.cfg.roles:
            return
        from flowkit.sandbox.errors import CannotStart

        try:
            await self._programs.open()
        except CannotStart as error:
            raise ConfigError(f"this worker cannot serve the role 'code': {error}") from error

    def _check_company(self) -> None:
        """On a file, only a coordinator of the same process can ever give work. Raises `ConfigError` where another
        process coordinates the file; says so later if nobody in this one does."""
        file = self._backend.file
        if file is None or self._backend.coordinated:
            return
        if not file.acquire_ownership():
            raise ConfigError(
                f"another process coordinates {file.path}, and a file's worker must live in the process of its "
                "coordinator: start it there, or run both on Kafka and MongoDB"
            )
        file.release_ownership()
        asyncio.get_running_loop().call_later(ALONE_SEC, self._say_if_alone)

    def _say_if_alone(self) -> None:
        if self._started and not self._backend.coordinated:
            warnings.warn(
                "this worker has no coordinator to give it work: start a Coordinator in this process, or hand both the "
                "same Kafka and MongoDB (db=...)",
                RuntimeWarning,
                stacklevel=1,
            )

    async def stop(self, timeout: float | None = None) -> None:
        """Take nothing any more, let what runs finish within `timeout` seconds (`cfg.drain_sec` by default), hand back
        the rest, and leave. With 0 it hands back at once."""
        await self._end(self._runtime.drain(timeout))

    async def stop_now(self) -> None:
        """Leave without waiting for anything that runs."""
        await self._end(self._runtime.stop())

    async def run_forever(self) -> None:
        """Work until SIGTERM or SIGINT, then drain; a second signal stops at once."""
        loop = asyncio.get_running_loop()
        first, second = asyncio.Event(), asyncio.Event()

        def asked() -> None:
            (second if first.is_set() else first).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        try:
            await self.start()
            await first.wait()
            await done_before(second, self.stop())
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await self.stop_now()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.stop(0.0 if kind is not None else None)

    async def _end(self, leaving: Any) -> None:
        try:
            await leaving
        finally:
            if self._started and not self._runtime.running:
                self._started = False
                self._unmeasure()
                self._backend.workers.remove(self._signatures)
                try:
                    await self._backend.stop()
                finally:
                    await observing_of(self.telemetry).end()

    # ------------------------------------------------------------------------------------------ wiring

    def _make_runtime(self, backend: Backend) -> WorkerRuntime:
        # In one process there is nothing to gain: the coordinator that would miss the heartbeats is blocked as well.
        threaded = not backend.embedded and self.db is not None
        return WorkerRuntime(
            store=backend.store, bus=backend.bus, clock=whole_clock(self.clock), cfg=self.cfg, registry=self._registry,
            telemetry=self.telemetry, gauge=ProcessGauge(), alone=backend.embedded, heart_in_thread=threaded,
            heart_bus=self._heart_bus, heart_store=self._heart_store, pool=backend.pool, adapters=self._adapters,
            programs=self._programs, secrets=self._secrets,
        )  # fmt: skip

    def _secret_source(self) -> SecretSource:
        """Raises `ConfigError`, `MasterKeyError`."""
        from flowkit.safe import open_source

        cfg = self._coordinator_cfg if self._coordinator_cfg is not None else CoordinatorConfig.load()
        return open_source(self._backend, self.cfg, cfg, whole_clock(self.clock), self.telemetry)

    def _heart_bus(self) -> Bus:
        return _open(self.db, self.cfg).bus

    def _heart_store(self) -> Renewer:
        if isinstance(self.db, str):
            return _open(self.db, self.cfg).store
        return _OtherLoopsStore(self._backend.store, self._runtime)


class _OtherLoopsStore:
    """Renews through the worker's own loop: a client that a user handed over belongs to that loop alone."""

    def __init__(self, store: Store, runtime: WorkerRuntime) -> None:
        self._store = store
        self._runtime = runtime

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def renew(self, renewal: Renewal) -> Outcome:
        loop = self._runtime.loop
        if loop is None:
            return Outcome.UNKNOWN
        asked = asyncio.run_coroutine_threadsafe(self._store.renew(renewal), loop)
        try:
            async with asyncio.timeout(RENEW_SEC):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            return Outcome.UNKNOWN


def _labels(given: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in given.items():
        if not (isinstance(name, str) and name and isinstance(value, str)):
            hint = f": write {{{name!r}: {str(value).lower()!r}}}" if isinstance(name, str) and name else ""
            raise ConfigError(f"labels are texts by name, not {name!r}: {value!r}{hint}")
    return dict(given)


def runs_code(cfg: WorkerConfig | None = None) -> bool:
    """Whether an embedded worker with these settings serves the role `code`, whatever handlers it has."""
    from flowkit.worker.program_setup import programs_if_likely

    cfg = cfg if cfg is not None else WorkerConfig.load()
    return CODE in cfg.roles or (not cfg.roles and programs_if_likely(cfg) is not None)


def _programs(cfg: WorkerConfig, roles: Sequence[str], secrets: Secrets | None, *, anyway: bool) -> Programs | None:
    if not (CODE in roles or (anyway and not roles)):
        return None
    from flowkit.worker.program_setup import make_programs, programs_if_likely

    return make_programs(cfg, secrets) if CODE in roles else programs_if_likely(cfg, secrets)


def _registry(handlers: Any, roles: Sequence[str], *, code: bool) -> Registry:
    registry = Registry(handlers)
    if code:
        registry.serve_code()
    if "echo" in roles and registry.get("echo") is None:
        from flowkit.worker.handlers.echo import EchoHandler

        registry.add("echo", EchoHandler())
    if roles:
        registry = registry.only(roles)
    if not len(registry):
        raise ConfigError("a worker needs handlers: Worker(handlers=[greet]) or Worker(handlers={'greet': greet})")
    return registry


def _input_adapters(own: Mapping[str, OwnAdapter]) -> InputAdapters:
    from flowkit.worker.input_adapters import InputAdapters  # what it needs of pydantic takes a while to import

    return InputAdapters(own)


def _open(db: Any, cfg: WorkerConfig) -> Backend:
    from flowkit.backend import open_backend

    return open_backend(db, cfg)
