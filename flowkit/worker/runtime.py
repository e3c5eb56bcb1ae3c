"""One worker at work: what it receives, runs, reports and renews, wired together over the ports."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets as dice
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flowkit.clock import whole_clock
from flowkit.config import WorkerConfig
from flowkit.core.code import SECRETS_LABEL
from flowkit.errors import ConfigError
from flowkit.observations import Reading
from flowkit.ports import Bus, Clock, Record, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.logs import LEVELS
from flowkit.wire.messages import Goodbye, Held, encode_message
from flowkit.wire.seals import in_pool
from flowkit.wire.topics import FLEET_PARTITIONS, Topics, partition_of
from flowkit.worker.attempt import Attempt
from flowkit.worker.attempt_log import LogBounds
from flowkit.worker.attempt_secrets import HandlerSecrets
from flowkit.worker.context import Kit
from flowkit.worker.heart import DEFENCE, Gauge, Heart, Identity, Renewer
from flowkit.worker.inputs import RunSync
from flowkit.worker.intake import Intake
from flowkit.worker.log_pipe import LogPipe
from flowkit.worker.logger import Ear
from flowkit.worker.orphans import Undertaker
from flowkit.worker.outbox import Outbox
from flowkit.worker.performer import Performer
from flowkit.worker.pulse import LoopPulse, Pulse, ThreadPulse
from flowkit.worker.readings import readings
from flowkit.worker.registry import Registry
from flowkit.worker.schema import schemas_of
from flowkit.worker.slots import LOOK_SEC, Slots
from flowkit.worker.stream_hub import StreamHub
from flowkit.worker.threads import Threads

if TYPE_CHECKING:
    from flowkit.worker.input_adapters import InputAdapters
    from flowkit.worker.programs import Programs

SPARE_THREADS = 32
"""Beyond the slots, for those that a plain handler which cannot be stopped still occupies."""
HAND_BACK_SEC = 5.0
FLUSH_SEC = 5.0
SAY_SEC = 2.0


def no_gauge() -> tuple[float, float]:
    return 0.0, 0.0


class WorkerRuntime:
    """Serves the roles of a registry over a store and a bus that are started already.

    With `heart_in_thread`, heartbeats come from a thread that has a bus and a store of its own, made there by
    `heart_bus` and `heart_store`. `run_sync` runs plain handlers, in threads by default; `gauge` tells the CPU share
    and the memory (MB) for the heartbeats; `new_id` makes ids of so many bytes. `alone` says that its coordinator lives
    and stalls with it, so that nobody could take a lease away behind its back. `pool` is whose key signs what it says;
    its id begins with it. `adapters` are those that older graphs name, with the worker's own; `programs` runs the code
    of nodes that bring their own; `secrets` fills those of handlers in, without it they get none.
    """

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, cfg: WorkerConfig, registry: Registry,
                 telemetry: Telemetry | None = None, heart_in_thread: bool = False,
                 heart_bus: Callable[[], Bus] | None = None, heart_store: Callable[[], Renewer] | None = None,
                 run_sync: RunSync | None = None, gauge: Gauge = no_gauge, alone: bool = False, pool: str = "",
                 adapters: InputAdapters | None = None, programs: Programs | None = None,
                 secrets: HandlerSecrets | None = None,
                 new_id: Callable[[int], str] = dice.token_hex) -> None:  # fmt: skip
        if heart_in_thread and (heart_bus is None or heart_store is None):
            raise ConfigError("heart_in_thread needs heart_bus and heart_store: connections belong to one loop")
        self.worker_id = in_pool(cfg.worker_id or f"w-{new_id(4)}", pool)
        self.incarnation = ""
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self._store = store
        self._bus = bus
        self._clock = clock
        self._cfg = cfg
        self._registry = registry
        self._heart_factories = (heart_bus, heart_store) if heart_in_thread else None
        self._threads = Threads(cfg.slots + SPARE_THREADS, f"{self.worker_id}-handler")
        self._run_sync: RunSync = run_sync if run_sync is not None else self._threads.run
        self._gauge = gauge
        self._alone = alone
        self._adapters = adapters
        self._new_id = new_id
        self._programs = programs
        self._secrets = secrets
        self._topics = Topics(cfg.topic_prefix, cfg.facts_partitions)
        self._undertaker = Undertaker()
        self._supervisor = Supervisor(self.worker_id, self.telemetry)
        self.schemas = schemas_of(registry)
        self.running = False
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def active(self) -> list[Held]:
        """The attempts that run now."""
        return [attempt.held() for attempt in self._slots.running] if self.running else []

    @property
    def draining(self) -> bool:
        return self.running and self._slots.draining

    def use(self, store: Store, bus: Bus) -> None:
        """Another store and bus, before it is started."""
        self._store, self._bus = store, bus

    def readings(self) -> Iterable[Reading]:
        """How it stands at this moment."""
        return readings(self._slots, self._identity.slots) if self.running else ()

    # ------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Say hello, once it can hear the answer. A runtime may be started again after it was stopped."""
        if self.running:
            return
        self.incarnation = self._new_id(8)
        self._identity = Identity(
            self.worker_id, self.incarnation, tuple(self._registry.roles), self._registry.room(self._cfg.slots),
            self._labels(), self._cfg.worker_version, self.schemas,
            self._cfg.lease_ttl_sec, self._cfg.heartbeat_sec,
        )  # fmt: skip
        self.loop = asyncio.get_running_loop()
        await self._bus.ensure_topics(self._topics.specs())
        self._assemble()
        try:
            await self._hub.open()
            await self._intake.open()
            await self._pulse.start()  # a heartbeat is an introduction too: work may follow at once
        except BaseException:
            await self._close()
            raise
        self.running = True
        if self._ear is not None:
            logging.getLogger().addHandler(self._ear)
        self._supervisor.loop("look", self._slots.step, every=LOOK_SEC)
        self._say_hello()

    def _labels(self) -> dict[str, str]:
        ours = self._programs.labels if self._programs is not None else {}
        ours = ours | ({SECRETS_LABEL: "yes"} if self._secrets is not None else {})
        return ours | dict(self._cfg.labels)

    async def drain(self, timeout: float | None = None) -> None:
        """Take nothing any more, let what runs finish within `timeout` seconds (`drain_sec` by default), hand back the
        rest, and say goodbye."""
        if not self.running:
            return
        self._slots.close("draining")
        self._pulse.beat_now(draining=True)
        limit = self._cfg.drain_sec if timeout is None else timeout
        if not await self._slots.finished(limit) and self.running:
            self._slots.end_all("the worker is shutting down", HAND_BACK_SEC)
            await self._slots.finished(HAND_BACK_SEC + 1)
        if self.running:  # else `stop` has overtaken it
            await self._outbox.flush(FLUSH_SEC)
            await self._logs.flush(FLUSH_SEC)
            await self._leave()

    async def stop(self) -> None:
        """Stop now: what runs is cancelled and handed back, as far as that goes at once."""
        if not self.running:
            return
        self._slots.close("stopping")
        self._slots.end_all("the worker stopped", 0.0)
        await self._slots.finished(1.5)
        await self._outbox.flush(1.0)
        await self._logs.flush(1.0)
        await self._leave()

    async def _leave(self) -> None:
        if not self.running:
            return
        self.running = False
        self._slots.stop_waiting()
        await self._pulse.stop()
        self._outbox.stop()
        await self._say(encode_message(Goodbye(self.worker_id, self.incarnation)))
        await self._close()

    async def _close(self) -> None:
        if self._ear is not None:
            logging.getLogger().removeHandler(self._ear)
        await self._pulse.stop()
        await self._intake.close()
        await self._hub.close()
        await self._supervisor.stop()
        if self._programs is not None:
            await self._programs.close()
        self._threads.stop()
        self._undertaker.stop()

    # ------------------------------------------------------------------------------------------ wiring

    def _assemble(self) -> None:
        self._hub = StreamHub(
            bus=self._bus, topics=self._topics, supervisor=self._supervisor, telemetry=self.telemetry,
            worker_id=self.worker_id, incarnation=self.incarnation,
            send=lambda letter: self._outbox.add(letter),  # noqa: PLW0108 - it comes to be later
        )  # fmt: skip
        bounds = LogBounds(self._cfg.log_lines, self._cfg.log_bytes, LEVELS[self._cfg.log_level])
        self._logs = LogPipe(
            bus=self._bus, topics=self._topics, supervisor=self._supervisor, telemetry=self.telemetry,
            worker_id=self.worker_id, incarnation=self.incarnation, bounds=bounds, clock=self._clock.wall,
        )  # fmt: skip
        self._ear = Ear(self._logs) if self._cfg.capture_logging else None
        kit = Kit(
            self.worker_id,
            self._store,
            whole_clock(self._clock),
            self._run_sync,
            self.telemetry,
            self._undertaker,
            self._hub,
            self._logs,
        )
        self._outbox = Outbox(
            bus=self._bus, topics=self._topics, supervisor=self._supervisor, sender=self.worker_id,
            incarnation=self.incarnation, held=lambda: self._slots.load,
            acknowledged=lambda attempt: self._slots.acknowledged(attempt),  # noqa: PLW0108 - it comes to be later
        )  # fmt: skip
        self._slots = Slots(
            kit=kit, registry=self._registry, supervisor=self._supervisor, slots=self._identity.slots,
            performer=Performer(kit, max_output_bytes=self._cfg.max_output_bytes, adapters=self._adapters,
                                programs=self._programs, secrets=self._secrets, listens=self._ear is not None),
            started_after_sec=self._cfg.started_after_sec, send=self._outbox.add, topics=self._topics,
            defence_sec=math.inf if self._alone else DEFENCE * self._cfg.lease_ttl_sec,
        )  # fmt: skip
        self._intake = Intake(
            bus=self._bus, topics=self._topics, supervisor=self._supervisor, telemetry=self.telemetry,
            worker_id=self.worker_id, incarnation=self.incarnation, deliver=self._slots.receive,
            say_hello=self._say_hello,
        )  # fmt: skip
        self._pulse = self._make_pulse()
        self._slots.on_spare = lambda: self._pulse.beat_now(draining=self._slots.draining)

    def _make_pulse(self) -> Pulse:
        if self._heart_factories is None:
            return LoopPulse(self._make_heart, self._bus, self._store, self._slots.lose)
        make_bus, make_store = self._heart_factories
        assert make_bus is not None
        assert make_store is not None
        name = f"{self.worker_id}-heart"
        return ThreadPulse(self._make_heart, make_bus, make_store, self._topics, self._slots.lose, name)

    def _make_heart(self, bus: Bus, store: Renewer, on_lost: Callable[[Attempt], None]) -> Heart:
        return Heart(
            bus=bus, store=store, clock=self._clock, topics=self._topics, identity=self._identity,
            held=self._slots.held, heartbeat_sec=self._cfg.heartbeat_sec, lease_ttl_sec=self._cfg.lease_ttl_sec,
            on_lost=on_lost, gauge=self._gauge, telemetry=self.telemetry, defend=not self._alone,
            spare=lambda: self._slots.spare,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ what it says

    def _say_hello(self) -> None:
        hello = self._identity.hello(self._clock.mono(), self._slots.draining)
        self._supervisor.spawn(self._say(encode_message(hello)), "hello")

    async def _say(self, value: bytes) -> None:
        partition = partition_of(self.worker_id, FLEET_PARTITIONS)
        record = Record(self._topics.fleet, partition, value, self.worker_id.encode())
        sending = asyncio.ensure_future(self._bus.publish([record]))
        try:
            await asyncio.wait({sending}, timeout=SAY_SEC)
        finally:
            sending.cancel()
